"""Candidates: a few hundred products worth ranking, found by several channels that each see something else.

A channel is a ranked list of columns of the catalogue for everybody who asks: what they bought, what goes with it, what
sells now, what reads like it, what a typed text asks for, what the BasketGPT expects. The same code serves all shoppers
of a split and one shopper at a counter.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook import embeddings, queries, search
from recbook.asking import Catalogue
from recbook.baselines import popularity
from recbook.baskets import BasketGPT
from recbook.clues import BOUGHT, Bought, of_bought, of_shoppers
from recbook.evaluation import PARTS, Split
from recbook.histories import DAY, Log, before_each, ending, read, typed
from recbook.knowledge import RELATED, Knowledge
from recbook.metrics import hits, rank, recall
from recbook.receipts import descriptions
from recbook.reranking import Shopper

HISTORY, TOGETHER, POPULAR, PROFILE = "history", "bought together", "popular lately", "text profile"
QUERY, GPT = "text query", "basket GPT"
ONE_LOOK = 1e6  # days between two looks at what is bought together: only the one at the cut
BLOCK = 128  # questions that are answered at once: a few hundred MB
RECENT = 14  # days that are lately: one, two and four weeks find about as much


class Asked(NamedTuple):
    """Those who ask, n of them: each has an empty basket at the end of what they bought."""

    log: Log
    rows: np.ndarray  # (n,) int64: the empty baskets
    day: np.ndarray  # (n,) float64: when, since the log's origin
    shopper: np.ndarray  # (n, len(clues.SHOPPER)) float32
    bought: Bought  # of n questions


def asked(log: Log) -> Asked:
    """What is known of those who ask, from a log in which each one's last basket is empty: see `histories.ending`."""
    rows = np.flatnonzero(np.diff(log.first, append=-1))
    questions = before_each(log, ahead=0, seed=0).take(rows)
    return Asked(log, rows, questions.day, of_shoppers(log, questions), of_bought(log, questions))


class Moment:
    """A shop as of a cut: what can be asked about, what is known of it, and the channels that find candidates."""

    def __init__(
        self,
        split: Split,
        model: BasketGPT | None = None,
        vectors: np.ndarray | None = None,
        encode: Callable[[list[str]], np.ndarray] = embeddings.encode,
    ):
        """From the receipts of a split, which end at its cut.

        `model`: a BasketGPT of the same products for the channel of that name, or None for none. `vectors` (products,
        d): unit rows that `encode` makes of the descriptions, if they are at hand. ValueError: a model of other ones.
        """
        texts = descriptions(split.receipts)
        self.catalogue, self.cut, self.model, self.encode = Catalogue(texts), split.cut, model, encode
        if model is not None and not np.array_equal(model.catalogue.codes, split.codes):
            raise ValueError("the model was fitted on other products than those of the split: fit it on split.receipts")
        self.vectors = encode(list(texts.values())) if vectors is None else vectors
        self.index = search.build(split.codes, self.vectors)
        self.log, self.customer = read(split.receipts, split.codes)
        centred = self.vectors - self.vectors.mean(axis=0)  # what all descriptions share tells none from another
        centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
        self.knowledge = Knowledge(self.log, centred.astype(np.float32), ONE_LOOK).latest()
        self.popular = popularity(split, RECENT)[0] if len(split.shoppers) else np.zeros(len(split.codes), np.float32)

    def of_split(self, split: Split) -> Asked:
        """The judged shoppers of the split, in its order, asking at its cut."""
        judged = np.isin(self.customer, split.shoppers)
        return asked(ending(self.log, judged, (split.cut - self.log.origin) / DAY))

    def at_counter(self, shoppers: Iterable[Shopper]) -> Asked:
        """Shoppers as they stand at a counter. ValueError: asked before the cut, or a product that nobody knows."""
        made = []
        for shopper in shoppers:
            day = (pd.Timestamp(shopper.when) - self.log.origin) / DAY
            if day < self.knowledge.last_day - 1:
                raise ValueError(f"asked on {shopper.when}, but the shop is known as of {self.cut:%Y-%m-%d}")
            dated = self.catalogue.dated(shopper.history, day, self.log.origin, self.knowledge.rhythm)
            made.append([*dated, (day, np.array([], np.int64))])
        return asked(typed(made, len(self.catalogue.codes), self.log.origin))

    def gpt(self, who: Asked) -> np.ndarray | None:
        """The model's log-probabilities, (n, products) float32; None without a model."""
        return None if self.model is None else self.model.scores(who.log, who.rows)

    def channels(self, who: Asked, k: int, gpt: np.ndarray | None = None, texts: Sequence[str] | None = None) -> dict:
        """Lists by channel, each (n, k) int64 columns of the catalogue, best first, -1 where a list is shorter.

        `gpt` (n, products) are the model's scores, for its channel; `texts`, one for each who asks, for the text query.
        """
        lists = {
            HISTORY: self._history(who, k),
            TOGETHER: self._together(who, k),
            POPULAR: np.tile(rank(self.popular[None], k), (len(who.rows), 1)),
            PROFILE: self._profile(who, k),
        }
        if texts is not None:
            lists[QUERY] = self._columns(queries.by_text(self.index, list(texts), self.encode, k).codes, k)
        return lists if gpt is None else lists | {GPT: rank(gpt, k)}

    def _history(self, who: Asked, k: int) -> np.ndarray:
        """By the purchases, each worth half after 120 days."""
        products = len(self.catalogue.codes)
        scores = _dense(who.bought, products, BOUGHT.index("count, 120 days"))
        return rank(scores, k, _dense(who.bought, products) > 0)

    def _together(self, who: Asked, k: int) -> np.ndarray:
        """By EASE, from what was bought and how long ago."""
        parts = [np.full((0, k), -1)]
        for rows in blocks(len(who.rows)):
            known = self.knowledge.about(who.bought, rows, who.day[rows])
            parts.append(rank(known.related[..., RELATED.index("EASE")], k))
        return np.concatenate(parts)

    def _profile(self, who: Asked, k: int) -> np.ndarray:
        """By the index: the products whose descriptions are nearest to the mean of those bought; none, if none was."""
        means = _dense(who.bought, len(self.catalogue.codes)) @ self.vectors
        some, found = np.linalg.norm(means, axis=1) > 0, np.full((len(means), k), -1)
        if some.any():
            found[some] = self._columns(search.search(self.index, means[some], k).codes, k)
        return found

    def _columns(self, codes: np.ndarray, k: int) -> np.ndarray:
        columns = np.searchsorted(self.catalogue.codes, codes.astype(str))
        return np.pad(columns, ((0, 0), (0, k - columns.shape[1])), constant_values=-1)


