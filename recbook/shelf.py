"""The shelf: all that a shop can recommend now, found through channels and ranked for whoever stands before it.

Chapter 12 in one place: channels propose, the trees and the BasketGPT rank, a query weighs as much as the shopper.
Somebody of whom nothing is known gets what sells now; a product that nobody bought yet is ranked as the known products
that read most like it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook import search
from recbook.baskets import BasketGPT
from recbook.candidates import GPT, POPULAR, QUERY, Moment, merged
from recbook.cold_start import popular
from recbook.embeddings import encode
from recbook.evaluation import Split
from recbook.learned import PER_CHANNEL, LearnedRanker
from recbook.metrics import rank
from recbook.reranking import Shopper, scaled
from recbook.signals import Signals

CANDIDATES = 400  # products that are ranked for a shopper
FOUND = 50  # products that a query finds, to be ranked
KIN = 5  # known products whose mean score a new one gets
LOOKED_AT = 6  # purchases looked at as reasons: so many nearest by text, and so many by what is bought together
NEW, STUDENT = "new product", "student"  # the channels of what nobody bought yet, and of what the student ranks alone


class Found(NamedTuple):
    """Products for a shopper, best first."""

    codes: np.ndarray  # (n,) str
    scores: np.ndarray  # (n,) float64: they order these products, and mean nothing beside others
    channels: list[str]  # through which each was found


class Shelf:
    """What is on sale at a moment: `shelf.find(shopper)`. `codes` are those that were bought before, then the new."""

    def __init__(
        self,
        split: Split,
        model: BasketGPT,
        ranker: LearnedRanker,
        student: BasketGPT,
        vectors: pd.DataFrame,
        unsold: Sequence[str] = (),
    ):
        """`split`: as `evaluation.standing` gives it; `model` and `student` fitted on its receipts.

        `unsold`: codes of products that nobody bought yet. `vectors`: unit rows of all descriptions, by code.
        """
        self.split, self.model, self.student, self.known = split, model, student, len(split.codes)
        self.moment = Moment(split, model, vectors.loc[split.codes].to_numpy())
        self.signals = Signals(self.moment, split)
        self.ranker = LearnedRanker(ranker.trees, ranker.names, ranker.settings, self.signals)
        self.codes = np.array([*split.codes, *unsold], dtype=str)
        self.column = {code: column for column, code in enumerate(self.codes.tolist())}
        matrix = vectors.loc[self.codes].to_numpy()
        self.index = search.build(self.codes, matrix)
        kin = rank(matrix[self.known :] @ matrix[: self.known].T, KIN)  # (new, KIN)
        # Each product as those whose scores it gets: a known one its own.
        self.kin = np.vstack([np.repeat(np.arange(self.known)[:, None], kin.shape[1], axis=1), kin])
        self._popular: dict[str, np.ndarray] = {}

    def find(self, shopper: Shopper, query: str | None, allowed: np.ndarray, fast: bool = False) -> Found:
        """All candidates among the `allowed` (codes,) bool, best first; none, if nothing is allowed.

        `fast`: by the student alone, in place of channels, trees and the BasketGPT.
        """
        score, lists = self._asked(shopper, allowed, fast)
        if query is None:
            columns = merged([ranking[None] for ranking in lists.values()], CANDIDATES)[0]
            columns = columns[(columns >= 0) & allowed[columns]]
            values = score(columns)
        else:
            hits = search.search(self.index, encode([query]), FOUND, among=self.codes[allowed].tolist())
            columns = np.array([self.column[code] for code in hits.codes[0]], dtype=np.int64)
            lists = {QUERY: columns}
            values = scaled(score(columns)) + scaled(hits.scores[0]) if len(columns) else np.zeros(0)
        order = np.argsort(-values, kind="stable")
        columns = columns[order]
        return Found(self.codes[columns], values[order], channels(columns, lists))

    def _asked(self, shopper: Shopper, allowed: np.ndarray, fast: bool) -> tuple[Callable, dict[str, np.ndarray]]:
        """What scores columns for this shopper, and the channels' lists of columns, best first."""
        fresh = np.flatnonzero(allowed[self.known :])[:PER_CHANNEL] + self.known
        new = {NEW: fresh} if len(fresh) else {}
        if fast or not shopper.history:
            name = STUDENT if shopper.history else POPULAR
            values = self.student.ask([shopper.history], shopper.when)[0] if shopper.history else self._sells(shopper)
            lists = {name: rank(values[None], CANDIDATES, allowed[None, : self.known])[0]}
            return lambda columns: values[self.kin[columns]].mean(axis=1), lists | new
        who = self.moment.at_counter([shopper])
        gpt = self.moment.gpt(who)
        lists = {name: ranking[0] for name, ranking in self.moment.channels(who, PER_CHANNEL).items()}
        lists[GPT] = rank(gpt, PER_CHANNEL, allowed[None, : self.known])[0]

        def score(columns: np.ndarray) -> np.ndarray:
            asked, place = np.unique(self.kin[columns], return_inverse=True)
            values = self.ranker.predict(self.signals.table(who, asked[None], gpt))[0]
            return values[place.reshape(self.kin[columns].shape)].mean(axis=1)

        return score, lists | new

    def _sells(self, shopper: Shopper) -> np.ndarray:
        """The logarithm of what share of purchases each known product has, where the shopper lives."""
        if shopper.country not in self._popular:
            split = self.split
            shares = popular(split.receipts, split.codes, split.cut, shopper.country)
            self._popular[shopper.country] = np.log(shares + 1e-9)
        return self._popular[shopper.country]

    def reasons(self, shopper: Shopper, codes: Sequence[str]) -> list[list[str]]:
        """Purchases for each product, those first without which the BasketGPT's log-odds of it fall most.

        Looked at are the purchases nearest to one of the products, by text and by what is bought together; each is
        taken out in turn, all in one pass. Nothing for a new product, or without a history.
        """
        catalogue, history = self.model.catalogue, self.model.catalogue.entries(shopper.history)
        targets = np.array([self.column[code] for code in codes], dtype=np.int64)
        items = self._near(catalogue.bought(history), targets[targets < self.known])
        if not len(items):
            return [[] for _ in codes]
        scores = self.model.ask([catalogue.without(history, item) for item in items], shopper.when)
        odds = scores - np.log1p(-np.exp(scores))  # (items, known)
        return [self._ordered(items, odds, target) for target in targets]

    def _near(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Of the purchases those that are worth looking at for any of the targets."""
        together = self.moment.knowledge.ease[items][:, targets].toarray()  # (items, targets)
        closest = [np.argsort(-closeness, axis=0, kind="stable")[:LOOKED_AT]
                   for closeness in (self.signals.alike[np.ix_(items, targets)], together)]  # fmt: skip
        return items[np.unique(np.concatenate(closest))]

    def _ordered(self, items: np.ndarray, odds: np.ndarray, target: int) -> list[str]:
        if target >= self.known:
            return []
        order = np.argsort(odds[:, target], kind="stable")
        return [code for code in self.codes[items[order]].tolist() if code != self.codes[target]]


def channels(columns: np.ndarray, lists: Mapping[str, np.ndarray]) -> list[str]:
    """The channel in whose list each column stands highest; of several the first."""
    places = {name: {column: place for place, column in enumerate(found.tolist())} for name, found in lists.items()}
    return [min(places, key=lambda name: places[name].get(column, np.inf)) for column in columns.tolist()]
