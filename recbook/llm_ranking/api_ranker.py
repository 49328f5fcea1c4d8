"""A language model behind an OpenAI-compatible endpoint as a ranker: it is asked for a score a product, as JSON.

Such a server is somebody else's machine: it is slow, has too much to do, breaks off, or answers something else. Each of
these is met here: time-outs, retries that wait longer each time, answers checked against the list that was asked about,
a budget that is looked at before a call, and a cache on disk, so that nothing is paid for twice.
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
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from recbook.llm_ranking import prompts
from recbook.llm_ranking.prompts import Message
from recbook.ranking.rankers import Shopper
from recbook.storage import whole_file

LOWEST_SCORE, HIGHEST_SCORE = 0.0, 10.0  # scores that are asked for
MISSING_SCORE = LOWEST_SCORE - 1  # the score of a candidate that the answer says nothing of
LARGEST_NUMBER = 1e300  # JSON knows larger numbers, infinity and NaN; floats do not, or mean nothing by them
LONGEST_WAIT = 60.0  # seconds between two attempts at most
SCORES_QUESTION = (
    "How likely is it that the shopper buys each product next? Give every product a score "
    f"from {LOWEST_SCORE:.0f} (never) to {HIGHEST_SCORE:.0f} (surely). "
    'Answer with JSON alone, by the numbers of the list, such as {"scores": {"1": 7, "2": 0}}'
)


class EndpointFailed(RuntimeError):
    """No answer that could be used, after all attempts; the message says what came instead, and what to do."""


class OverBudget(RuntimeError):
    """The next call might cost more than was allowed; it was not made."""


class _Unusable(ValueError):
    """An answer that is not what was asked for; another attempt may bring one."""


@dataclass
class CallBudget:
    """What an endpoint may cost, and what it has cost so far: every attempt counts, whatever came of it."""

    calls: int = 1000
    tokens: int = 1_000_000  # of prompts and answers
    spent_calls: int = 0
    spent_tokens: int = 0

    def check(self, tokens: int) -> None:
        """OverBudget if one more call, of at most so many tokens, might be too much."""
        if self.spent_calls + 1 > self.calls:
            raise OverBudget(f"all {self.calls:,} calls of the budget are spent: give a larger Budget(calls=…)")
        if self.spent_tokens + tokens > self.tokens:
            left = f"{self.tokens - self.spent_tokens:,} of {self.tokens:,} tokens are left, the next call may take"
            raise OverBudget(f"{left} {tokens:,}: give a larger Budget(tokens=…), or fewer candidates")


@dataclass
class EndpointRanker:
    """A ranker: the scores that a model gives. `counts` tells what happened: calls, retries, products unknown…

    `names`: descriptions by code. `cache`: a folder, a JSON file an answer; it holds what was asked, histories too.
    `base_url` is, if not given, OPENAI_BASE_URL, and only to that server (or OpenAI's own) goes the key of
    OPENAI_API_KEY; another one gets the `api_key` that is given. The key is kept in no file and shown in no message.
    `options` go to the server as they are, such as `{"response_format": {"type": "json_object"}}`.
    """

    model: str
    names: Mapping[str, str] = field(repr=False)
    cache: str | Path
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0  # seconds that the server may be silent
    attempts: int = 4  # at one question
    wait: float = 1.0  # seconds before the second attempt; twice as long before each further one
    budget: CallBudget = field(default_factory=CallBudget)
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    counts: Counter = field(default_factory=Counter, init=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.timeout <= 0 or self.wait < 0:
            raise ValueError("attempts is at least 1, timeout above 0 seconds, wait not negative")
        usual = os.environ.get("OPENAI_BASE_URL") or None
        self.base_url = self.base_url or usual
        if self.base_url == usual:  # the environment's key is for the environment's server, and is sent to no other
            self.api_key = self.api_key or os.environ.get("OPENAI_API_KEY") or None
        if not self.api_key and not self.base_url:
            raise ValueError("there is no key: set OPENAI_API_KEY, or give the base_url of a server that needs none")

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`: from 0 to 10; -1 for a candidate that the answer says nothing of.

        OverBudget before a call that might cost too much, EndpointFailed if no attempt brings an answer.
        """
        if not len(candidates):
            return np.zeros(0)
        messages = self.messages(shopper, query, candidates)
        path = Path(self.cache) / f"{self._key(messages)}.json"
        given = self._kept(path, len(candidates))
        if given is None:
            text = self._asked(messages, len(candidates))
            given = parse_scores(text, len(candidates))
            with whole_file(path) as file:
                file.write(json.dumps(self._about(messages) | {"answer": text}, indent=1).encode())
        known = {place: score for place, score in given.items() if 1 <= place <= len(candidates)}
        self.counts["unknown products"] += len(given) - len(known)
        self.counts["missing products"] += len(candidates) - len(known)
        return np.array([known.get(place + 1, MISSING_SCORE) for place in range(len(candidates))])

    def messages(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> list[Message]:
        """What the server is asked; the candidates are numbered from one."""
        lines = prompts.candidate_lines(candidates, [str(place + 1) for place in range(len(candidates))], self.names)
        return prompts.chat_messages(prompts.shopper_in_words(shopper, query, self.names), lines, SCORES_QUESTION)

    # --- The cache ---------------------------------------------------------------------------------------------

    def _about(self, messages: list[Message]) -> dict[str, Any]:
        about = {"server": self.base_url, "model": self.model, "options": dict(self.options)}
        return about | {"messages": messages}

    def _key(self, messages: list[Message]) -> str:
        return hashlib.sha256(json.dumps(self._about(messages), sort_keys=True).encode()).hexdigest()

    def _kept(self, path: Path, products: int) -> dict[int, float] | None:
        """The scores in a file of the cache, or None; a damaged file is named, and its question asked again."""
        if not path.exists():
            return None
        try:
            given = parse_scores(json.loads(path.read_text(encoding="utf-8"))["answer"], products)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            print(f"{path} is damaged ({error}); asking again")
            return None
        self.counts["from the cache"] += 1
        return given

    # --- The server --------------------------------------------------------------------------------------------

    def _asked(self, messages: list[Message], products: int) -> str:
        """An answer that can be read, within so many attempts."""
        room = 64 + 16 * products  # tokens of an answer: a number, a score and the signs between, with some to spare
        most = sum(len(each["content"].encode()) for each in messages) // 2 + room  # a token is seldom a single byte
        for attempt in range(self.attempts):
            self.budget.check(most)
            pause = min(LONGEST_WAIT, self.wait * 2**attempt)
            try:
                text = self._call(messages, room, most)
                parse_scores(text, products)
                return text
            except _Unusable as error:
                trouble = str(error)
            except Exception as error:
                trouble, pause = self._trouble(error, pause)
            if attempt + 1 < self.attempts:
                self.counts["retries"] += 1
                time.sleep(pause)
        raise EndpointFailed(f"no answer from {self.model} that can be used, in {self.attempts} attempts: {trouble}")

    def _call(self, messages: list[Message], room: int, most: int) -> str:
        """The text of one answer; the budget pays what it took, or `most` tokens where the server does not say."""
        import openai

        options = {"max_tokens": room} | dict(self.options)
        if "max_completion_tokens" in options:  # newer models' name for the same
            del options["max_tokens"]
        key = self.api_key or "none"  # the client wants one, where the server does not
        self.counts["calls"] += 1
        self.budget.spent_calls += 1
        used = most
        try:
            with openai.OpenAI(api_key=key, base_url=self.base_url, timeout=self.timeout, max_retries=0,
                               http_client=_direct(self.base_url)) as client:  # fmt: skip
                answer = client.chat.completions.create(model=self.model, messages=messages, **options)
            used = getattr(getattr(answer, "usage", None), "total_tokens", None) or most
        finally:
            self.budget.spent_tokens += used
        choices = getattr(answer, "choices", None)
        if not choices or not isinstance(choices[0].message.content, str):
            raise _Unusable("what came is no answer of a chat")
        if choices[0].finish_reason == "length":
            raise _Unusable(f"the answer was cut off after {room} tokens: this model says more than it was asked for")
        return choices[0].message.content

    def _trouble(self, error: Exception, pause: float) -> tuple[str, float]:
        """What went wrong, and how long to wait; EndpointFailed at once where waiting does not help."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            return f"no answer within {self.timeout:g} seconds: give a longer timeout", pause
        if isinstance(error, openai.APIConnectionError):
            return f"the server at {self.base_url} cannot be reached, or broke off: see that it runs", pause
        if isinstance(error, openai.APIStatusError):
            said = self._without_key(str(error))[:300]
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                raise EndpointFailed(f"the server refused ({said}): see to the key, the model's name, the options"
                                     ) from None  # fmt: skip # the cause would show what was sent
            return f"the server has too much to do, or failed ({said})", max(pause, _wished(error))
        if isinstance(error, (ValueError, openai.OpenAIError)):
            return f"what came is no answer of a chat ({self._without_key(str(error))[:300]})", pause
        raise error

    def _without_key(self, text: str) -> str:
        return text.replace(self.api_key, "…") if self.api_key else text


def _direct(url: str | None) -> Any:
    """A client that goes past any proxy, for a server on this machine; None, the usual one, for all others."""
    import openai

    here = urlsplit(url or "").hostname in ("localhost", "127.0.0.1", "::1")
    return openai.DefaultHttpxClient(trust_env=False) if here else None


def _wished(error: Any) -> float:
    """The seconds that the server asks to wait, at most LONGEST_WAIT; 0 where it does not say, or gives a date."""
    try:
        seconds = float(error.response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
    return min(LONGEST_WAIT, max(0.0, seconds)) if math.isfinite(seconds) else 0.0


def parse_scores(text: str, products: int) -> dict[int, float]:
    """The scores in an answer, by the number of the product, cut to 0 to 10; ValueError if it holds none.

    JSON may stand among other text, as in a fence. A product that was not in the list keeps its number, or, where it
    has another name, a negative one; a score that is no finite number is left out.
    """
    given = _first_object(text)
    if given is None:
        raise _Unusable(f"the answer is not JSON: {text[:80]!r}")
    given = given.get("scores", given)
    scores = {}
    for place, (name, score) in enumerate(given.items() if isinstance(given, dict) else ()):
        number = int(name) if name.isdecimal() else -place - 1
        if isinstance(score, (int, float)) and not isinstance(score, bool) and abs(score) < LARGEST_NUMBER:
            scores[number] = float(min(HIGHEST_SCORE, max(LOWEST_SCORE, score)))
    if not any(1 <= number <= products for number in scores):
        raise _Unusable(f"the answer has no score of a product in the list: {text[:80]!r}")
    return scores


def _first_object(text: str) -> dict | None:
    """The first JSON object that stands anywhere in a text, or None."""
    start = text.find("{")
    while start >= 0:
        try:
            return json.JSONDecoder().raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
    return None
