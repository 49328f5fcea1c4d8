"""The baselines: popularity, personal frequency, item-kNN, EASE, a blend with EASE, text profile.

Every method is a function of a `Split` that returns one score for each shopper and product, (shoppers, products)
float32, bigger is better. None of them sees anything from after the cut.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.baselines.evaluation import Split, buyers, count_invoices

HALF_LIFE = 60  # days after which a purchase weighs half, in the blend
RECENT = 28  # days that count as recent: four whole weeks, so every weekday counts alike


# --- Counting ----------------------------------------------------------------------------------------------------


def popularity(split: Split, days: int | None = None) -> np.ndarray:
    """How many shoppers bought each product before the cut, in its last `days` if given; the same for everybody."""
    return np.tile(buyers(split, days).astype(np.float32), (len(split.shoppers), 1))


def recent_popularity(split: Split, days: int = RECENT) -> np.ndarray:
    """How many shoppers bought each product in the last `days` before the cut."""
    return popularity(split, days)


def personal_frequency(split: Split) -> np.ndarray:
    """On how many invoices the shopper bought the product; ties, also those at zero, go to the recently popular."""
    recent = recent_popularity(split)
    return split.counts.toarray() + recent / (recent.max() + 1)  # the second term stays below one invoice


# --- Neighbours and linear models --------------------------------------------------------------------------------


def shoppers_by_products(split: Split) -> sparse.csr_matrix:
    """Who bought what before the cut, over all shoppers, judged or not: (all shoppers, products) float32 of 0 and 1."""
    shoppers = np.sort(split.receipts["customer"].unique())
    return (count_invoices(split.receipts, shoppers, split.codes) > 0).astype(np.float32)


def cosine_similarity(X: sparse.csr_matrix) -> np.ndarray:
    """Cosine between the columns of X (shoppers, products), zero on the diagonal and for empty columns: dense."""
    together = (X.T @ X).toarray()  # (products, products): shoppers who bought both
    length = np.sqrt(np.maximum(together.diagonal(), np.finfo(np.float32).tiny))
    similarity = together / length[:, None] / length
    np.fill_diagonal(similarity, 0)
    return similarity.astype(np.float32)


def ease_weights(X: sparse.csr_matrix, l2: float) -> np.ndarray:
    """The item-item weights B (products, products), zero diagonal, that minimise |X - XB|² + l2 |B|² (Steck, 2019)."""
    if l2 <= 0:
        raise ValueError(f"l2 must be above zero, or the Gram matrix may have no inverse; it is {l2}")
    gram = (X.T @ X).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    P = np.linalg.inv(gram)
    B = -P / P.diagonal()  # column j divided by P[j, j]
    np.fill_diagonal(B, 0)
    return B.astype(np.float32)


def item_knn(split: Split, neighbours: int = 100) -> np.ndarray:
    """Score a product by its cosine to what the shopper bought, counting only its `neighbours` nearest products."""
    similarity = cosine_similarity(shoppers_by_products(split))
    if neighbours < len(similarity):
        # Row i holds the weights that score product i: all but its nearest neighbours are set to zero.
        weakest = np.partition(similarity, -neighbours, axis=1)[:, -neighbours, None]  # (products, 1)
        similarity[similarity < weakest] = 0
    return (split.counts > 0).astype(np.float32) @ similarity.T


def ease(split: Split, l2: float = 200) -> np.ndarray:
    """EASE on who bought what: the shopper's row of zeros and ones times the learned item-item weights."""
    return (split.counts > 0).astype(np.float32) @ ease_weights(shoppers_by_products(split), l2)


def recency(split: Split, shoppers: np.ndarray, half_life: float = HALF_LIFE) -> sparse.csr_matrix:
    """How fresh each purchase is: 1 at the cut, halved every `half_life` days since the shopper last bought it.

    (shoppers, products) float32, zero where they never did; `shoppers` is sorted.
    """
    last = split.receipts.groupby(["customer", "code"])["date"].max()
    last = last[last.index.isin(shoppers, level="customer")]
    days = (split.cut - last) / pd.Timedelta(days=1)
    rows = np.searchsorted(shoppers, last.index.get_level_values("customer"))
    columns = np.searchsorted(split.codes, last.index.get_level_values("code").to_numpy(str))
    fresh = (0.5 ** (days / half_life)).to_numpy(np.float32)
    return sparse.csr_matrix((fresh, (rows, columns)), shape=(len(shoppers), len(split.codes)))


def blend(split: Split, l2: float = 100, half_life: float = HALF_LIFE) -> np.ndarray:
    """Recency-weighted EASE times the root of recent popularity (mean one), plus the log of one plus the own count."""
    everybody = np.sort(split.receipts["customer"].unique())
    weights = ease_weights(recency(split, everybody, half_life), l2)
    recent = recent_popularity(split)
    trend = np.sqrt(recent / max(recent.mean(), np.finfo(np.float32).tiny))
    return recency(split, split.shoppers, half_life) @ weights * trend + np.log1p(split.counts.toarray())


# --- Text --------------------------------------------------------------------------------------------------------


def description_vectors(split: Split) -> sparse.csr_matrix:
    """TF-IDF of each product's description: (products, words), rows of length one."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    descriptions = split.receipts.groupby("code")["description"].first().reindex(split.codes)
    return TfidfVectorizer(dtype=np.float32).fit_transform(descriptions)


def text_profile(split: Split) -> np.ndarray:
    """Cosine between a product's description and the sum of the descriptions of what the shopper bought."""
    from sklearn.preprocessing import normalize

    vectors = description_vectors(split)
    profiles = normalize((split.counts > 0).astype(np.float32) @ vectors)  # (shoppers, words)
    return (profiles @ vectors.T).toarray()


def description_similarity(split: Split) -> np.ndarray:
    """Cosines between the descriptions, (products, products) dense: what makes a list of products look alike."""
    vectors = description_vectors(split)
    return (vectors @ vectors.T).toarray()


BASELINES: dict[str, Callable[[Split], np.ndarray]] = {
    "popularity": popularity,
    "recent popularity": recent_popularity,
    "text profile": text_profile,
    "item-kNN": item_knn,
    "EASE": ease,
    "personal frequency": personal_frequency,
    "blend": blend,
}