def blocks(number: int) -> list[np.ndarray]:
    """0 to before `number`, in stretches that fit in memory."""
    return [np.arange(start, min(start + BLOCK, number)) for start in range(0, number, BLOCK)]


def _dense(bought: Bought, products: int, clue: int | None = None) -> np.ndarray:
    """One of the clues of what was bought, or a one for each, in a matrix (n, products) float32 of zeros."""
    column = np.ones(len(bought.items), np.float32) if clue is None else bought.clues[:, clue]
    return bought.matrix(column, np.arange(len(bought.starts) - 1), products).toarray()


def merged(lists: Sequence[np.ndarray], size: int) -> np.ndarray:
    """One list of several that take turns: the first of each, then the second of each, nothing twice.

    The lists are (n, k_i) columns, -1 where one is shorter; the result is (n, size), -1 padded.
    """
    longest = max(ranking.shape[1] for ranking in lists)
    padded = [np.pad(r, ((0, 0), (0, longest - r.shape[1])), constant_values=-1) for r in lists]
    turns = np.stack(padded, axis=2).reshape(len(padded[0]), -1)  # (n, k, lists) -> (n, k * lists)
    row = np.arange(len(turns))[:, None] * (turns.max(initial=0) + 1)
    first = np.zeros(turns.size, bool)
    there = np.flatnonzero(turns.ravel() >= 0)
    first[there[np.unique((row + turns).ravel()[there], return_index=True)[1]]] = True
    first = first.reshape(turns.shape)
    place = first.cumsum(axis=1) - 1
    kept = first & (place < size)
    made = np.full((len(turns), size), -1)
    made[np.nonzero(kept)[0], place[kept]] = turns[kept]
    return made


def found(ranking: np.ndarray, split: Split, sizes: Sequence[int] = (50, 100, 200)) -> pd.DataFrame:
    """The share of each shopper's targets among the first of their candidates: columns (part, "recall@50"), ….

    Of all targets, of those bought before ("repeat"), of those not ("explore"); NaN where there are none. One list
    serves all three parts: these are candidates, not recommendations. For `evaluation.summarise` and `paired`.
    """
    bought, targets = split.counts.toarray() > 0, split.targets.toarray()
    wanted = dict(zip(PARTS, (targets, targets & bought, targets & ~bought), strict=True))
    columns = {}
    for part, of_part in wanted.items():
        for size in sizes:
            columns[part, f"recall@{size}"] = recall(hits(ranking[:, :size], of_part), of_part.sum(axis=1))
    return pd.DataFrame(columns, index=pd.Index(split.shoppers, name="shopper"))
