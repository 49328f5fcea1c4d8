"""A language model behind an OpenAI-compatible endpoint as a ranker: it is asked for a score per product, as JSON.

Such a server is somebody else's machine: it is slow, overloaded, breaks off, or answers something else. Here is what
helps against each: time-outs, retries with exponential backoff, answers validated against the list that was asked
about, a budget that is checked before a call, and a cache on disk, so that nothing is paid for twice.
"""

import hashlib
import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np

from recbook.llm_ranking import prompts
from recbook.llm_ranking.prompts import Message
from recbook.ranking.rankers import Shopper
from recbook.storage import whole_file

LOWEST_SCORE, HIGHEST_SCORE = 0.0, 10.0  # scores that are asked for
MISSING_SCORE = LOWEST_SCORE - 1  # the score of a candidate that the answer leaves out
LARGEST_NUMBER = 1e300  # JSON allows larger numbers, infinity and NaN, which are no scores
LONGEST_WAIT = 60.0  # seconds between two attempts at most
SCORES_QUESTION = (
    "How likely is it that the shopper buys each product next? Give every product a score "
    f"from {LOWEST_SCORE:.0f} (never) to {HIGHEST_SCORE:.0f} (surely). "
    'Answer with JSON alone, by the numbers of the list, such as {"scores": {"1": 7, "2": 0}}'
)


class EndpointFailed(RuntimeError):
    """No usable answer after all attempts; the message says what came instead, and what to do."""


class OverBudget(RuntimeError):
    """The next call might cost more than the budget allows; it was not made."""


class _Unusable(ValueError):
    """An answer without what was asked for; another attempt may bring it."""


@dataclass
class CallBudget:
    """What an endpoint may cost, and what it has cost so far; every attempt counts, failed ones too."""

    calls: int = 1000
    tokens: int = 1_000_000  # of prompts and answers
    spent_calls: int = 0
    spent_tokens: int = 0

    def check(self, tokens: int) -> None:
        """OverBudget if one more call, of at most so many tokens, might be too much."""
        if self.spent_calls + 1 > self.calls:
            raise OverBudget(f"all {self.calls:,} calls of the budget are spent: give a larger CallBudget(calls=…)")
        if self.spent_tokens + tokens > self.tokens:
            left = f"{self.tokens - self.spent_tokens:,} of {self.tokens:,} tokens are left, the next call may take"
            raise OverBudget(f"{left} {tokens:,}: give a larger CallBudget(tokens=…), or fewer candidates")


