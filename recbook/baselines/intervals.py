"""How sure a figure is: means over shoppers with bootstrap intervals, and paired comparisons of two methods."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

RESAMPLED_AT_ONCE = 4_000_000  # numbers in one block of resamples: 32 MB as floats


def bootstrap(
    values: np.ndarray, draws: int = 1000, seed: int = 0, level: float = 0.95, at_once: int = RESAMPLED_AT_ONCE
) -> tuple[np.ndarray, ...]:
    """Mean and percentile interval of each column of (shoppers, columns), by resampling shoppers with replacement.

    NaN entries take no part; a column with fewer than two others has a mean and no interval: NaN. Returns three arrays
    (columns,): mean, low, high. `at_once`: numbers in one block of resamples. Efron & Tibshirani (1993).
    """
    there, filled, n = ~np.isnan(values), np.nan_to_num(values), len(values)
    times_drawn, means = _resamples(n, draws, seed, at_once), np.empty((draws, values.shape[1]))
    with np.errstate(invalid="ignore"):  # nobody with a value among those drawn: NaN
        for block in _blocks(draws, n, at_once):
            times = times_drawn[block].astype(np.float64)
            means[block] = (times @ filled) / (times @ there)
        mean = filled.sum(axis=0) / there.sum(axis=0)
    low, high = np.full((2, values.shape[1]), np.nan)
    enough = there.sum(axis=0) >= 2
    if enough.any():
        tails = [(1 - level) / 2, (1 + level) / 2]
        low[enough], high[enough] = np.nanquantile(means[:, enough], tails, axis=0)
    return mean, low, high


@lru_cache(maxsize=2)
def _resamples(n: int, draws: int, seed: int, at_once: int) -> np.ndarray:
    """How often each of n shoppers is drawn in each resample, (draws, n): the same for every method, drawn once.

    Bytes, since these are kept: nobody is drawn 256 times.
    """
    rng, times_drawn = np.random.default_rng(seed), np.empty((draws, n), dtype=np.uint8)
    for block in _blocks(draws, n, at_once):
        times_drawn[block] = rng.multinomial(n, np.full(n, 1 / n), size=block.stop - block.start)
    return times_drawn


def _blocks(rows: int, columns: int, at_once: int) -> list[slice]:
    """Slices of `rows` that hold `at_once` numbers at most each; a single row may hold more."""
    step = max(at_once // max(columns, 1), 1)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


class PairedDifference(NamedTuple):
    """Method a minus method b over the same shoppers."""

    difference: float
    low: float  # bootstrap interval of the difference
    high: float
    p_value: float  # of a permutation test: how often chance alone gives a difference as large
    n: int  # shoppers for whom both have a value


def paired(
    a: np.ndarray, b: np.ndarray, draws: int = 2000, seed: int = 0, at_once: int = RESAMPLED_AT_ONCE
) -> PairedDifference:
    """Compare two methods shopper by shopper: `a` and `b` are one metric's values (shoppers,) in the same order.

    The p-value flips the sign of each shopper's difference at random, which is all that "no difference" allows. Where
    fewer than two shoppers have both values there is nothing to compare: interval and p are NaN.
    """
    if len(a) != len(b):
        raise ValueError(f"a paired comparison needs the same shoppers in both: {len(a)} against {len(b)}")
    difference = np.asarray(a, float) - np.asarray(b, float)
    there = difference[~np.isnan(difference)]
    n = len(there)
    if n < 2:
        return PairedDifference(there[0] if n else np.nan, np.nan, np.nan, np.nan, n)
    (mean,), (low,), (high,) = bootstrap(difference[:, None], draws, seed, at_once=at_once)
    rng, by_chance = np.random.default_rng(seed + 1), np.empty(draws)
    for block in _blocks(draws, n, at_once):
        signs = rng.integers(0, 2, (block.stop - block.start, n), dtype=np.int8) * 2.0 - 1
        by_chance[block] = signs @ there / n
    as_large = np.abs(by_chance) >= np.abs(mean) - 1e-12
    return PairedDifference(mean, low, high, (as_large.sum() + 1) / (draws + 1), n)
