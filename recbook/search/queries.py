"""Queries to an index: a text that somebody typed, or the products that somebody bought.

A history becomes a query as the mean of its vectors. The mean of a shopper who buys for the kitchen and for a child
lies between the two, near to neither, so a history can also be split into interests, each with a query of its own.
"""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pandas as pd

from recbook.search.index import Hits, ProductIndex, check_codes, search_index, vectors_of


def by_text(
    index: ProductIndex, texts: list[str], encode: Callable[[list[str]], np.ndarray], k: int = 10, **options: Any
) -> Hits:
    """The products nearest to texts; `encode` must be what made the index's vectors. Options: `search_index`'s.

    TypeError: one string instead of a list of them.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, not one string: wrap it, by_text(index, [text], …)")
    return search_index(index, encode(list(texts)), k, **options)


def by_history(
    index: ProductIndex, bought: Collection[str], k: int = 10, interests: int = 1, among: Collection[str] | None = None
) -> Hits:
    """New products for one shopper, `codes` and `scores` (k,), from the products that they bought.

    The query is the mean of their vectors; with several `interests`, the means of as many groups of them, and the
    answers take turns: the first of each group, largest group first, then the second of each. Products that the index
    does not hold are left out, and products already bought are never answered. ValueError if none of `bought` is in the
    index or k < 1, TypeError if `bought` or `among` is no list of codes.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one product")
    known = [code for code in dict.fromkeys(check_codes(bought, "bought")) if code in index.codes]
    if not known:
        raise ValueError(f"none of the {len(bought)} products bought is in the index: there is nothing to start from")
    means = interest_means(vectors_of(index, known), interests)
    hits = search_index(index, means, k + len(known), among=among)  # k are left when all that is known is dropped
    found = pd.DataFrame({"code": hits.codes.ravel(), "score": hits.scores.ravel()})
    found["mean"] = np.repeat(np.arange(len(means)), hits.codes.shape[1])
    found = found[~found["code"].isin(known)]
    turns = found.iloc[np.argsort(found.groupby("mean").cumcount(), kind="stable")].drop_duplicates("code").head(k)
    return Hits(turns["code"].to_numpy(dtype=object), turns["score"].to_numpy())


def interest_means(vectors: np.ndarray, interests: int, rounds: int = 20) -> np.ndarray:
    """Unit means (<= interests, d) of groups of unit vectors (n, d), largest group first: k-means on the sphere.

    The first mean starts at the vector nearest to the overall mean, each next one at the vector farthest from those
    there are, so that nothing is left to chance. Source: Dhillon and Modha 2001; farthest-first start, Gonzalez 1985.
    """
    if interests < 1:
        raise ValueError(f"interests is {interests}: a shopper has at least one")
    means = vectors[[np.argmax(vectors @ vectors.mean(axis=0))]]
    while len(means) < interests and (nearest := (vectors @ means.T).max(axis=1)).min() < 1 - 1e-6:
        means = np.vstack([means, vectors[np.argmin(nearest)]])
    for _ in range(rounds):
        group = np.argmax(vectors @ means.T, axis=1)  # (n,)
        sums = np.array([vectors[group == g].sum(axis=0) for g in np.unique(group)])
        means = sums / np.linalg.norm(sums, axis=1, keepdims=True).clip(1e-12)
    sizes = np.bincount(np.argmax(vectors @ means.T, axis=1), minlength=len(means))
    return means[np.argsort(-sizes, kind="stable")]
