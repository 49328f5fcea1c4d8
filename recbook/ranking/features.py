"""Features of a shopper and a candidate, as a row of numbers for a model that learns to rank.

Nothing here is learned, and nothing looks ahead: all is counted from receipts before the cut of a `Snapshot`. The
BasketGPT reads most of it too (`baskets.features`, `baskets.shop_features`); its own scores come last, in
columns that can be left out.
"""

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.preprocessing import normalize

from recbook.baselines.evaluation import Split
from recbook.baselines.models import recency, shoppers_by_products
from recbook.baskets.features import ITEM_FEATURES, USER_FEATURES, USER_ITEM_FEATURES
from recbook.baskets.shop_features import EASE_PRODUCTS, RELATED_FEATURES, FeatureBatch, strongest, strongest_ease
from recbook.ranking.candidates import Requests, Snapshot, row_blocks

NEAREST_PRODUCTS = 100  # products that a product is compared with
UNDATED_L2 = 200  # of EASE on who bought what, whenever it was
NEAREST_SHOPPERS = 50  # shoppers that a shopper is compared with
SAME_SHOPPER = 0.999  # cosine of two shoppers above which they count as the same
# Of the product.
PRODUCT_FEATURES = ("log price", "buyers who came back", "baskets of a buyer", "log size of its baskets", "days unsold")
# Of the shopper and the product.
PAIR_FEATURES = (
    "kNN",
    "kNN, last basket",
    "EASE, undated",
    "blend",
    "nearest text",
    "price against usual",
    "shoppers alike",
)
RANK_FEATURES = (
    "rank by EASE", "rank by kNN", "rank by blend", "rank by text", "rank by 7 days", "rank by 28 days",
    "rank by shoppers alike",
)  # fmt: skip
SHOPPER_FEATURES = ("share of repeats", "usual log price")  # of the shopper
COUNTED_FEATURES = tuple(f"related: {n}" for n in RELATED_FEATURES) + tuple(f"trend: {n}" for n in ITEM_FEATURES)
COUNTED_FEATURES += tuple(f"bought: {n}" for n in USER_ITEM_FEATURES) + tuple(f"shopper: {n}" for n in USER_FEATURES)
COUNTED_FEATURES += PRODUCT_FEATURES + PAIR_FEATURES + RANK_FEATURES + SHOPPER_FEATURES
GPT_FEATURES = ("GPT", "rank by GPT", "rank by GPT among bought or new")
FEATURE_NAMES = COUNTED_FEATURES + GPT_FEATURES
# All that mean the same in every month: trees that split on the time of year only tell one past cut from another.
STEADY_FEATURES = tuple(n for n in COUNTED_FEATURES if n not in ("shopper: sine", "shopper: cosine"))


