"""Measures of an index, and a catalogue large enough to measure it on.

Recall, bytes, the intrinsic dimension (in how many directions the data spreads, which decides how well any index can
do), and `grow`, which makes a few thousand real vectors into as many as you like that spread in the same way.
"""

import re

import numpy as np
from scipy import sparse


def index_recall(found: np.ndarray, truth: np.ndarray) -> float:
    """The share of the true k nearest (queries, k) that are among the k found, in any order, over all queries.

    ValueError where the two are not of as many queries.
    """
    found, truth = np.asarray(found), np.asarray(truth)
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} queries were answered, the truth is of {len(truth)}: compare the same ones")
    same = found[:, :, None] == truth[:, None, :]  # (queries, found, true)
    return float(same.any(axis=1).mean())


def index_bytes(factory: str, products: int, dimensions: int) -> int:
    """The bytes of an index in memory and, but for a header of about a hundred bytes, on disk, by arithmetic.

    Knows Flat, SQ8, PQm (m codes of one byte), HNSWm, and the first three behind IVFc, or before RFlat. Of an
    HNSW it counts the expected links: twice m on the ground floor, m on each floor above, where one in m products goes.
    """
    if factory.endswith(",RFlat"):
        return index_bytes(factory.removesuffix(",RFlat"), products, dimensions) + 4 * products * dimensions
    if match := re.fullmatch(r"HNSW(\d+)(?:,Flat)?", factory):
        links = int(match[1])
        per_product = 4 * dimensions + 4 * (2 * links + links / (links - 1)) + 4 + 8  # vector, links, floor, offset
        return round(products * per_product)
    if match := re.fullmatch(r"IVF(\d+),(.+)", factory):
        centroids = 4 * dimensions * int(match[1])
        return centroids + 16 * products + index_bytes(match[2], products, dimensions)  # its id, and where it lies
    if match := re.fullmatch(r"PQ(\d+)(?:np)?", factory):
        codebooks = 4 * 256 * dimensions  # m tables of 256 centroids, each of d/m floats
        return products * int(match[1]) + codebooks
    if factory == "SQ8":
        return products * dimensions + 2 * 4 * dimensions  # one byte per dimension, and its minimum and range
    if factory == "Flat":
        return 4 * products * dimensions
    raise ValueError(
        f"no arithmetic for the factory string {factory!r}: it knows Flat, SQ8, PQm, IVFc, HNSWm and RFlat"
    )


def neighbour_distances(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Euclidean distances from each query (q, d) to its k nearest of the unit vectors (n, d), nearest first: (q, k).

    ValueError where there are fewer than k vectors.
    """
    import faiss

    if k > len(vectors):
        raise ValueError(f"k is {k}, but there are only {len(vectors)} vectors")
    cosines, _ = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return np.sqrt(np.maximum(2 - 2 * cosines.astype(float), 0))  # of unit vectors: |a - b|^2 = 2 - 2 a·b


def intrinsic_dimension(vectors: np.ndarray, sample: int = 1000, k: int = 20, seed: int = 0) -> float:
    """In how many directions the data spreads around a point: the median over a sample of maximum-likelihood estimates.

    From the distances r_1 <= … <= r_k to a point's neighbours, 1 / mean(ln(r_k / r_i)). Uniform noise in d dimensions
    gives about d, as long as d is small. Neighbours at distance zero are left out, so are points with fewer than two
    others. Source: Levina and Bickel 2004.
    """
    k = min(k, len(vectors) - 1)
    chosen = np.random.default_rng(seed).permutation(len(vectors))[:sample]
    distances = neighbour_distances(vectors, vectors[chosen], k + 1)[:, 1:]  # the first is the point itself
    distances[distances < 1e-3] = np.nan  # equal texts
    distances = distances[np.isfinite(distances).sum(axis=1) > 1]
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    return float(np.nanmedian(1 / np.nanmean(logs, axis=1)))


def grow(vectors: np.ndarray, products: int, seed: int = 0, neighbours: int = 10, spread: float = 0.7) -> np.ndarray:
    """A larger catalogue that spreads as this one does: (products, d) unit rows made from real unit vectors (n, d).

    Each is a real vector a, chosen at random, moved along the differences to its neighbours b_j, each by a normal
    number of standard deviation `spread` / sqrt(neighbours): a + sum_j w_j (b_j - a), scaled to length 1. Whether it
    spreads as the original does is measured by `intrinsic_dimension` and `neighbour_distances`, not assumed.
    """
    import faiss

    rng = np.random.default_rng(seed)
    neighbours = min(neighbours, len(vectors) - 1)
    _, near = faiss.knn(vectors, vectors, neighbours + 1, metric=faiss.METRIC_INNER_PRODUCT)  # itself comes first
    grown = np.empty((products, vectors.shape[1]), np.float32)
    for start in range(0, products, 65_536):
        block = grown[start : start + 65_536]
        columns = near[rng.integers(len(vectors), size=len(block))]  # (block, 1 + neighbours)
        weights = rng.normal(0, spread / np.sqrt(neighbours), columns.shape)
        weights[:, 0] = 1 - weights[:, 1:].sum(axis=1)
        mix = sparse.csr_matrix((weights.ravel(), columns.ravel(), np.arange(0, columns.size + 1, columns.shape[1])))
        mix.resize(len(block), len(vectors))
        block[:] = mix @ vectors  # (block, n) @ (n, d)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return grown
