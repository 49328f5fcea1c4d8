"""A teacher's labels: what it recommends for histories, as JSON Lines, for a student to learn from.

A line holds what a shopper had bought by a day, what the teacher recommends then, best first, with its scores, and,
where it is known, what the shopper bought next. Any ranker can be the teacher: trees, a GPT, a blend of both, a
language model behind an endpoint. A true basket exists for shoppers who came back; a label exists for everybody.
The last line that we write is a seal, {"labels": 1000, "sha256": …}: the checksum of the lines before it.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbook.baselines.evaluation import Split
from recbook.baskets.log import DAY, InteractionLog, log_with_openings
from recbook.ranking.candidates import Requests, Snapshot, requests_of
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import LambdaRank, propose_candidates
from recbook.ranking.rankers import Ranker, Shopper, rank_candidates
from recbook.storage import Damaged, check_file, whole_file
from recbook.tokens.documents import Control, Document, Product, sentence_case

HISTORY_FIELD, ASKED_FIELD, LISTED_FIELD, SCORES_FIELD, ACTION_FIELD = (
    "user_browsing_history", "asked", "llm_recommendations", "scores", "user_action"
)  # fmt: skip
COUNTRY_FIELD, VIEWED_FIELD, ADDED_FIELD = "country", "user_viewed", "user_added"  # may be missing
SEALED_FIELD = "sealed"  # on a first line: there is a seal at the end, or the file was cut short
COUNT_FIELD, CHECKSUM_FIELD = "labels", "sha256"  # of a seal
RECOMMENDATIONS_KEPT = 50  # recommendations per label
CANDIDATES_LABELLED = 400  # candidates that the teacher scores for a label
LABELLED_AT_ONCE = 512  # shoppers that are labelled at once: a few hundred MB


@dataclass(frozen=True)
class Label:
    """A request for recommendations and what the teacher recommends."""

    history: list[tuple[pd.Timestamp, list[str]]]  # baskets, oldest first: date and codes
    asked: pd.Timestamp  # the day of the request
    recommendations: list[str]  # codes, best first
    scores: list[float]  # of the recommendations, never rising
    action: list[str] | None = None  # codes that were bought next; None: not known
    country: str = ""
    viewed: tuple[str, ...] = ()  # codes; receipts have none
    added: tuple[str, ...] = ()  # codes put into a basket and not paid for; receipts have none

    @property
    def shopper(self) -> Shopper:
        """The shopper of the request, as rankers take it."""
        return Shopper(self.history, self.asked, self.country)


# --- A teacher labels --------------------------------------------------------------------------------------------


def label_requests(
    ranker: Ranker, shoppers: Iterable[Shopper], candidates: Iterable[Sequence[str]], k: int = RECOMMENDATIONS_KEPT
) -> list[Label]:
    """One label per shopper: the k best of their candidates (codes) by any ranker, one request at a time.

    ValueError if a score is not a finite number.
    """
    made = []
    for shopper, codes in zip(shoppers, candidates, strict=True):
        listed = rank_candidates(ranker, shopper, None, codes, k)
        if not np.isfinite(listed["score"]).all():
            raise ValueError(f"the teacher's scores of a shopper asked on {shopper.when} are not all finite numbers")
        history = [(pd.Timestamp(date), list(basket)) for date, basket in shopper.history]
        when = pd.Timestamp(shopper.when)
        made.append(Label(history, when, listed["code"].tolist(), listed["score"].tolist(), None, shopper.country))
    return made


def label_snapshot(
    ranker: LambdaRank,
    features: CandidateFeatures,
    k: int = RECOMMENDATIONS_KEPT,
    dropped: int = 0,
    later: Split | None = None,
    at_once: int = LABELLED_AT_ONCE,
) -> list[Label]:
    """A label for everybody with a history at the features' snapshot, whether or not they came back.

    `ranker` may have learned at other snapshots; if it reads or adds the GPT's scores, this snapshot must have a GPT.
    `dropped`: the number of last baskets that are taken off each history first; shoppers who have no more are left out.
    `later`: the split of that snapshot, whose targets become the actions; only with `dropped` 0, else ValueError.
    `at_once`: the number of shoppers that are labelled together.
    """
    if dropped and later is not None:
        raise ValueError("what somebody bought next does not follow on a history that was cut short: leave `later` out")
    snapshot, bought, made = features.snapshot, _next_baskets(later), []
    codes = snapshot.catalogue.codes
    for requests, customers in _request_blocks(snapshot, dropped, at_once):
        candidates = propose_candidates(features, requests, CANDIDATES_LABELLED)
        scores = ranker.predict(features.table(requests, candidates, snapshot.gpt(requests)))
        scores = np.where(candidates >= 0, scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        listed, scores = (np.take_along_axis(each, order, axis=1) for each in (candidates, scores))
        for row, history in enumerate(_histories(requests.log, codes)):
            there, action = listed[row] >= 0, bought.get(int(customers[row]))
            made.append(
                Label(history, snapshot.cut, codes[listed[row, there]].tolist(), scores[row, there].tolist(), action)
            )
    return made


def _request_blocks(snapshot: Snapshot, dropped: int, at_once: int) -> Iterator[tuple[Requests, np.ndarray]]:
    """Requests, in blocks, of all with more than `dropped` baskets, without the last of them; and the customers."""
    log, day = snapshot.log, (snapshot.cut - snapshot.log.origin) / DAY
    last = np.append(np.flatnonzero(np.diff(log.first)), len(log.first) - 1)  # each shopper's last basket
    left = np.repeat(last, np.diff(last, prepend=-1)) - np.arange(len(log.first)) >= dropped
    owners = np.unique(log.first[left])
    for begin in range(0, len(owners), at_once):
        some = owners[begin : begin + at_once]
        yield requests_of(log_with_openings(log, left & np.isin(log.first, some), day)), snapshot.customer[some]


def _next_baskets(split: Split | None) -> dict[int, list[str]]:
    """What each judged shopper bought next, by customer."""
    if split is None:
        return {}
    rows = range(len(split.shoppers))
    return {int(split.shoppers[row]): split.codes[split.targets[[row]].indices].tolist() for row in rows}


def _histories(log: InteractionLog, codes: np.ndarray) -> list[list[tuple[pd.Timestamp, list[str]]]]:
    """The baskets of every shopper of a log, but for the empty last one of each."""
    made: dict[int, list] = {}
    dates = (log.origin + pd.to_timedelta(log.days, unit="D")).round("s")
    for basket, (first, date) in enumerate(zip(log.first.tolist(), dates, strict=True)):
        items = log.items[log.starts[basket] : log.starts[basket + 1]]
        made.setdefault(first, []).append((date, codes[items].tolist()))
    return [history[:-1] for history in made.values()]


# --- On disk -----------------------------------------------------------------------------------------------------


def write_labels(path: str | Path, labels: Iterable[Label]) -> int:
    """Write labels as JSON Lines, whole or not at all, for their owner alone: they are customers'. Returns how many."""
    count, checksum = 0, hashlib.sha256()
    with whole_file(path, private=True) as file:
        file.write((json.dumps({SEALED_FIELD: True}) + "\n").encode())
        for label in labels:
            line = (json.dumps(_line(label), allow_nan=False) + "\n").encode()
            file.write(line)
            checksum.update(line)
            count += 1
        file.write((json.dumps({COUNT_FIELD: count, CHECKSUM_FIELD: checksum.hexdigest()}) + "\n").encode())
    return count


