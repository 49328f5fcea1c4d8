"""Candidate generation: a few hundred products worth ranking, from several channels that each look at something else.

A channel is a ranked list of catalogue columns for each request: what the shopper bought, what is bought together with
it, what sells now, what reads like it, what a typed query asks for, what the BasketGPT expects. The same code answers
offline requests (all judged shoppers of a split) and online requests (one shopper at a time).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baselines.evaluation import PARTS, Split, buyers
from recbook.baselines.metrics import hits, rank, recall
from recbook.baskets.catalogue import Catalogue
from recbook.baskets.features import USER_ITEM_FEATURES, UserItemFeatures, user_features, user_item_features
from recbook.baskets.log import (
    DAY,
    InteractionLog,
    interaction_log,
    log_of_histories,
    log_with_openings,
    prediction_points,
)
from recbook.baskets.model import BasketGPT
from recbook.baskets.shop_features import RELATED_FEATURES, ShopFeatures
from recbook.cleaning.receipts import descriptions
from recbook.embeddings import encoder
from recbook.embeddings.text_vectors import centred
from recbook.ranking.rankers import Shopper
from recbook.search.index import build_index, search_index

HISTORY_CHANNEL, CO_PURCHASE_CHANNEL, POPULAR_CHANNEL, PROFILE_CHANNEL = (
    "history",
    "bought together",
    "popular lately",
    "text profile",
)
QUERY_CHANNEL, GPT_CHANNEL = "text query", "basket GPT"
NO_REFRESH = 1e6  # days between two counts of what is bought together: only the count at the cut is made
REQUESTS_AT_ONCE = 128  # requests that are answered at once: a few hundred MB
POPULARITY_DAYS = 14  # days of sales that make a product popular: one, two and four weeks find about as much


class Requests(NamedTuple):
    """n requests for recommendations: each shopper's history, with an empty basket at its end that is asked about."""

    log: InteractionLog
    rows: np.ndarray  # (n,) int64: the empty baskets
    day: np.ndarray  # (n,) float64: when they ask, in days since the log's origin
    shopper: np.ndarray  # (n, len(USER_FEATURES)) float32: see `baskets.features`
    bought: UserItemFeatures  # of what each has bought


def requests_of(log: InteractionLog) -> Requests:
    """The requests of a log in which each shopper's last basket is empty: see `log_with_openings`."""
    rows = np.flatnonzero(np.diff(log.first, append=-1))
    points = prediction_points(log, ahead=0, seed=0).take(rows)
    return Requests(log, rows, points.day, user_features(log, points), user_item_features(log, points))


