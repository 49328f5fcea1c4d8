"""The shelf: all that a shop can recommend now, found through channels and ranked for whoever stands before it.

Chapter 12 in one place: channels propose, the trees and the BasketGPT rank, a query weighs as much as the shopper.
Somebody of whom nothing is known gets what sells now; a product that nobody bought yet is ranked as the known products
that read most like it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baselines.evaluation import Split
from recbook.baselines.metrics import rank
from recbook.baskets.model import BasketGPT
from recbook.embeddings.encoder import encode
from recbook.ranking.candidates import GPT_CHANNEL, POPULAR_CHANNEL, QUERY_CHANNEL, Snapshot, interleave
from recbook.ranking.cold_start import popular_now
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import PER_CHANNEL, LambdaRank
from recbook.ranking.rankers import Shopper, standardized
from recbook.search.index import build_index, search_index

MOST_CANDIDATES = 400  # products that are ranked for a shopper
FOUND_PER_CHANNEL = 50  # products that a query finds, to be ranked
NEAREST_KNOWN = 5  # known products whose mean score a new one gets
PURCHASES_TRIED = 6  # purchases looked at as reasons: so many nearest by text, and so many by what is bought together
NEW_PRODUCT_CHANNEL, STUDENT_CHANNEL = (
    "new product",
    "student",
)  # channels: what hardly anybody bought yet; what the student ranks alone


class RankedProducts(NamedTuple):
    """Products for a shopper, best first."""

    codes: np.ndarray  # (n,) str
    scores: np.ndarray  # (n,) float64: they order these products, and mean nothing beside others
    channels: list[str]  # through which each was found


class TwoStageRecommender:
    """What is on sale at a moment: `find(shopper)`. `codes` are those that were bought before, then the new."""

    def __init__(
        self,
        split: Split,
        model: BasketGPT,
        ranker: LambdaRank,
        student: BasketGPT,
        vectors: pd.DataFrame,
        unsold: Sequence[str] = (),
    ):
        """`split`: as `evaluation.snapshot` gives it; `model` and `student` fitted on its receipts.

        `unsold`: codes of products that nobody, or too few, bought yet. `vectors`: unit rows of descriptions, by code.
        """
        self.split, self.model, self.student, self.known = split, model, student, len(split.codes)
        self.moment = Snapshot(split, model, vectors.loc[split.codes].to_numpy())
        self.signals = CandidateFeatures(self.moment, split)
        self.ranker = LambdaRank(ranker.trees, ranker.names, ranker.settings, self.signals)
        self.codes = np.array([*split.codes, *unsold], dtype=str)
        self.column = {code: column for column, code in enumerate(self.codes.tolist())}
        matrix = vectors.loc[self.codes].to_numpy()
        self.index = build_index(self.codes, matrix)
        kin = rank(matrix[self.known :] @ matrix[: self.known].T, min(NEAREST_KNOWN, self.known))  # (new, KIN)
        # Each product as those whose scores it gets: a known one its own.
        self.kin = np.vstack([np.repeat(np.arange(self.known)[:, None], kin.shape[1], axis=1), kin])
        self.countries, self._popular = frozenset(split.receipts["country"]), {}  # shares are counted when asked for

    def find(
        self,
        shopper: Shopper,
        query: str | None,
        allowed: np.ndarray,
        fast: bool = False,
        most: int = FOUND_PER_CHANNEL,
    ) -> RankedProducts:
        """Candidates among the `allowed` (codes,) bool, best first: `most` at least, or all; none, if none is allowed.

        `fast`: by the student alone, in place of channels, trees and the BasketGPT.
        """
        score, lists = self._asked(shopper, allowed, fast, max(most, PER_CHANNEL))
        if query is None:
            columns = interleave([ranking[None] for ranking in lists.values()], max(most, MOST_CANDIDATES))[0]
            fresh = np.flatnonzero(allowed & (np.arange(len(allowed)) >= self.known))
            columns = np.append(columns[(columns >= 0) & allowed[columns]], fresh)
            values, lists = score(columns), lists | {NEW_PRODUCT_CHANNEL: fresh}
        else:
            hits = search_index(
                self.index, encode([query]), max(most, FOUND_PER_CHANNEL), among=self.codes[allowed].tolist()
            )
            columns = np.array([self.column[code] for code in hits.codes[0]], dtype=np.int64)
            lists = {QUERY_CHANNEL: columns}
            values = standardized(score(columns)) + standardized(hits.scores[0]) if len(columns) else np.zeros(0)
        order = np.argsort(-values, kind="stable")
        columns = columns[order]
        return RankedProducts(self.codes[columns], values[order], first_channels(columns, lists))

    def _asked(
        self, shopper: Shopper, allowed: np.ndarray, fast: bool, most: int
    ) -> tuple[Callable, dict[str, np.ndarray]]:
        """What scores columns for this shopper, and the channels' lists of known ones, best first."""
        if fast or not shopper.history:
            name = STUDENT_CHANNEL if shopper.history else POPULAR_CHANNEL
            values = self.student.ask([shopper.history], shopper.when)[0] if shopper.history else self._sells(shopper)
            lists = {name: rank(values[None], max(most, MOST_CANDIDATES), allowed[None, : self.known])[0]}
            return lambda columns: values[self.kin[columns]].mean(axis=1), lists
        who = self.moment.at_counter([shopper])
        gpt = self.moment.gpt(who)
        lists = {name: ranking[0] for name, ranking in self.moment.channels(who, PER_CHANNEL).items()}
        lists[GPT_CHANNEL] = rank(gpt, most, allowed[None, : self.known])[0]

        def score(columns: np.ndarray) -> np.ndarray:
            asked, place = np.unique(self.kin[columns], return_inverse=True)
            values = self.ranker.predict(self.signals.table(who, asked[None], gpt))[0]
            return values[place.reshape(self.kin[columns].shape)].mean(axis=1)

        return score, lists

    def _sells(self, shopper: Shopper) -> np.ndarray:
        """The logarithm of what share of purchases each known product has, where the shopper lives."""
        country = shopper.country if shopper.country in self.countries else ""
        if country not in self._popular:
            shares = popular_now(self.split.receipts, self.split.codes, self.split.cut, country)
            self._popular[country] = np.log(shares + 1e-9)
        return self._popular[country]

    def reasons(self, shopper: Shopper, codes: Sequence[str], fast: bool = False) -> list[list[str]]:
        """Purchases for each product without which the model's log-odds of it fall, those first that count most.

        The model is the BasketGPT, or the student if `fast`. Looked at are the purchases nearest to one of the
        products, by text and by what is bought together; each is taken out in turn, all in one pass. A new product is
        asked about as the known one that reads most like it. None where no purchase counts, or there is no history.
        """
        model = self.student if fast else self.model
        catalogue, history = model.catalogue, model.catalogue.entries(shopper.history)
        targets = self.kin[[self.column[code] for code in codes], 0]
        items = self._near(catalogue.bought(history), targets)
        if not len(items):
            return [[] for _ in codes]
        scores = model.ask([history, *(catalogue.without(history, item) for item in items)], shopper.when)[:, targets]
        odds = scores - np.log1p(-np.exp(scores))
        effects = odds[0] - odds[1:]  # (items, targets)
        return [_strongest(self.codes[items], effect, code) for effect, code in zip(effects.T, codes, strict=True)]

    def _near(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Of the purchases those that are worth looking at for any of the targets."""
        together = self.moment.knowledge.ease[items][:, targets].toarray()  # (items, targets)
        closest = [np.argsort(-closeness, axis=0, kind="stable")[:PURCHASES_TRIED]
                   for closeness in (self.signals.alike[np.ix_(items, targets)], together)]  # fmt: skip
        return items[np.unique(np.concatenate(closest))]


def _strongest(codes: np.ndarray, effects: np.ndarray, itself: str) -> list[str]:
    """The codes whose effect is above zero, largest first, but for the product itself."""
    order = np.argsort(-effects, kind="stable")
    return [str(codes[place]) for place in order if effects[place] > 0 and codes[place] != itself]


def first_channels(columns: np.ndarray, lists: Mapping[str, np.ndarray]) -> list[str]:
    """The channel in whose list each column stands highest; of several the first."""
    places = {name: {column: place for place, column in enumerate(found.tolist())} for name, found in lists.items()}
    return [min(places, key=lambda name: places[name].get(column, np.inf)) for column in columns.tolist()]
