"""The interaction log: who bought what and when, as arrays, basket after basket and shopper after shopper.

A prediction point is a run of one shopper's baskets and a day: given these baskets, on that day, what comes next? It
may stand in a log of receipts or in a history that somebody types in: both are predicted in the same way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class InteractionLog:
    """Baskets in time order within each shopper, the shoppers one after the other. Days count from `origin`."""

    products: int  # in the catalogue
    origin: pd.Timestamp
    items: np.ndarray  # (lines,) int64: columns of the catalogue, basket after basket
    starts: np.ndarray  # (baskets + 1,) int64: where each basket's lines begin; the last is where they end
    days: np.ndarray  # (baskets,) float64: since `origin`
    first: np.ndarray  # (baskets,) int64: the first basket of the same shopper

    @property
    def sizes(self) -> np.ndarray:
        """Products in each basket, (baskets,) int64."""
        return np.diff(self.starts)

    @property
    def lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every line the shopper (as the number of their first basket), the day and the product: (lines,) each."""
        return np.repeat(self.first, self.sizes), np.repeat(self.days, self.sizes), self.items


class PredictionPoints(NamedTuple):
    """What is known at each point: baskets `first` to before `end`, on `day`. Three arrays (points,)."""

    first: np.ndarray
    end: np.ndarray
    day: np.ndarray

    def take(self, rows: np.ndarray) -> "PredictionPoints":
        """These points only."""
        return PredictionPoints(*(column[rows] for column in self))


def interaction_log(
    receipts: pd.DataFrame, codes: np.ndarray, origin: pd.Timestamp | None = None
) -> tuple[InteractionLog, np.ndarray]:
    """The log of clean receipts, and the customer of each basket, (baskets,) int64.

    Products outside sorted `codes` are left out. `origin` is the first receipt's midnight if not given.
    """
    receipts = receipts[receipts["code"].isin(codes)]
    origin = receipts["date"].min().normalize() if origin is None else origin
    lines = receipts.drop_duplicates(["invoice", "code"]).sort_values(["customer", "date"], kind="stable")
    new = lines["invoice"].ne(lines["invoice"].shift()).to_numpy()
    starts = np.append(np.flatnonzero(new), len(lines))
    customer = lines["customer"].to_numpy(np.int64)[new]
    items = np.searchsorted(codes, lines["code"].to_numpy(str))
    days = ((lines["date"] - origin) / DAY).to_numpy()[new]
    return InteractionLog(len(codes), origin, items, starts, days, _first(customer)), customer


def log_of_histories(
    histories: Sequence[Sequence[tuple[float, np.ndarray]]], products: int, origin: pd.Timestamp
) -> InteractionLog:
    """The log of histories given as baskets, oldest first, each a day and its columns of the catalogue."""
    baskets = [(shopper, day, items) for shopper, history in enumerate(histories) for day, items in history]
    items = np.concatenate([basket[2] for basket in baskets] or [np.array([], np.int64)]).astype(np.int64)
    starts = np.cumsum([0] + [len(basket[2]) for basket in baskets])
    days = np.array([basket[1] for basket in baskets], np.float64)
    return InteractionLog(
        products, origin, items, starts, days, _first(np.array([basket[0] for basket in baskets], np.int64))
    )


def log_with_openings(log: InteractionLog, baskets: np.ndarray, day: float) -> InteractionLog:
    """The log of only these baskets, (baskets,) bool, each shopper's followed by an empty one on `day`."""
    kept = np.flatnonzero(baskets)
    last = np.append(np.diff(log.first[kept]) != 0, True)  # of each shopper
    order = np.argsort(np.append(np.arange(len(kept)), np.flatnonzero(last) + 0.5), kind="stable")
    days = np.append(log.days[kept], np.full(last.sum(), day))[order]
    owner = np.append(log.first[kept], log.first[kept][last])[order]
    starts = np.append(0, np.cumsum(np.append(log.sizes[kept], np.zeros(last.sum(), np.int64))[order]))
    items = log.items[np.repeat(baskets, log.sizes)]
    return InteractionLog(log.products, log.origin, items, starts, days, _first(owner))


def _first(owner: np.ndarray) -> np.ndarray:
    """The first position of each run of equal values: (n,) -> (n,) int64."""
    new = np.append(True, owner[1:] != owner[:-1])[: len(owner)]
    return np.maximum.accumulate(np.where(new, np.arange(len(owner)), 0))


def prediction_points(log: InteractionLog, ahead: float, seed: int) -> PredictionPoints:
    """A prediction point for every basket: the baskets before it, on a random day up to `ahead` days before it."""
    basket = np.arange(len(log.days))
    previous = np.where(basket > log.first, log.days[basket - 1], -np.inf)
    earliest = np.maximum(previous, log.days - ahead)
    day = log.days - (log.days - earliest) * np.random.default_rng(seed).random(len(basket))
    return PredictionPoints(log.first, basket, day)


def log_windows(log: InteractionLog, context: int) -> list[tuple[int, int, int]]:
    """Windows of at most `context` tokens that cover the log: (first token, end, first token to be predicted).

    The tokens of a log are, for each basket, an opening one and its products. A shopper with more tokens than fit has
    windows that overlap by half, so that what is predicted has at least half a window before it.
    """
    opening = log.starts[:-1] + np.arange(len(log.days))  # where each basket's opening token stands
    shoppers = np.unique(log.first)
    begins = np.append(opening[shoppers], log.starts[-1] + len(log.days))
    windows = []
    for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        windows.append((begin, min(begin + context, end), begin))
        for start in range(begin + context // 2, end - (context - context // 2), context // 2):
            windows.append((start, min(start + context, end), start + context - context // 2))
    return windows