class Snapshot:
    """A shop as of a cut: its catalogue, its interaction log and counts, and the channels that find candidates."""

    def __init__(
        self,
        split: Split,
        model: BasketGPT | None = None,
        vectors: np.ndarray | None = None,
        encode: Callable[[list[str]], np.ndarray] = encoder.encode,
    ):
        """From the receipts of a split, which end at its cut.

        `model`: a BasketGPT fitted on the same products, for the channel of that name; None leaves that channel out.
        `vectors` (products, d): unit rows that `encode` makes of the descriptions, if they are at hand. ValueError if
        the model was fitted on other products.
        """
        texts = descriptions(split.receipts)
        self.catalogue, self.cut, self.model, self.encode = Catalogue(texts), split.cut, model, encode
        if model is not None and not np.array_equal(model.catalogue.codes, split.codes):
            raise ValueError("the model was fitted on other products than those of the split: fit it on split.receipts")
        self.vectors = encode(list(texts.values())) if vectors is None else vectors
        self.index = build_index(split.codes, self.vectors)
        self.log, self.customer = interaction_log(split.receipts, split.codes)
        self.shop_features = ShopFeatures(self.log, centred(self.vectors), NO_REFRESH).latest()
        self.popular = buyers(split, POPULARITY_DAYS).astype(np.float32)

    def offline(self, split: Split) -> Requests:
        """Offline requests: the judged shoppers of the split, in its order, asking at its cut."""
        judged = np.isin(self.customer, split.shoppers)
        return requests_of(log_with_openings(self.log, judged, (split.cut - self.log.origin) / DAY))

    def online(self, shoppers: Iterable[Shopper]) -> Requests:
        """Online requests: shoppers with their histories. ValueError: asked before the cut, or an unknown product."""
        made = []
        for shopper in shoppers:
            day = (pd.Timestamp(shopper.when) - self.log.origin) / DAY
            if day < self.shop_features.last_day - 1:
                raise ValueError(f"asked on {shopper.when}, but the shop is known as of {self.cut:%Y-%m-%d}")
            dated = self.catalogue.dated(shopper.history, day, self.log.origin, self.shop_features.rhythm)
            made.append([*dated, (day, np.array([], np.int64))])
        return requests_of(log_of_histories(made, len(self.catalogue.codes), self.log.origin))

    def gpt(self, requests: Requests) -> np.ndarray | None:
        """The model's log-probabilities, (n, products) float32; None without a model."""
        return None if self.model is None else self.model.score_log(requests.log, requests.rows)

    def channels(
        self,
        requests: Requests,
        k: int,
        gpt: np.ndarray | None = None,
        texts: Sequence[str] | None = None,
        allowed: np.ndarray | None = None,
    ) -> dict:
        """Lists by channel, each (n, k) int64 columns of the catalogue, best first, -1 where a list is shorter.

        `gpt` (n, products): the model's scores, for its channel. `texts`: a query per request, for the text channel.
        `allowed` (products,) bool: what the lists may hold, all if None.
        """
        allowed = np.ones(len(self.catalogue.codes), bool) if allowed is None else allowed
        lists = {
            HISTORY_CHANNEL: self._history(requests, k, allowed),
            CO_PURCHASE_CHANNEL: self._co_purchases(requests, k, allowed),
            POPULAR_CHANNEL: np.tile(rank(self.popular[None], k, allowed), (len(requests.rows), 1)),
            PROFILE_CHANNEL: self._profile(requests, k, allowed),
        }
        if texts is not None:
            lists[QUERY_CHANNEL] = self._nearest(self.encode(list(texts)), k, allowed)
        return lists if gpt is None else lists | {GPT_CHANNEL: rank(gpt, k, allowed)}

    def _history(self, requests: Requests, k: int, allowed: np.ndarray) -> np.ndarray:
        """By the shopper's own purchases, each with half its weight after 120 days."""
        products = len(self.catalogue.codes)
        scores = _dense(requests.bought, products, USER_ITEM_FEATURES.index("count, 120 days"))
        return rank(scores, k, (_dense(requests.bought, products) > 0) & allowed)

    def _co_purchases(self, requests: Requests, k: int, allowed: np.ndarray) -> np.ndarray:
        """By EASE, from what was bought and how long ago."""
        parts = [np.full((0, k), -1)]
        for rows in row_blocks(len(requests.rows)):
            known = self.shop_features.batch(requests.bought, rows, requests.day[rows])
            parts.append(rank(known.related[..., RELATED_FEATURES.index("EASE")], k, allowed))
        return np.concatenate(parts)

    def _profile(self, requests: Requests, k: int, allowed: np.ndarray) -> np.ndarray:
        """By the index: descriptions nearest to the mean of those bought; an empty list where nothing was bought."""
        means = _dense(requests.bought, len(self.catalogue.codes)) @ self.vectors
        some, found = np.linalg.norm(means, axis=1) > 0, np.full((len(means), k), -1)
        if some.any():
            found[some] = self._nearest(means[some], k, allowed)
        return found

    def _nearest(self, vectors: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
        """By the index: the allowed products nearest to each vector (n, d)."""
        among = None if allowed.all() else self.catalogue.codes[allowed].tolist()  # a filter makes the search slower
        columns = np.searchsorted(self.catalogue.codes, search_index(self.index, vectors, k, among).codes.astype(str))
        return np.pad(columns, ((0, 0), (0, k - columns.shape[1])), constant_values=-1)


def row_blocks(number: int) -> list[np.ndarray]:
    """The rows 0 to `number` - 1, in blocks that fit in memory."""
    return [np.arange(start, min(start + REQUESTS_AT_ONCE, number)) for start in range(0, number, REQUESTS_AT_ONCE)]


def _dense(bought: UserItemFeatures, products: int, feature: int | None = None) -> np.ndarray:
    """One feature of what was bought, or 1 if none is named, as a matrix (n, products) float32; 0 elsewhere."""
    column = np.ones(len(bought.items), np.float32) if feature is None else bought.features[:, feature]
    return bought.matrix(column, np.arange(len(bought.starts) - 1), products).toarray()


def interleave(lists: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Round-robin interleaving of several lists: the first of each, then the second of each, no product twice.

    The lists are (n, k_i) columns, -1 where one is shorter; the result is (n, size), padded with -1.
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


def candidate_recall(ranking: np.ndarray, split: Split, sizes: Sequence[int] = (50, 100, 200)) -> pd.DataFrame:
    """The share of each shopper's targets among their first candidates: columns (part, "recall@50"), ….

    Of all targets, of those bought before ("repeat"), and of the others ("explore"); NaN where there are none. All
    three parts look at the same list: these are candidates, not recommendations. The table fits `evaluation.summarise`
    and `intervals.paired`.
    """
    bought, targets = split.counts.toarray() > 0, split.targets.toarray()
    wanted = dict(zip(PARTS, (targets, targets & bought, targets & ~bought), strict=True))
    columns = {}
    for part, of_part in wanted.items():
        for size in sizes:
            columns[part, f"recall@{size}"] = recall(hits(ranking[:, :size], of_part), of_part.sum(axis=1))
    return pd.DataFrame(columns, index=pd.Index(split.shoppers, name="shopper"))
