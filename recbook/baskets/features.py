"""Features at a prediction point: of user and item (each product bought), of the user, of every item.

Nothing here is learned, and nothing looks ahead: the features of a day are counted from what came before it.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from recbook.baselines.models import HALF_LIFE
from recbook.baskets.log import InteractionLog, PredictionPoints

# Of each product that the shopper has bought: four counts, then what needs dates.
USER_ITEM_FEATURES = (
    "log count", "share of baskets", "share since first bought", "in the last basket",
    "baskets since", "count, 15 days", "count, 45 days", "count, 120 days",  # half-lives
    "freshness", "log days", "overdue",
)  # fmt: skip
USER_ITEM_COUNTED = 4
# Of the shopper: four counts, then what needs dates.
USER_FEATURES = (
    "log baskets", "log products", "log basket size", "log last basket",
    "log days since", "sine", "cosine",  # sine and cosine of the time of year
)  # fmt: skip
USER_COUNTED = 4
# Of every product: what sold in so many days, and ever; its age; whether it rises.
ITEM_FEATURES = ("7 days", "28 days", "90 days", "ever", "age", "rise")


class UserItemFeatures(NamedTuple):
    """The distinct products bought before each prediction point: those of point p are pairs starts[p]:starts[p + 1]."""

    starts: np.ndarray  # (points + 1,) int64
    items: np.ndarray  # (pairs,) int64
    features: np.ndarray  # (pairs, len(USER_ITEM_FEATURES)) float32
    fresh: np.ndarray  # (pairs,) float32: 1 if bought that day, halved every HALF_LIFE days
    last: np.ndarray  # (pairs,) bool: in the last basket

    def matrix(
        self, column: np.ndarray, rows: np.ndarray, products: int, block: np.ndarray | None = None
    ) -> sparse.csr_matrix:
        """A column of pairs, such as `fresh`, at some of the points: sparse (rows, products) float32.

        With `block` (rows,) the matrix has several blocks of columns side by side; each row fills the one it names.
        """
        at, starts = positions(self.starts[rows], self.starts[rows + 1])
        column, items, blocks = column[at].astype(np.float32), self.items[at], 1
        if block is not None:
            items, blocks = items + products * np.repeat(block, np.diff(starts)), block.max(initial=0) + 1
        return sparse.csr_matrix((column, items, starts), (len(rows), blocks * products))


def positions(begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All positions of several runs, one after the other, and where each run starts among them."""
    starts = np.append(0, np.cumsum(end - begin))
    return np.arange(starts[-1]) + np.repeat(begin - starts[:-1], end - begin), starts


def user_features(log: InteractionLog, points: PredictionPoints) -> np.ndarray:
    """The features of the shopper at each prediction point: (points, len(USER_FEATURES)) float32."""
    baskets = points.end - points.first
    lines = log.starts[points.end] - log.starts[points.first]
    last = np.where(baskets > 0, points.end - 1, 0)
    known = baskets > 0
    size = np.append(log.sizes, 0)[last] * known
    since = np.where(known, points.day - np.append(log.days, 0.0)[last], 0.0).clip(0)
    year = 2 * np.pi * (points.day + log.origin.day_of_year) / 365.25
    mean = lines / np.maximum(baskets, 1)
    columns = [np.log1p(baskets), np.log1p(lines) / 3, np.log1p(mean) / 2, np.log1p(size) / 2]
    return np.stack([*columns, np.log1p(since) / 2, np.sin(year), np.cos(year)], axis=1).astype(np.float32)


def user_item_features(log: InteractionLog, points: PredictionPoints) -> UserItemFeatures:
    """The features of each distinct product that the shopper had bought, at each prediction point."""
    line, _ = positions(log.starts[points.first], log.starts[points.end])
    point = np.repeat(np.arange(len(points.day)), log.starts[points.end] - log.starts[points.first])
    basket = np.searchsorted(log.starts, line, side="right") - 1  # of the line
    age = points.day[point] - log.days[basket]
    pair, inverse = np.unique(point * log.products + log.items[line], return_inverse=True)
    point, items = np.divmod(pair, log.products)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(inverse, values, minlength=len(pair))

    # Lines are in time order, and of several values for one place the last one stays.
    latest, earliest = np.zeros(len(pair), np.int64), np.zeros(len(pair), np.int64)
    latest[inverse], earliest[inverse[::-1]] = basket, basket[::-1]
    count, end = np.bincount(inverse, minlength=len(pair)), points.end[point]
    recency = (points.day[point] - log.days[latest]).clip(0)
    rhythm = (log.days[latest] - log.days[earliest]) / np.maximum(count - 1, 1)  # days between two purchases
    since = end - 1 - latest  # baskets without it
    columns = [
        np.log(count), count / (end - points.first[point]), count / (end - earliest), since == 0, np.log1p(since),
        *(total(0.5 ** (age / half_life)) for half_life in (15, 45, 120)), np.exp(-recency / 30), np.log1p(recency) / 3,
        np.where(count > 1, np.tanh(recency / (rhythm + 7) - 1), -1.0),
    ]  # fmt: skip
    starts = np.searchsorted(point, np.arange(len(points.day) + 1))
    fresh = (0.5 ** (recency / HALF_LIFE)).astype(np.float32)
    return UserItemFeatures(starts, items, np.stack(columns, axis=1).astype(np.float32), fresh, since == 0)


def item_features(log: InteractionLog, days: int) -> np.ndarray:
    """The features of every product at the start of each day: (days + 1, products, len(ITEM_FEATURES)) float16."""
    _, day, items = log.lines
    daily = np.zeros((days, log.products), np.float32)
    np.add.at(daily, (np.minimum(day.astype(int), days - 1), items), 1)
    so_far = np.concatenate([np.zeros((1, log.products), np.float32), daily.cumsum(axis=0)])  # (days + 1, products)
    begun = np.argmax(so_far > 0, axis=0) - 1 + (so_far[-1] == 0) * (days + 1)

    def sold(window: int, until: int = 0) -> np.ndarray:
        today = np.arange(days + 1)
        return so_far[np.maximum(today - until, 0)] - so_far[np.maximum(today - window, 0)]

    age = (np.arange(days + 1)[:, None] - begun).clip(0)
    rise = np.log1p(sold(28)) - np.log1p(sold(56, 28))
    columns = [np.log1p(sold(7)), np.log1p(sold(28)), np.log1p(sold(90)), np.log1p(so_far), np.log1p(age) / 3, rise]
    return np.stack(columns, axis=2).astype(np.float16)


def on_sale_from(log: InteractionLog, shoppers: int) -> np.ndarray:
    """The day on which each product had been bought by `shoppers` different shoppers: (products,) float64.

    Infinite for a product that so many never bought.
    """
    shopper, day, items = log.lines
    pair = items * len(log.days) + shopper
    order = np.lexsort((day, pair))
    firsts = order[np.append(True, np.diff(pair[order]) != 0)[: len(order)]]  # each shopper's first line of a product
    firsts = firsts[np.lexsort((day[firsts], items[firsts]))]
    starts = np.searchsorted(items[firsts], np.arange(log.products + 1))
    reached = starts[:-1] + shoppers - 1
    enough = reached < starts[1:]
    return np.where(enough, day[firsts][np.where(enough, reached, 0)], np.inf)
