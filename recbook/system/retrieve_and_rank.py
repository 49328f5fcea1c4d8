"""The two-stage recommender: channels retrieve candidates for a shopper, rankers order them.

Chapter 12 in one place: channels propose candidates, LambdaRank and the BasketGPT rank them, a query weighs as much as
the shopper. A shopper without a history gets what sells now (cold start). A new product gets the mean score of the
known products whose descriptions are most like its own.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baselines.evaluation import Split
from recbook.baselines.metrics import rank
from recbook.baskets.model import BasketGPT, log_odds
from recbook.embeddings.encoder import encode
from recbook.ranking.candidates import GPT_CHANNEL, POPULAR_CHANNEL, QUERY_CHANNEL, Snapshot, interleave
from recbook.ranking.cold_start import popular_now
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import PER_CHANNEL, LambdaRank
from recbook.ranking.rankers import Shopper, standardized
from recbook.search.index import build_index, search_index

MOST_CANDIDATES = 400  # products that are ranked for a shopper
FOUND_PER_CHANNEL = 50  # products that a query retrieves, to be ranked
NEAREST_KNOWN = 5  # known products whose mean score a new product gets
PURCHASES_TRIED = 6  # purchases tried as reasons: as many that are nearest by text, and by what is bought together
NEW_PRODUCT_CHANNEL = "new product"  # what hardly anybody bought yet
STUDENT_CHANNEL = "student"  # what the student ranks alone


class RankedProducts(NamedTuple):
    """Ranked products for a shopper, best first."""

    codes: np.ndarray  # (n,) str
    scores: np.ndarray  # (n,) float64: they order this list, and cannot be compared with another's
    channels: list[str]  # the channel that retrieved each product


class TwoStageRecommender:
    """Retrieves and ranks what is on sale at a moment: `find(shopper)`. `codes`: known products, then new ones."""

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
        self.snapshot = Snapshot(split, model, vectors.loc[split.codes].to_numpy())
        self.features = CandidateFeatures(self.snapshot, split)
        self.ranker = LambdaRank(ranker.trees, ranker.names, ranker.settings, self.features)
        self.countries = frozenset(split.receipts["country"])
        self._popular: dict[str, np.ndarray] = {}  # by country; counted when first asked for
        self._list_products(vectors, unsold)

    def with_unsold(self, vectors: pd.DataFrame, unsold: Sequence[str]) -> "TwoStageRecommender":
        """The same with other products that nobody, or too few, bought yet: nothing is counted anew."""
        other = copy.copy(self)
        other._list_products(vectors, unsold)
        return other

    def _list_products(self, vectors: pd.DataFrame, unsold: Sequence[str]) -> None:
        """All that depends on the new products: the codes, their index, what a new product's score is taken from."""
        self.codes = np.array([*self.split.codes, *unsold], dtype=str)
        self.column = {code: column for column, code in enumerate(self.codes.tolist())}
        matrix = vectors.loc[self.codes].to_numpy()
        self.index = build_index(self.codes, matrix)
        similarity = matrix[self.known :] @ matrix[: self.known].T  # (new, known)
        nearest_known = rank(similarity, min(NEAREST_KNOWN, self.known))  # (new, NEAREST_KNOWN)
        # By product the known products whose mean score it gets; a known product gets its own.
        self.nearest_known = np.vstack(
            [np.repeat(np.arange(self.known)[:, None], nearest_known.shape[1], axis=1), nearest_known]
        )

    def find(
        self,
        shopper: Shopper,
        query: str | None,
        allowed: np.ndarray,
        fast: bool = False,
        most: int = FOUND_PER_CHANNEL,
    ) -> RankedProducts:
        """Candidates among the `allowed` (codes,) bool, best first: at least `most` of them, or all; may be empty.

        `fast`: ranked by the student alone, in place of channels, LambdaRank and the BasketGPT.
        """
        score, lists = self._scorer(shopper, allowed, fast, max(most, PER_CHANNEL))
        if query is None:
            columns = interleave([ranking[None] for ranking in lists.values()], max(most, MOST_CANDIDATES))[0]
            fresh = np.flatnonzero(allowed & (np.arange(len(allowed)) >= self.known))
            columns = np.append(columns[columns >= 0], fresh)
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

    def _scorer(
        self, shopper: Shopper, allowed: np.ndarray, fast: bool, most: int
    ) -> tuple[Callable, dict[str, np.ndarray]]:
        """A function that scores columns for this shopper, and by channel the known and allowed, best first."""
        allowed = allowed[: self.known]
        if fast or not shopper.history:
            if shopper.history:
                name, values = STUDENT_CHANNEL, self.student.score([shopper.history], shopper.when)[0]
            else:
                name, values = POPULAR_CHANNEL, self._popularity(shopper)
            lists = {name: rank(values[None], max(most, MOST_CANDIDATES), allowed)[0]}
            return lambda columns: values[self.nearest_known[columns]].mean(axis=1), lists
        requests = self.snapshot.online([shopper])
        gpt = self.model.score_log(requests.log, requests.rows)
        lists = self.snapshot.channels(requests, PER_CHANNEL, allowed=allowed)
        lists[GPT_CHANNEL] = rank(gpt, most, allowed)

        def score(columns: np.ndarray) -> np.ndarray:
            known, place = np.unique(self.nearest_known[columns], return_inverse=True)
            values = self.ranker.predict(self.features.table(requests, known[None], gpt))[0]
            return values[place.reshape(self.nearest_known[columns].shape)].mean(axis=1)

        return score, {name: ranking[0] for name, ranking in lists.items()}

    def _popularity(self, shopper: Shopper) -> np.ndarray:
        """The logarithm of each known product's share of purchases in the shopper's country."""
        country = shopper.country if shopper.country in self.countries else ""
        if country not in self._popular:
            shares = popular_now(self.split.receipts, self.split.codes, self.split.cut, country)
            self._popular[country] = np.log(shares + 1e-9)
        return self._popular[country]

    def reasons(self, shopper: Shopper, codes: Sequence[str], fast: bool = False) -> list[list[str]]:
        """Per product the purchases without which the model's log-odds of it fall, the largest effect first.

        The model is the BasketGPT, or the student if `fast`. It scores the history without each of the purchases that
        are nearest to one of the products, by text and by what is bought together, all in one pass. A new product
        stands for its nearest known one. A list is empty where no purchase has an effect, or without a history.
        """
        model = self.student if fast else self.model
        catalogue, history = model.catalogue, model.catalogue.entries(shopper.history)
        targets = self.nearest_known[[self.column[code] for code in codes], 0]
        items = self._purchases_to_try(catalogue.bought(history), targets)
        if not len(items):
            return [[] for _ in codes]
        scores = model.score([history, *(catalogue.without(history, item) for item in items)], shopper.when)[:, targets]
        odds = log_odds(scores)
        effects = odds[0] - odds[1:]  # (items, targets)
        return [_by_effect(self.codes[items], effect, code) for effect, code in zip(effects.T, codes, strict=True)]

    def _purchases_to_try(self, items: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The purchases that are nearest to any of the targets, by text or by what is bought together."""
        together = self.snapshot.shop_features.ease[items][:, targets].toarray()  # (items, targets)
        nearest = [np.argsort(-closeness, axis=0, kind="stable")[:PURCHASES_TRIED]
                   for closeness in (self.features.alike[np.ix_(items, targets)], together)]  # fmt: skip
        return items[np.unique(np.concatenate(nearest))]


def _by_effect(codes: np.ndarray, effects: np.ndarray, itself: str) -> list[str]:
    """The codes whose effect is above zero, largest first, without the product itself."""
    order = np.argsort(-effects, kind="stable")
    return [str(codes[place]) for place in order if effects[place] > 0 and codes[place] != itself]


def first_channels(columns: np.ndarray, lists: Mapping[str, np.ndarray]) -> list[str]:
    """By column the channel that ranks it highest; of several the first."""
    size = 1 + max([columns.max(initial=0), *(found.max(initial=0) for found in lists.values())])
    places = np.full((len(lists), size), np.inf)
    for row, found in zip(places, lists.values(), strict=True):
        row[found[found >= 0]] = np.arange((found >= 0).sum())
    return np.array(list(lists))[places[:, columns].argmin(axis=0)].tolist()