class CandidateFeatures:
    """The features of candidates as of a snapshot: `table`."""

    def __init__(self, snapshot: Snapshot, split: Split, solved: int = EASE_PRODUCTS):
        """Counted from the receipts of `split`; `solved`: see `strongest_ease`.

        ValueError if the snapshot is of another cut.
        """
        if snapshot.cut != split.cut:
            raise ValueError(f"the snapshot is {snapshot.cut}, the split's cut {split.cut}: they must be one")
        self.snapshot = snapshot
        X = shoppers_by_products(split)
        self.near = strongest(_cosines(X), NEAREST_PRODUCTS).T.tocsr()
        self.undated = strongest_ease(X, UNDATED_L2, NEAREST_PRODUCTS, solved)
        recent = recency(split, np.sort(split.receipts["customer"].unique()))  # (all shoppers, N)
        self.others = (sparse.csr_matrix(normalize(recent).T), recent)
        self.product = _product_features(split)
        self.alike = snapshot.shop_features.text @ snapshot.shop_features.text.T  # (N, N): cosines of descriptions

    def table(self, requests: Requests, candidates: np.ndarray, gpt: np.ndarray | None = None) -> np.ndarray:
        """A row per candidate, (n, c, len(FEATURE_NAMES)) float32, from their columns (n, c), -1 where there is none.

        `gpt` (n, N): the BasketGPT's scores for these requests; without it, its columns are NaN. Features of past
        purchases are NaN where the shopper never bought the product.
        """
        made = [np.zeros((0, candidates.shape[1], len(FEATURE_NAMES)), np.float32)]
        for rows in row_blocks(len(candidates)):
            of_gpt = None if gpt is None else gpt[rows]
            made.append(self._block(requests, rows, candidates[rows], of_gpt))
        return np.concatenate(made)

    def _block(
        self, requests: Requests, rows: np.ndarray, candidates: np.ndarray, gpt: np.ndarray | None
    ) -> np.ndarray:
        """The table of some of the requests."""
        N, at = len(self.snapshot.catalogue.codes), np.maximum(candidates, 0)
        known = self.snapshot.shop_features.batch(requests.bought, rows, requests.day[rows])
        bought = np.full((len(rows), N, len(USER_ITEM_FEATURES)), np.nan, np.float32)
        bought[known.row, known.item] = known.bought
        both, ranked, own = self._pair_features(requests, rows, known, bought)
        # Sales relative to those of the mean product: fifty are many in August and few in December.
        trend = known.trend.astype(np.float32)
        steady = trend - np.where(np.array(ITEM_FEATURES) == "age", 0, trend.mean(axis=1, keepdims=True))
        wide = [known.related, steady, bought, both, ranked]  # (n, N, columns) each
        wide.append(_gpt_features(gpt, ~np.isnan(bought[..., 0])))
        related, trend, bought, both, ranked, of_gpt = (
            np.take_along_axis(columns, at[..., None], axis=1) for columns in wide
        )
        shopper, own = (np.repeat(columns[:, None], at.shape[1], axis=1) for columns in (requests.shopper[rows], own))
        made = [related, trend, bought, shopper, self.product[at], both, ranked, own, of_gpt]
        return np.concatenate(made, axis=2).astype(np.float32)

    def _pair_features(
        self, requests: Requests, rows: np.ndarray, known: FeatureBatch[np.ndarray], bought: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """PAIR_FEATURES (n, N, columns), RANK_FEATURES (n, N, columns), and the shoppers' own (n, columns)."""
        N = len(self.snapshot.catalogue.codes)
        had = ~np.isnan(bought[..., 0])
        recent, last = (requests.bought.matrix(c, rows, N) for c in (requests.bought.fresh, requests.bought.last))
        binary = sparse.csr_matrix(had.astype(np.float32))
        near, near_last = (recent @ self.near).toarray(), (last @ self.near).toarray()
        ease, sold = (
            known.related[..., RELATED_FEATURES.index("EASE")],
            np.expm1(known.trend[..., 1].astype(np.float32)),
        )
        trend = np.sqrt(sold / np.maximum(sold.mean(axis=1, keepdims=True), 1e-9))
        counts = np.where(had, np.exp(bought[..., 0]), 0)
        blend = ease * trend + np.log1p(counts)
        price = self.product[:, 0]
        usual = (binary @ price) / np.maximum(had.sum(axis=1), 1)
        usual = np.where(had.any(axis=1), usual, price.mean())
        text = np.stack([self.alike[own].max(axis=0, initial=-1) for own in had])
        alike = self._shoppers_alike(recent)
        both = [near, near_last, (binary @ self.undated).toarray(), blend, text, np.abs(price - usual[:, None]), alike]
        score = [ease, near, blend, text, known.trend[..., 0], known.trend[..., 1], alike]
        ranked = np.stack([_ranks(values) for values in score], axis=2)
        repeats = 1 - had.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)
        return np.stack(both, axis=2), ranked, np.stack([repeats, usual], axis=1)

    def _shoppers_alike(self, recent: sparse.csr_matrix) -> np.ndarray:
        """User-based kNN: what the most similar shoppers bought, weighted by recency and similarity: (n, N) float32.

        A shopper with the very same purchases is left out: it is the one who asks, or adds nothing to what they bought.
        """
        unit, theirs = self.others
        cosine = (sparse.csr_matrix(normalize(recent)) @ unit).toarray()  # (n, all shoppers)
        cosine[cosine > SAME_SHOPPER] = 0
        return (strongest(sparse.csr_matrix(cosine), NEAREST_SHOPPERS) @ theirs).toarray()


def _cosines(X: sparse.csr_matrix) -> sparse.csr_matrix:
    """What `baselines.models.cosine_similarity` gives, but sparse: of size what the shoppers bought, not N × N."""
    together = (X.T @ X).tocoo()  # (products, products): shoppers who bought both
    length = np.sqrt(together.diagonal())
    apart = together.row != together.col
    row, column = together.row[apart], together.col[apart]
    cosine = together.data[apart] / length[row] / length[column]
    return sparse.csr_matrix((cosine, (row, column)), together.shape)


def _gpt_features(gpt: np.ndarray | None, had: np.ndarray) -> np.ndarray:
    """GPT_FEATURES, (n, N, columns); `had` (n, N) bool: what each shopper bought before."""
    if gpt is None:
        return np.full((*had.shape, len(GPT_FEATURES)), np.nan, np.float32)
    apart = np.where(had, _ranks(np.where(had, gpt, -np.inf)), _ranks(np.where(had, -np.inf, gpt)))
    return np.stack([gpt, _ranks(gpt), apart], axis=2)


def _ranks(scores: np.ndarray) -> np.ndarray:
    """log(1 + place) of each product in its row, the best at place 0, equal scores by column: (n, N) float32."""
    order = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(scores.shape[1])[None], axis=1)
    return np.log1p(places).astype(np.float32)


def _product_features(split: Split) -> np.ndarray:
    """The features of the products alone, (N, len(PRODUCT_FEATURES)) float32."""
    lines = split.receipts.drop_duplicates(["customer", "invoice", "code"])
    of = lines.groupby("code")
    times = lines.groupby(["code", "customer"]).size()
    again = (times > 1).groupby("code").mean()
    size = np.log(lines.groupby("invoice")["code"].transform("size")).groupby(lines["code"]).mean()
    unsold = (split.cut - of["date"].max()) / pd.Timedelta(days=1)
    table = [np.log(of["price"].median()), again, times.groupby("code").mean(), size, np.log1p(unsold)]
    return np.stack([column.reindex(split.codes).to_numpy() for column in table], axis=1).astype(np.float32)
