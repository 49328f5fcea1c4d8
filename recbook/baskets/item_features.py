"""What the shop knows of its products on any day of its log: how they sell, which go together, which read alike."""

import copy
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.baselines.models import HALF_LIFE, ease_weights
from recbook.baskets.log import InteractionLog
from recbook.baskets.shopper_features import UserItemFeatures, item_features, positions

EASE_L2 = 100  # of EASE, as in the blend
# Of every product, for this shopper.
RELATED_FEATURES = ("EASE", "bought together", "with the last basket", "text", "text, last basket")


def related_items(
    log: InteractionLog, day: float, nearest: int, solved: int
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Which products go together, as known on a day: two matrices (products, products), `nearest` entries a row.

    The weights of EASE, and the share of the row's buyers who bought the column's product. A purchase weighs half after
    HALF_LIFE days. EASE costs the cube of its products, so it is solved for the `solved` with most buyers.
    """
    shopper, days, items = log.lines
    known = days < day
    pair, inverse = np.unique(shopper[known] * log.products + items[known], return_inverse=True)
    fresh = np.zeros(len(pair), np.float32)
    np.maximum.at(fresh, inverse, (0.5 ** ((day - days[known]) / HALF_LIFE)).astype(np.float32))
    X = sparse.csr_matrix((fresh, np.divmod(pair, log.products)), (len(log.days), log.products))
    most = np.sort(np.argsort(-X.getnnz(axis=0), kind="stable")[:solved])
    weights = strongest(sparse.csr_matrix(ease_weights(X[:, most], EASE_L2)), nearest).tocoo()
    weights = sparse.csr_matrix((weights.data, (most[weights.row], most[weights.col])), (log.products, log.products))
    together = (X.T @ X).tocsr()
    buyers = together.diagonal() + 1  # the one keeps two products with a single buyer from being twins
    together.setdiag(0)
    return weights, strongest(sparse.diags_array(1 / buyers) @ together, nearest)


def strongest(matrix: sparse.csr_matrix, number: int, rows: int = 512) -> sparse.csr_matrix:
    """Only the largest `number` of each row's entries, float32; looks at so many dense rows at a time."""
    parts = []
    for start in range(0, matrix.shape[0], rows):
        dense = matrix[start : start + rows].toarray().astype(np.float32)
        if number < dense.shape[1]:
            dense[dense < np.partition(dense, -number, axis=1)[:, -number, None]] = 0
        parts.append(sparse.csr_matrix(dense))
    return sparse.vstack(parts, format="csr")


class FeatureBatch(NamedTuple):
    """What is told about n questions: of every one of N products, and of the pairs of question and product bought."""

    related: np.ndarray  # (n, N, len(RELATED)) float32
    trend: np.ndarray  # (n, N, len(TREND)) float16
    row: np.ndarray  # (pairs,) int64: the pair's question
    item: np.ndarray  # (pairs,) int64: its product
    bought: np.ndarray  # (pairs, len(BOUGHT)) float32


class ShopFeatures:
    """What the shop has counted, as of any day of its log; nothing of it is learned."""

    def __init__(
        self, log: InteractionLog, text: np.ndarray, refresh: float = 14.0, nearest: int = 50, solved: int = 4000
    ):
        """Look at which products are bought together every `refresh` days. `text` (N, d): unit rows."""
        self.text, self.origin, self.last_day = text, log.origin, int(log.days.max()) + 1
        gaps = np.diff(log.days)[np.diff(log.first) == 0]
        self.rhythm = float(np.median(gaps)) if len(gaps) else 30.0  # days between two baskets of a shopper
        self.first_day, self.trends = 0, item_features(log, self.last_day)
        self.looks = np.arange(self.last_day, log.days.min(), -refresh)[::-1].copy()  # days
        pairs = [related_items(log, day, nearest, solved) for day in self.looks]
        # One block of N rows a look, one below the other: any mixture of looks is then one product of matrices.
        self.ease, self.share = (sparse.vstack(blocks, format="csr") for blocks in zip(*pairs, strict=True))

    def latest(self) -> "ShopFeatures":
        """Only what is known on the last day: it answers all questions as of that day."""
        kept = copy.copy(self)
        kept.first_day, kept.trends, kept.looks = self.last_day, self.trends[-1:], self.looks[-1:]
        kept.ease, kept.share = self.ease[-len(self.text) :], self.share[-len(self.text) :]
        return kept

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is large, by name, and `numbers()` all that is small: `restored` makes the same of the two."""
        plain = {"text": self.text, "trends": self.trends, "looks": self.looks}
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
        """From what `arrays` and `numbers` gave."""
        self = cls.__new__(cls)
        self.__dict__ |= {name: arrays[name] for name in ("text", "trends", "looks")} | numbers
        self.origin = pd.Timestamp(numbers["origin"])
        shape = len(self.looks) * len(self.text), len(self.text)
        for name in ("ease", "share"):
            parts = tuple(arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr"))
            setattr(self, name, sparse.csr_matrix(parts, shape))
        return self

    def about(self, bought: UserItemFeatures, rows: np.ndarray, days: np.ndarray) -> FeatureBatch:
        """What is known of some questions of `bought`, asked on `days` (rows,); of the last day, if it is later."""
        look = np.searchsorted(self.looks, np.maximum(days, self.first_day), side="right") - 1
        related = [*self._together(bought, rows, look), *self._alike(bought, rows)]
        at, starts = positions(bought.starts[rows], bought.starts[rows + 1])
        row = np.repeat(np.arange(len(rows)), np.diff(starts))
        trend = self.trends[days.astype(int).clip(self.first_day, self.last_day) - self.first_day]
        return FeatureBatch(np.stack(related, axis=2), trend, row, bought.items[at], bought.clues[at])

    def _together(self, bought: UserItemFeatures, rows: np.ndarray, look: np.ndarray) -> Iterator[np.ndarray]:
        """How each product goes with what was bought, by the last look: three arrays (rows, N)."""
        seen = sparse.diags_array((look >= 0).astype(np.float32))  # nothing, before the first look
        columns = (bought.matrix(c, rows, len(self.text), look.clip(0)) for c in (bought.fresh, bought.last))
        fresh, last = (seen @ column for column in columns)
        end = fresh.shape[1]
        yield (fresh @ self.ease[:end]).toarray()
        for weights in (fresh, last):
            yield (_mean(weights) @ self.share[:end]).toarray()

    def _alike(self, bought: UserItemFeatures, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The cosine of each description with the mean of those bought: two arrays (rows, N)."""
        for column in (bought.fresh, bought.last):
            profile = bought.matrix(column, rows, len(self.text)) @ self.text  # (rows, d)
            length = np.linalg.norm(profile, axis=1, keepdims=True)
            yield (profile / np.maximum(length, 1e-9)) @ self.text.T


def _mean(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows that add up to one, or to zero where they are empty."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    return sparse.diags_array((1 / np.maximum(total, 1e-9)).astype(np.float32)) @ weights
