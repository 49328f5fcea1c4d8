"""All features as of any day of a shop's log: how products sell, which are bought together, whose texts are alike."""

import copy
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.baselines.models import HALF_LIFE, ease_weights
from recbook.baskets.features import UserItemFeatures, item_features, positions
from recbook.baskets.log import InteractionLog

EASE_L2 = 100  # of EASE, as in the blend
EASE_PRODUCTS = 4000  # products with most buyers, for which EASE is solved: it costs the cube of their number
# How every product is related to those that the shopper bought.
RELATED_FEATURES = ("EASE", "bought together", "with the last basket", "text", "text, last basket")


def related_items(
    log: InteractionLog, day: float, nearest: int, solved: int
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Which products are bought together, as known on a day: two matrices (products, products).

    Each row has `nearest` entries: the weights of EASE, and the share of the row's buyers who bought the column's
    product. A purchase weighs half after HALF_LIFE days. `solved`: see `strongest_ease`.
    """
    shopper, days, items = log.lines
    known = days < day
    pair, inverse = np.unique(shopper[known] * log.products + items[known], return_inverse=True)
    fresh = np.zeros(len(pair), np.float32)
    np.maximum.at(fresh, inverse, (0.5 ** ((day - days[known]) / HALF_LIFE)).astype(np.float32))
    X = sparse.csr_matrix((fresh, np.divmod(pair, log.products)), (len(log.days), log.products))
    together = (X.T @ X).tocsr()
    buyers = together.diagonal() + 1  # the one keeps two products with a single buyer from being twins
    together.setdiag(0)
    share = strongest(sparse.diags_array(1 / buyers) @ together, nearest)
    return strongest_ease(X, EASE_L2, nearest, solved), share


def strongest_ease(X: sparse.csr_matrix, l2: float, nearest: int, solved: int = EASE_PRODUCTS) -> sparse.csr_matrix:
    """The `nearest` largest weights of EASE in each row: sparse (products, products), from X (shoppers, products).

    EASE costs the cube of its products, and the square of them in memory. So it is solved for the `solved` products
    with most buyers; the others have no weights.
    """
    most = np.sort(np.argsort(-X.getnnz(axis=0), kind="stable")[:solved])
    weights = strongest(sparse.csr_matrix(ease_weights(X[:, most], l2)), nearest).tocoo()
    return sparse.csr_matrix((weights.data, (most[weights.row], most[weights.col])), (X.shape[1], X.shape[1]))


def strongest(matrix: sparse.csr_matrix, number: int, rows: int = 512) -> sparse.csr_matrix:
    """Only the largest `number` entries of each row, float32. `rows` are made dense at a time."""
    parts = []
    for start in range(0, matrix.shape[0], rows):
        dense = matrix[start : start + rows].toarray().astype(np.float32)
        if number < dense.shape[1]:
            dense[dense < np.partition(dense, -number, axis=1)[:, -number, None]] = 0
        parts.append(sparse.csr_matrix(dense))
    return sparse.vstack(parts, format="csr")


Array = TypeVar("Array")  # np.ndarray as counted, torch.Tensor as a network reads it


class FeatureBatch(NamedTuple, Generic[Array]):
    """Features at n prediction points: of all N products, and of every pair of a point and a product bought before."""

    related: Array  # (n, N, len(RELATED_FEATURES)) float32
    trend: Array  # (n, N, len(ITEM_FEATURES)) float16
    row: Array  # (pairs,) int64: the pair's prediction point
    item: Array  # (pairs,) int64: its product
    bought: Array  # (pairs, len(USER_ITEM_FEATURES)) float32


class ShopFeatures:
    """The features of all products, as of any day of the log. They are counted; nothing of them is learned."""

    def __init__(
        self,
        log: InteractionLog,
        text: np.ndarray,
        refresh: float = 14.0,
        nearest: int = 50,
        solved: int = EASE_PRODUCTS,
    ):
        """Count anew which products are bought together every `refresh` days. `text` (N, d): unit rows."""
        self.text, self.origin, self.last_day = text, log.origin, int(log.days.max()) + 1
        gaps = np.diff(log.days)[np.diff(log.first) == 0]
        self.rhythm = float(np.median(gaps)) if len(gaps) else 30.0  # days between two baskets of a shopper
        self.first_day, self.trends = 0, item_features(log, self.last_day)
        self.snapshots = np.arange(self.last_day, log.days.min(), -refresh)[::-1].copy()  # days
        pairs = [related_items(log, day, nearest, solved) for day in self.snapshots]
        # One block of N rows per snapshot, one below the other: one matrix product then serves any mixture of them.
        self.ease, self.share = (sparse.vstack(blocks, format="csr") for blocks in zip(*pairs, strict=True))

    def latest(self) -> "ShopFeatures":
        """Only what is known on the last day: it gives every prediction point the features of that day."""
        kept = copy.copy(self)
        kept.first_day, kept.trends, kept.snapshots = self.last_day, self.trends[-1:], self.snapshots[-1:]
        kept.ease, kept.share = self.ease[-len(self.text) :], self.share[-len(self.text) :]
        return kept

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays to save, by name; with `numbers()` they are all that `restored` needs."""
        plain = {"text": self.text, "trends": self.trends, "snapshots": self.snapshots}
        for name in ("ease", "share"):
            matrix = getattr(self, name)
            plain |= {f"{name}.{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        return plain

    def numbers(self) -> dict:
        """The days and the origin, as JSON takes them."""
        days = {"first_day": self.first_day, "last_day": self.last_day, "rhythm": self.rhythm}
        return days | {"origin": self.origin.isoformat()}

    @classmethod
    def restored(cls, arrays: dict[str, np.ndarray], numbers: dict) -> "ShopFeatures":
        """The features that `arrays` and `numbers` were taken from."""
        self = cls.__new__(cls)
        self.__dict__ |= {name: arrays[name] for name in ("text", "trends", "snapshots")} | numbers
        self.origin = pd.Timestamp(numbers["origin"])
        shape = len(self.snapshots) * len(self.text), len(self.text)
        for name in ("ease", "share"):
            parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
            setattr(self, name, sparse.csr_matrix(parts, shape))
        return self

    def batch(self, bought: UserItemFeatures, rows: np.ndarray, days: np.ndarray) -> FeatureBatch[np.ndarray]:
        """The features at points `rows` of `bought`, on `days` (rows,); days after the last one get its features."""
        snapshot = np.searchsorted(self.snapshots, np.maximum(days, self.first_day), side="right") - 1
        related = [*self._together(bought, rows, snapshot), *self._alike(bought, rows)]
        at, starts = positions(bought.starts[rows], bought.starts[rows + 1])
        row = np.repeat(np.arange(len(rows)), np.diff(starts))
        trend = self.trends[days.astype(int).clip(self.first_day, self.last_day) - self.first_day]
        return FeatureBatch(np.stack(related, axis=2), trend, row, bought.items[at], bought.features[at])

    def _together(self, bought: UserItemFeatures, rows: np.ndarray, snapshot: np.ndarray) -> Iterator[np.ndarray]:
        """How each product goes with those bought, by the last snapshot before the day: three arrays (rows, N)."""
        columns = (bought.matrix(c, rows, len(self.text), snapshot.clip(0)) for c in (bought.fresh, bought.last))
        fresh, last = (_scaled(column, snapshot >= 0) for column in columns)  # nothing, before the first snapshot
        end = fresh.shape[1]
        ease, share = (whole if end == whole.shape[0] else whole[:end] for whole in (self.ease, self.share))
        yield (fresh @ ease).toarray()
        for weights in (fresh, last):
            yield (_mean(weights) @ share).toarray()

    def _alike(self, bought: UserItemFeatures, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The cosine of each description with the mean of those bought: two arrays (rows, N)."""
        for column in (bought.fresh, bought.last):
            profile = bought.matrix(column, rows, len(self.text)) @ self.text  # (rows, d)
            length = np.linalg.norm(profile, axis=1, keepdims=True)
            yield (profile / np.maximum(length, 1e-9)) @ self.text.T


def _mean(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows that add up to one, or to zero where they are empty."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    return _scaled(weights, 1 / np.maximum(total, 1e-9))


def _scaled(rows: sparse.csr_matrix, by: np.ndarray) -> sparse.csr_matrix:
    """Each row times its factor. Of a single row, a product of sparse matrices costs a multiple of its work."""
    data = rows.data * np.repeat(by.astype(np.float32), np.diff(rows.indptr))
    return sparse.csr_matrix((data, rows.indices, rows.indptr), rows.shape)
