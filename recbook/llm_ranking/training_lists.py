"""Listwise training data: past baskets, each with candidates that a shop would have proposed before it.

Simple channels propose the candidates, from what was known before the basket: the shopper's own products, products
bought together with them, and best sellers of the four weeks before. What was bought is never added to a list that did
not find it: such a list would teach that the odd one out is right.
"""

from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.baskets.log import DAY, InteractionLog, interaction_log, prediction_points
from recbook.ranking.rankers import Shopper

DAYS_AHEAD = 10.0  # days before a basket, at most, at which it is predicted
PURCHASE_HALF_LIFE = 60.0  # days in which the weight of a purchase halves
SALES_WINDOW = 28.0  # days over which sales are counted
OWN_SHARE = 2 / 3  # share of a list for the shopper's own products, where there are so many
MOST_ROUNDS = 5  # lists per basket at most, each with other candidates


class TrainingList(NamedTuple):
    """A shopper shortly before a basket, candidates for it, and which of them the basket held."""

    shopper: Shopper
    candidates: list[str]
    bought: np.ndarray  # (candidates,) bool


def past_lists(
    receipts: pd.DataFrame, number: int, size: int = 12, days: float = 120.0, seed: int = 0
) -> list[TrainingList]:
    """Training lists for baskets of the last `days` of clean receipts, `number` at most, in random order.

    Each has `size` candidates (fewer in a small shop), in random order too, of which at least one was bought.
    ValueError if for no basket of those days a candidate was bought.
    """
    codes = np.unique(receipts["code"].to_numpy(str))
    log, _ = interaction_log(receipts, codes)
    points, rng = prediction_points(log, DAYS_AHEAD, seed), np.random.default_rng(seed)
    source = _CandidateSource(log, since=log.days.max() - days)
    baskets = np.flatnonzero((points.end > points.first) & (log.days >= log.days.max() - days))
    made: list[TrainingList] = []
    for basket in np.concatenate([rng.permutation(baskets) for _ in range(MOST_ROUNDS)]):
        if len(made) == number:
            break
        first, day = points.first[basket], points.day[basket]
        items = source.propose(np.arange(first, basket), day, size, rng)
        bought = np.isin(items, _items(log, basket))
        if bought.any():
            history = [(log.origin + log.days[b] * DAY, codes[_items(log, b)].tolist()) for b in range(first, basket)]
            made.append(TrainingList(Shopper(history, log.origin + day * DAY), codes[items].tolist(), bought))
    if not made:
        raise ValueError(f"no basket of the last {days:g} days holds any of its candidates: take more days")
    return made


class _CandidateSource:
    """What a shop could propose: sales, week by week, and counts of what was bought together before day `since`."""

    def __init__(self, log: InteractionLog, since: float):
        self.log = log
        self.sold: dict[float, np.ndarray] = {}  # lines per product, by week
        _, self.days, _ = log.lines
        basket = np.repeat(np.arange(len(log.days)), log.sizes)
        held = sparse.csr_matrix((np.ones(len(basket), np.float32), (basket, log.items)), (len(log.days), log.products))
        held = held[log.days < since]
        self.together = (held.T @ held).tolil()
        self.together.setdiag(0)
        self.together = self.together.tocsr()

    def selling(self, day: float) -> np.ndarray:
        """Lines per product in the four weeks before that day's week, (products,)."""
        week = day // 7
        if week not in self.sold:
            recent = (self.days < week * 7) & (self.days >= week * 7 - SALES_WINDOW)
            self.sold[week] = np.bincount(self.log.items[recent], minlength=self.log.products)
        return self.sold[week]

    def propose(self, baskets: np.ndarray, day: float, size: int, rng: np.random.Generator) -> np.ndarray:
        """Distinct candidates for a shopper with these baskets, in random order, (size,) int64."""
        lines = np.concatenate([_items(self.log, basket) for basket in baskets])
        age = day - np.repeat(self.log.days[baskets], self.log.sizes[baskets])
        products = self.log.products
        own = np.bincount(lines, 0.5 ** (age / PURCHASE_HALF_LIFE), minlength=products)
        near = np.asarray(self.together[np.unique(lines)].sum(axis=0)).ravel()
        near[lines] = 0
        chosen = _best(own, round(OWN_SHARE * size), 0.5, rng).tolist()
        others = [_best(scores, size, 0.2, rng).tolist() for scores in (near, self.selling(day))]
        for pair in zip_longest(*others):
            chosen += [item for item in pair if item is not None]
        return rng.permutation(np.array(list(dict.fromkeys(chosen))[:size], np.int64))


def _best(scores: np.ndarray, number: int, least: float, rng: np.random.Generator) -> np.ndarray:
    """The products with the highest scores above zero, each score multiplied by a random factor, `least` or more."""
    drawn = scores * rng.uniform(least, 1.0, len(scores))
    best = np.argsort(-drawn, kind="stable")[:number]
    return best[drawn[best] > 0]


def _items(log: InteractionLog, basket: int) -> np.ndarray:
    return log.items[log.starts[basket] : log.starts[basket + 1]]
