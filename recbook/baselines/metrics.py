"""Ranking metrics, for all shoppers at once, and the ranking itself.

A ranking is (shoppers, k) columns of the catalogue, best first, -1 where a shopper's list is shorter. The metrics
that judge it by what was bought take `hit`, (shoppers, k) bool, and `relevant`, (shoppers,) the number of targets.
"""

import numpy as np


def rank(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """The k best columns of each row, best first: (rows, k) int64, -1 where a row has fewer than k (allowed) columns.

    Equal scores go in column order, so a ranking never depends on luck. ValueError for a score that is not a number.
    """
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).any(axis=1).sum()} shoppers have scores that are not numbers (NaN)")
    scores = scores if allowed is None else np.where(allowed, scores, -np.inf)
    missing = max(k - scores.shape[1], 0)  # places that even the whole catalogue does not fill
    k -= missing
    last = np.partition(scores, -k, axis=1)[:, -k, None]  # (rows, 1): the lowest score on each list
    above, equal = scores > last, scores == last
    room = k - above.sum(axis=1, keepdims=True)  # places for the first columns with that score
    columns = np.nonzero(above | (equal & (equal.cumsum(axis=1) <= room)))[1].reshape(-1, k)
    chosen = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-chosen, axis=1, kind="stable")  # far quicker than sorting the whole catalogue
    best = np.take_along_axis(columns, order, axis=1)
    best = np.where(np.take_along_axis(chosen, order, axis=1) == -np.inf, -1, best)
    return np.pad(best, ((0, 0), (0, missing)), constant_values=-1)


def hits(ranking: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Which recommended products were bought: (shoppers, k) bool, from a ranking and dense (shoppers, products)."""
    return np.take_along_axis(targets, np.maximum(ranking, 0), axis=1) & (ranking >= 0)


def ndcg(hit: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Discounted gain over that of the best possible list of min(k, relevant) hits; NaN where nothing is relevant.

    `hit` is (shoppers, k) bool, `relevant` (shoppers,) the number of targets. Järvelin & Kekäläinen (2002).
    """
    k = hit.shape[1]
    discounts = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[np.nan], np.cumsum(discounts)])
    return hit @ discounts / ideal[np.minimum(relevant, k)]


def recall(hit: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """The share of a shopper's targets that the list found; NaN where there are none."""
    return np.where(relevant > 0, hit.sum(axis=1) / np.maximum(relevant, 1), np.nan)


def hit_rate(hit: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """One where the list found any target, else zero; NaN where there are none."""
    return np.where(relevant > 0, hit.any(axis=1), np.nan)


def reciprocal_rank(hit: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """One over the place of the first hit, zero without one; NaN where there are no targets. Its mean is MRR@k."""
    return np.where(relevant > 0, hit.any(axis=1) / (hit.argmax(axis=1) + 1), np.nan)


ACCURACY = {"ndcg": ndcg, "recall": recall, "hit": hit_rate, "mrr": reciprocal_rank}


def list_mean(values: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """The mean of `values` (products,) over each list (shoppers, k): (shoppers,), NaN for an empty list.

    Of `self_information` it is novelty, of `popularity_percentile` popularity bias.
    """
    there = ranking >= 0
    length = there.sum(axis=1)
    return np.where(length > 0, (values[ranking] * there).sum(axis=1) / np.maximum(length, 1), np.nan)


def intra_list_diversity(ranking: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """One minus the mean similarity over the pairs of a list: (shoppers,), NaN below two products.

    `similarity` is (products, products), symmetric, such as cosines between descriptions. Ziegler et al. (2005).
    """
    there = (ranking >= 0).astype(np.float64)
    pairs = there[:, :, None] * there[:, None, :] * (1 - np.eye(ranking.shape[1]))  # (shoppers, k, k)
    alike = (similarity[ranking[:, :, None], ranking[:, None, :]] * pairs).sum(axis=(1, 2))
    count = pairs.sum(axis=(1, 2))
    return np.where(count > 0, 1 - alike / np.maximum(count, 1), np.nan)


def coverage(ranking: np.ndarray, products: int) -> float:
    """The share of the catalogue that is on at least one shopper's list."""
    return len(np.unique(ranking[ranking >= 0])) / products


def exposure_gini(ranking: np.ndarray, products: int) -> float:
    """How unequally the lists expose the catalogue: 0, all products alike; towards 1, a few take every place."""
    exposure = np.sort(np.bincount(ranking[ranking >= 0], minlength=products))
    places = np.arange(1, products + 1)
    return float(2 * (places * exposure).sum() / (products * exposure.sum()) - (products + 1) / products)