def _line(label: Label) -> dict[str, Any]:
    line = {
        HISTORY_FIELD: [[date.isoformat(), codes] for date, codes in label.history],
        ASKED_FIELD: label.asked.isoformat(),
    }
    line |= {LISTED_FIELD: label.recommendations, SCORES_FIELD: label.scores, ACTION_FIELD: label.action}
    more = {COUNTRY_FIELD: label.country, VIEWED_FIELD: list(label.viewed), ADDED_FIELD: list(label.added)}
    return line | {name: value for name, value in more.items() if value}


def read_labels(path: str | Path, products: Collection[str] | None = None) -> list[Label]:
    """The labels of a file, by `write_labels` or by any other program.

    `products`: all codes that may occur, if they are to be checked. ValueError names the line and the field, what is
    wrong with it, and what to do. A seal holds for the lines before it; files of other programs have none.
    """
    path, known = Path(path), None if products is None else frozenset(map(str, products))
    made: list[Label] = []
    check_file(path)
    with path.open("rb") as lines:
        checksum, sealed, number, open_seal = hashlib.sha256(), 0, 0, False
        for number, line in enumerate(lines, start=1):
            try:
                fields = _fields(line)
                if CHECKSUM_FIELD in fields:
                    _check_seal(fields, len(made) - sealed, checksum.hexdigest())
                if CHECKSUM_FIELD in fields or SEALED_FIELD in fields:
                    checksum, sealed, open_seal = hashlib.sha256(), len(made), SEALED_FIELD in fields
                    continue
                if fields:
                    made.append(_label(fields, known))
            except ValueError as error:
                kind = Damaged if isinstance(error, Damaged) else ValueError
                raise kind(f"{path}, line {number}: {error}") from error
            checksum.update(line)
    if not number or open_seal:
        raise Damaged(f"{path} is {'cut short' if number else 'empty'}: write it again")
    return made


def _fields(line: bytes) -> dict[str, Any]:
    """The object on a line; none on an empty one."""
    try:
        fields = json.loads(line.decode()) if line.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error}); write one object a line, with nothing around it") from error
    if not isinstance(fields, dict):
        raise ValueError(f"this is a {type(fields).__name__}; write one JSON object a line, in braces")
    return fields


def _check_seal(seal: dict[str, Any], count: int, checksum: str) -> None:
    if seal != {COUNT_FIELD: count, CHECKSUM_FIELD: checksum}:
        remedy = "write the labels again; where they were changed on purpose, delete this line"
        raise Damaged(f"the lines before it do not have the checksum that it states: {remedy}")


