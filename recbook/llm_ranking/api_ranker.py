"""A language model behind an OpenAI-compatible endpoint as a ranker: it is asked for a score per product, as JSON.

Such a server is somebody else's machine: it is slow, overloaded, breaks off, answers something else, or without end.
Here is what helps against each: a deadline and a largest size for every answer, retries with exponential backoff,
answers validated against the list that was asked about, a budget that is checked before a call, and a cache on disk, so
that nothing is paid for twice.
"""

import asyncio
import hashlib
import json
import math
import os
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np

from recbook.llm_ranking import prompts
from recbook.llm_ranking.prompts import Message
from recbook.ranking.rankers import Shopper
from recbook.storage import digest, read_json, whole_file

LOWEST_SCORE, HIGHEST_SCORE = 0.0, 10.0  # scores that are asked for
MISSING_SCORE = LOWEST_SCORE - 1  # the score of a candidate that the answer leaves out
LONGEST_WAIT = 60.0  # seconds between two attempts at most
LARGEST_RESPONSE = 2**20  # bytes of a response that are read, unpacked
LONGEST_ANSWER = 100_000  # letters that a model may write
LONGEST_QUOTE = 300  # letters of the server's own words that an error message quotes
MOST_STARTS = 100  # places in an answer where its JSON is looked for
OBJECT_START_PATTERN = re.compile(r'\{\s*"')  # an object that holds something begins with a key
PLACE_PATTERN = re.compile("[0-9]{1,9}")  # the number of a product in the list
JSON_DECODER = json.JSONDecoder(parse_int=float)  # an int of very many digits is an error, such a float is infinite
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
    """A response without what was asked for; another attempt may bring it."""


class _NoScores(_Unusable):
    """An answer without scores."""


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
    """A ranker: the scores that a model writes. `close` it, or use it in a `with`, to end its connections.

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
    timeout: float = 60.0  # seconds for a whole answer, however it comes
    attempts: int = 4  # per question
    wait: float = 1.0  # seconds before the second attempt; twice as long before each further one
    budget: CallBudget = field(default_factory=CallBudget)
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    counts: Counter = field(default_factory=Counter, init=False)
    _client: "_Client | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.attempts < 1 or not self.timeout > 0 or self.wait < 0:
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
            scores = self._answer(messages, len(candidates))
            kept = {**self._request(messages), "scores": {str(place): score for place, score in scores.items()}}
            with whole_file(path, private=True) as file:  # it holds histories; of the answer only scores
                file.write(json.dumps(kept | {"sha256": digest(kept)}, indent=1).encode())
        known = {place: score for place, score in scores.items() if 1 <= place <= len(candidates)}
        self.counts["unknown products"] += len(scores) - len(known)
        self.counts["missing products"] += len(candidates) - len(known)
        return np.array([known.get(place + 1, MISSING_SCORE) for place in range(len(candidates))])

    def messages(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> list[Message]:
        """The messages for the server; the candidates are numbered from one."""
        lines = prompts.candidate_lines(candidates, [str(place + 1) for place in range(len(candidates))], self.names)
        return prompts.chat_messages(prompts.shopper_in_words(shopper, query, self.names), lines, SCORES_QUESTION)

    def close(self) -> None:
        """End the connections to the server; another question would open new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

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
            kept = read_json(path)
            if not isinstance(kept, dict) or kept.pop("sha256", None) != digest(kept):
                raise ValueError("it does not have the checksum that it states")
            scores = parse_scores(json.dumps(kept), products)
        except (ValueError, OSError) as error:
            print(f"{path} is damaged ({error}); asking again")
            return None
        self.counts["from the cache"] += 1
        return scores

    # --- The server --------------------------------------------------------------------------------------------

    def _answer(self, messages: list[Message], products: int) -> dict[int, float]:
        """The scores in a usable answer, after `attempts` calls at most."""
        room = 64 + 16 * products  # tokens of an answer: numbers, scores, the punctuation between, and some to spare
        most = sum(len(each["content"].encode()) for each in messages) // 2 + room  # a token is seldom a single byte
        for attempt in range(self.attempts):
            self.budget.check(most)
            pause = min(LONGEST_WAIT, self.wait * 2**attempt)
            try:
                text = self._call(messages, room, most)
                return parse_scores(text, products)
            except _NoScores as error:
                failure = f"{error}: {self._quoted(text, 80)!r}"
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
        options = {"max_tokens": room} | dict(self.options)
        if "max_completion_tokens" in options:  # newer models' name for the same
            del options["max_tokens"]
        if self._client is None:
            self._client = _Client(self.base_url, self.api_key)
        self.counts["calls"] += 1
        self.budget.spent_calls += 1
        used = most
        try:
            completion = self._client.complete(self.timeout, model=self.model, messages=messages, **options)
            used = _tokens_used(completion, most)
        finally:
            self.budget.spent_tokens += used
        return _answer_text(completion, room)

    def _failure(self, error: Exception, pause: float) -> tuple[str, float]:
        """What went wrong, and the seconds to wait; EndpointFailed at once where waiting does not help."""
        import openai

        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout:g} seconds: give a longer timeout", pause
        if isinstance(error, openai.APIConnectionError):
            return f"the server at {self.base_url} cannot be reached, or broke off: see that it runs", pause
        if isinstance(error, openai.APIStatusError):
            self._refuse_redirect(error)
            reason = self._quoted(str(error))
            if error.status_code not in (408, 409, 429) and error.status_code < 500:
                raise EndpointFailed(f"the server refused ({reason}): check the key, the model's name, the options"
                                     ) from None  # fmt: skip # the cause would show what was sent
            return f"the server is overloaded, or failed ({reason})", max(pause, _retry_after(error))
        if isinstance(error, (ValueError, openai.OpenAIError)):
            return f"the response is no chat completion ({self._quoted(str(error))})", pause
        raise error

    def _refuse_redirect(self, error: Any) -> None:
        """EndpointFailed if the server wants the question sent elsewhere: it holds a customer's history."""
        if 300 <= error.status_code < 400:
            where = self._quoted(error.response.headers.get("location", "another address"))
            raise EndpointFailed(f"the server sends the question on to {where}, where nothing was sent: give that "
                                 "address as the base_url if you trust it") from None  # fmt: skip

    def _quoted(self, text: str, most: int = LONGEST_QUOTE) -> str:
        """The server's own words for a message: one line of so many letters that moves no cursor, without the key."""
        seen = "".join(letter for letter in text if letter.isprintable() or letter.isspace())
        line = " ".join(seen.split())
        line = line.replace(self.api_key, "…") if self.api_key else line
        return line if len(line) <= most else line[: most - 1] + "…"