@dataclass
class EndpointRanker:
    """A ranker: the scores that a model writes.

    `counts` says what happened: calls, retries, unknown products …

    `names`: descriptions by code. `cache`: a folder with a JSON file per answer; it holds the messages, histories too.
    `base_url` defaults to OPENAI_BASE_URL. The key of OPENAI_API_KEY goes to that server (or OpenAI's own) alone;
    another server gets the `api_key` that is given. No file and no message holds the key. `options` go to the server
    as they are, such as `{"response_format": {"type": "json_object"}}`.
    """

    model: str
    names: Mapping[str, str] = field(repr=False)
    cache: str | Path
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0  # seconds that the server may be silent
    attempts: int = 4  # per question
    wait: float = 1.0  # seconds before the second attempt; twice as long before each further one
    budget: CallBudget = field(default_factory=CallBudget)
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    counts: Counter = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.timeout <= 0 or self.wait < 0:
            raise ValueError("attempts is at least 1, timeout above 0 seconds, wait not negative")
        usual = os.environ.get("OPENAI_BASE_URL") or None
        self.base_url = self.base_url or usual
        if self.base_url == usual:  # the environment's key goes to the environment's server alone
            self.api_key = self.api_key or os.environ.get("OPENAI_API_KEY") or None
        if not self.api_key and not self.base_url:
            raise ValueError("there is no key: set OPENAI_API_KEY, or give the base_url of a server that needs none")

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`: from 0 to 10; -1 for a candidate that the answer leaves out.

        OverBudget before a call that might cost too much, EndpointFailed if no attempt brings a usable answer.
        """
        if not len(candidates):
            return np.zeros(0)
        messages = self.messages(shopper, query, candidates)
        path = Path(self.cache) / f"{self._cache_key(messages)}.json"
        scores = self._cached(path, len(candidates))
        if scores is None:
            text = self._answer(messages, len(candidates))
            scores = parse_scores(text, len(candidates))
            with whole_file(path) as file:
                file.write(json.dumps(self._request(messages) | {"answer": text}, indent=1).encode())
        known = {place: score for place, score in scores.items() if 1 <= place <= len(candidates)}
        self.counts["unknown products"] += len(scores) - len(known)
        self.counts["missing products"] += len(candidates) - len(known)
        return np.array([known.get(place + 1, MISSING_SCORE) for place in range(len(candidates))])

    def messages(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> list[Message]:
        """The messages for the server; the candidates are numbered from one."""
        lines = prompts.candidate_lines(candidates, [str(place + 1) for place in range(len(candidates))], self.names)
        return prompts.chat_messages(prompts.shopper_in_words(shopper, query, self.names), lines, SCORES_QUESTION)

    # --- The cache ---------------------------------------------------------------------------------------------

    def _request(self, messages: list[Message]) -> dict[str, Any]:
        request = {"server": self.base_url, "model": self.model, "options": dict(self.options)}
        return request | {"messages": messages}

    def _cache_key(self, messages: list[Message]) -> str:
        return hashlib.sha256(json.dumps(self._request(messages), sort_keys=True).encode()).hexdigest()

    def _cached(self, path: Path, products: int) -> dict[int, float] | None:
        """The scores in a file of the cache, or None; a damaged file is named, and its question asked again."""
        if not path.exists():
            return None
        try:
            scores = parse_scores(json.loads(path.read_text(encoding="utf-8"))["answer"], products)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            print(f"{path} is damaged ({error}); asking again")
            return None
        self.counts["from the cache"] += 1
        return scores

    # --- The server --------------------------------------------------------------------------------------------

    def _answer(self, messages: list[Message], products: int) -> str:
        """The text of a usable answer, after `attempts` calls at most."""
        room = 64 + 16 * products  # tokens of an answer: numbers, scores, the punctuation between, and some to spare
        most = sum(len(each["content"].encode()) for each in messages) // 2 + room  # a token is seldom a single byte
        for attempt in range(self.attempts):
            self.budget.check(most)
            pause = min(LONGEST_WAIT, self.wait * 2**attempt)
            try:
                text = self._call(messages, room, most)
                parse_scores(text, products)
                return text
            except _Unusable as error:
                failure = str(error)
            except Exception as error:
                failure, pause = self._failure(error, pause)
            if attempt + 1 < self.attempts:
                self.counts["retries"] += 1
                time.sleep(pause)
        raise EndpointFailed(f"no usable answer from {self.model} in {self.attempts} attempts: {failure}")

    def _call(self, messages: list[Message], room: int, most: int) -> str:
        """The text of one answer; the budget is charged what it took, or `most` tokens if the server does not say."""
        import openai

        asked = cast("list[openai.types.chat.ChatCompletionMessageParam]", messages)  # plain dictionaries
        options = {"max_tokens": room} | dict(self.options)
        if "max_completion_tokens" in options:  # newer models' name for the same
            del options["max_tokens"]
        key = self.api_key or "none"  # the client insists on one, even where the server does not
        self.counts["calls"] += 1
        self.budget.spent_calls += 1
        used = most
        try:
            with openai.OpenAI(api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=0,
                               http_client=_http_client(self.base_url)) as client:  # fmt: skip
                answer = client.chat.completions.create(model=self.model, messages=asked, **options)
            used = getattr(getattr(answer, "usage", None), "total_tokens", None) or most
        finally:
            self.budget.spent_tokens += used
        choices = getattr(answer, "choices", None)
        if not choices or not isinstance(choices[0].message.content, str):
            raise _Unusable("the response is no chat completion")
        if choices[0].finish_reason == "length":
            raise _Unusable(f"the answer was cut off after {room} tokens: this model writes more than it was asked for")
        return choices[0].message.content

    def _failure(self, error: Exception, pause: float) -> tuple[str, float]:
        """What went wrong, and the seconds to wait; EndpointFailed at once where waiting does not help."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"no answer within {self.timeout:g} seconds: give a longer timeout", pause
        if isinstance(error, openai.APIConnectionError):
            return f"the server at {self.base_url} cannot be reached, or broke off: see that it runs", pause
        if isinstance(error, openai.APIStatusError):
            reason = self._without_key(str(error))[:300]
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                raise EndpointFailed(f"the server refused ({reason}): check the key, the model's name, the options"
                                     ) from None  # fmt: skip # the cause would show what was sent
            return f"the server is overloaded, or failed ({reason})", max(pause, _retry_after(error))
        if isinstance(error, (ValueError, openai.OpenAIError)):
            return f"the response is no chat completion ({self._without_key(str(error))[:300]})", pause
        raise error

    def _without_key(self, text: str) -> str:
        return text.replace(self.api_key, "…") if self.api_key else text


def _http_client(url: str | None) -> Any:
    """A client that uses no proxy, for a server on this machine; None, the default client, for all others."""
    import openai

    here = urlsplit(url or "").hostname in ("localhost", "127.0.0.1", "::1")
    return openai.DefaultHttpxClient(trust_env=False) if here else None


def _retry_after(error: Any) -> float:
    """The seconds of the server's Retry-After, at most LONGEST_WAIT; 0 where there is none, or a date."""
    try:
        seconds = float(error.response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
    return min(LONGEST_WAIT, max(0.0, seconds)) if math.isfinite(seconds) else 0.0


def parse_scores(text: str, products: int) -> dict[int, float]:
    """The scores in an answer, by the number of the product, clipped to 0 … 10; ValueError if it holds none.

    JSON may stand among other text, as in a fence. A product that was not in the list keeps its number, or gets a
    negative one where its name is no number; a score that is no finite number is left out.
    """
    found = _first_object(text)
    if found is None:
        raise _Unusable(f"the answer is not JSON: {text[:80]!r}")
    found = found.get("scores", found)
    scores = {}
    for place, (name, score) in enumerate(found.items() if isinstance(found, dict) else ()):
        number = int(name) if name.isdecimal() else -place - 1
        if isinstance(score, (int, float)) and not isinstance(score, bool) and abs(score) < LARGEST_NUMBER:
            scores[number] = float(min(HIGHEST_SCORE, max(LOWEST_SCORE, score)))
    if not any(1 <= number <= products for number in scores):
        raise _Unusable(f"the answer has no score of a product in the list: {text[:80]!r}")
    return scores


def _first_object(text: str) -> dict | None:
    """The first JSON object anywhere in a text, or None."""
    start = text.find("{")
    while start >= 0:
        try:
            return json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
    return None