def _label(fields: dict[str, Any], known: frozenset[str] | None) -> Label:
    """The label that a line states; ValueError says which field is wrong, how, and what to do."""
    required = (HISTORY_FIELD, ASKED_FIELD, LISTED_FIELD, SCORES_FIELD)
    if missing := [name for name in required if name not in fields]:
        raise ValueError(f"{missing[0]} is missing; every line needs {', '.join(required[:-1])} and {required[-1]}")
    when = _date(fields[ASKED_FIELD], ASKED_FIELD)
    history = _history(fields[HISTORY_FIELD], when, known)
    listed, scores = _codes(fields[LISTED_FIELD], LISTED_FIELD, known), _scores(fields[SCORES_FIELD])
    if not listed or len(listed) != len(scores):
        raise ValueError(
            f"{LISTED_FIELD} holds {len(listed)} and {SCORES_FIELD} {len(scores)}: give one or more, and as many"
        )
    if len(set(listed)) < len(listed):
        again = next(code for place, code in enumerate(listed) if code in listed[:place])
        raise ValueError(f"{LISTED_FIELD} names {again!r} twice; keep its first place alone")
    action = None if fields.get(ACTION_FIELD) is None else _codes(fields[ACTION_FIELD], ACTION_FIELD, known)
    more = [tuple(_codes(fields.get(name, []), name, known)) for name in (VIEWED_FIELD, ADDED_FIELD)]
    return Label(history, when, listed, scores, action, str(fields.get(COUNTRY_FIELD) or ""), *more)


def _date(value: Any, field: str) -> pd.Timestamp:
    try:
        date = pd.Timestamp(value) if isinstance(value, str) else pd.NaT
    except ValueError:
        date = pd.NaT
    if pd.isna(date) or date.tzinfo is not None:
        raise ValueError(f'{field} has {value!r} for a date; write it like "2011-11-09", in the time of the shop')
    return date


def _codes(value: Any, field: str, known: frozenset[str] | None) -> list[str]:
    if not isinstance(value, list) or any(not isinstance(code, str) for code in value):
        raise ValueError(f'{field} is no list of codes; write ["85123A", "22423"]')
    if known is not None and (unknown := [code for code in value if code not in known]):
        raise ValueError(f"{field} names {unknown[0]!r}, which the catalogue lacks; leave it out, or fit on more")
    return value


def _history(value: Any, when: pd.Timestamp, known: frozenset[str] | None) -> list[tuple[pd.Timestamp, list[str]]]:
    if not isinstance(value, list) or any(not isinstance(basket, list) or len(basket) != 2 for basket in value):
        raise ValueError(f'{HISTORY_FIELD} is no list of pairs; write [["2011-11-02", ["85123A", "22423"]], …]')
    history = [(_date(date, HISTORY_FIELD), _codes(codes, HISTORY_FIELD, known)) for date, codes in value]
    dates = [date for date, _ in history]
    if dates != sorted(dates) or dates and dates[-1] > when:
        raise ValueError(f"{HISTORY_FIELD} is out of order; put the oldest basket first, and none after {ASKED_FIELD}")
    return history


def _scores(value: Any) -> list[float]:
    numbers = isinstance(value, list) and all(isinstance(s, int | float) and not isinstance(s, bool) for s in value)
    if not numbers or not all(abs(score) <= sys.float_info.max for score in value):
        raise ValueError(f"{SCORES_FIELD} is no list of finite numbers; leave out what has none")
    if (np.diff(value) > 0).any():
        raise ValueError(
            f"{SCORES_FIELD} rises after place {int(np.argmax(np.diff(value) > 0)) + 1}; sort both, best first"
        )
    return [float(score) for score in value]


# --- As text -----------------------------------------------------------------------------------------------------


def label_documents(label: Label, names: dict[str, str], most: int = 20, k: int = 5) -> tuple[Document, Document]:
    """A label as a prompt and an answer: "User viewed …, added …, purchased …" and "Recommend: …".

    `names` are descriptions by code. The prompt holds the `most` last products of each kind, the answer the first `k`
    recommendations. Kinds that were not logged are left out: receipts hold purchases only. `lora.pairs.encode_pairs`
    makes batches of such pairs.
    """
    bought = list(dict.fromkeys(code for _, codes in reversed(label.history) for code in reversed(codes)))[:most]
    prompt: Document = [Control("<|shopper|>"), " User"]
    events = {"viewed": label.viewed[-most:], "added": label.added[-most:], "purchased": bought[::-1]}
    for verb, codes in events.items():
        if codes:
            prompt += [f"{',' if len(prompt) > 2 else ''} {verb}", *_named(codes, names)]
    prompt += [" is new." if len(prompt) == 2 else ".", Control("<|answer|>")]
    return prompt, [" Recommend:", *_named(label.recommendations[:k], names), "."]


def _named(codes: Iterable[str], names: dict[str, str]) -> Iterator[str | Product]:
    for place, code in enumerate(codes):
        if place:
            yield ";"
        yield Product(code)
        yield f" {sentence_case(names.get(code, code))}"