class _Client:
    """OpenAI's client of one server: its calls share connections, and each has a deadline as a whole.

    A time-out of httpx's is for each read, so that a server that sends a letter now and then would never be late. One
    of asyncio's is for all that happens. It needs an event loop, and a notebook's is busy with the cell that asks: so
    this is one of its own, on a thread of its own.
    """

    def __init__(self, url: str | None, key: str | None):
        import openai

        self._openai = openai.AsyncOpenAI(
            api_key=key or "none",  # it insists on one, even where the server does not
            base_url=url,
            timeout=None,  # `complete` has one
            max_retries=0,
            http_client=_http_client(url),
        )
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = runner.get_loop()
        threading.Thread(target=_run_until_stopped, args=(runner, self._openai), daemon=True).start()
        self.close = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)  # or when it is forgotten

    def complete(self, seconds: float, **request: Any) -> Any:
        """The body of a chat completion as parsed JSON; TimeoutError if it is not there in so many seconds."""
        call = asyncio.run_coroutine_threadsafe(self._body(seconds, request), self._loop)
        try:
            body = call.result()
        finally:
            call.cancel()  # where whoever waits was interrupted
        if len(body) > LARGEST_RESPONSE:
            raise _Unusable(f"the response is larger than {LARGEST_RESPONSE:,} bytes")
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Unusable("the response is not JSON") from error

    async def _body(self, seconds: float, request: dict[str, Any]) -> bytes:
        async with asyncio.timeout(seconds):
            response = await self._openai.chat.completions.with_raw_response.create(**request)
        return response.content


def _run_until_stopped(runner: asyncio.Runner, client: Any) -> None:
    with runner:
        runner.get_loop().run_forever()
        runner.run(client.close())


def _http_client(url: str | None) -> Any:
    """OpenAI's kind of httpx client, but bounded; for a server on this machine it uses no proxy."""
    import openai

    class BoundedClient(openai.DefaultAsyncHttpxClient):
        """It reads little more than LARGEST_RESPONSE bytes of a response, and sends nothing on to another address."""

        async def send(self, request: Any, **options: Any) -> Any:
            response = await super().send(request, **options | {"stream": True})
            body = bytearray()
            try:
                async for part in response.aiter_bytes():  # unpacked
                    body += part
                    if len(body) > LARGEST_RESPONSE:
                        break
            finally:
                await response.aclose()
            kept = [each for each in response.headers.multi_items() if not each[0].startswith("content-")]
            return type(response)(response.status_code, headers=kept, content=bytes(body), request=response.request)

    here = urlsplit(url or "").hostname in ("localhost", "127.0.0.1", "::1")
    return BoundedClient(follow_redirects=False, trust_env=not here)


def _tokens_used(completion: Any, most: int) -> int:
    """The tokens that a completion says it took; `most` where it states no whole number from 0 up."""
    match completion:
        case {"usage": {"total_tokens": int(tokens)}} if tokens >= 0 and not isinstance(tokens, bool):
            return tokens
    return most


def _answer_text(completion: Any, room: int) -> str:
    match completion:
        case {"choices": [{"finish_reason": "length"}, *_]}:
            raise _Unusable(f"the answer was cut off after {room} tokens: this model writes more than it was asked for")
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            if len(text) > LONGEST_ANSWER:
                raise _Unusable(f"the answer has {len(text):,} letters, more than the {LONGEST_ANSWER:,} that are read")
            return text
    raise _Unusable("the response is no chat completion")


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
        raise _NoScores("the answer is not JSON")
    found = found.get("scores", found)
    scores = {}
    for place, (name, score) in enumerate(found.items() if isinstance(found, dict) else ()):
        number = int(name) if PLACE_PATTERN.fullmatch(name) else -place - 1
        if isinstance(score, float) and math.isfinite(score):  # JSON allows infinity and NaN, which are no scores
            scores[number] = min(HIGHEST_SCORE, max(LOWEST_SCORE, score))
    if not any(1 <= number <= products for number in scores):
        raise _NoScores("the answer has no score of a product in the list")
    return scores


def _first_object(text: str) -> dict | None:
    """The first JSON object anywhere in a text, or None; each of MOST_STARTS tries reads the text once at most."""
    for start in islice(OBJECT_START_PATTERN.finditer(text), MOST_STARTS):
        with suppress(ValueError, RecursionError):
            return JSON_DECODER.raw_decode(text, start.start())[0]
    return None
