"""Checks of Chapter 4: brute force, recall, cells, bytes, filters."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _units(n: int, d: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _ranked(scores: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-scores, axis=-1, kind="stable")[..., :k]


# 4.1: the k nearest rows of every query, best first


def nearest_rows(vectors, queries, k):
    """The k rows nearest to every query, best first: (queries, k)."""
    return _ranked(queries @ vectors.T, k)


def _least_alike(vectors, queries, k):
    return _ranked(-(queries @ vectors.T), k)


def _in_no_order(vectors, queries, k):
    return np.sort(_ranked(queries @ vectors.T, k), axis=1)


def _one_list_for_all(vectors, queries, k):
    return _ranked((queries @ vectors.T).mean(axis=0), k)


# 4.2: recall


def recall_at_k(found, truth):
    """The mean share of the true neighbours that were found."""
    return np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found.tolist(), truth.tolist(), strict=True)])


def _same_place(found, truth):
    return np.mean(found == truth)


def _any_hit(found, truth):
    return np.mean([bool(set(f) & set(t)) for f, t in zip(found.tolist(), truth.tolist(), strict=True)])


def _best_found(found, truth):
    return np.mean([t[0] in f for f, t in zip(found.tolist(), truth.tolist(), strict=True)])


_TRUTH = np.array([[1, 2, 3], [7, 8, 9], [4, 5, 6]])


# 4.3: search in a few cells


def search_cells(vectors, centres, query, nprobe, k):
    """The k best rows among those whose cell is one of the `nprobe` nearest to the query."""
    cell = np.argmax(vectors @ centres.T, axis=1)
    rows = np.flatnonzero(np.isin(cell, _ranked(centres @ query, nprobe)))
    return rows[_ranked(vectors[rows] @ query, k)]


def _one_cell(vectors, centres, query, nprobe, k):
    return search_cells(vectors, centres, query, 1, k)


def _positions_in_the_cells(vectors, centres, query, nprobe, k):
    cell = np.argmax(vectors @ centres.T, axis=1)
    rows = np.flatnonzero(np.isin(cell, _ranked(centres @ query, nprobe)))
    return _ranked(vectors[rows] @ query, k)


def _every_cell(vectors, centres, query, nprobe, k):
    return _ranked(vectors @ query, k)


# 4.4: bytes of a product quantizer


def pq_bytes(products, dimensions, pieces):
    """Bytes of a product-quantized catalogue: one byte per piece, and the codebooks."""
    return products * pieces + 256 * dimensions * 4


def _without_codebooks(products, dimensions, pieces):
    return products * pieces


def _codebook_a_piece(products, dimensions, pieces):
    return products * pieces + pieces * 256 * dimensions * 4


def _bits(products, dimensions, pieces):
    return products * pieces * 8 + 256 * dimensions * 4


# 4.5: a filter inside the search


def search_allowed(vectors, query, allowed, k):
    """The k best rows among the allowed ones, best first."""
    rows = np.flatnonzero(allowed)
    return rows[_ranked(vectors[rows] @ query, k)]


def _filter_afterwards(vectors, query, allowed, k):
    best = _ranked(vectors @ query, k)
    return best[allowed[best]]


def _positions_among_allowed(vectors, query, allowed, k):
    return _ranked(vectors[np.flatnonzero(allowed)] @ query, k)


def _zeroed(vectors, query, allowed, k):
    return _ranked(np.where(allowed, vectors @ query, 0), k)


_SOME = np.arange(60) % 7 == 3

EXERCISES = [
    Exercise(
        "4.1",
        nearest_rows,
        [
            (np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]), np.array([[1.0, 0.0], [0.0, 1.0]]), 2),
            (_units(50, 8, 0), _units(4, 8, 1), 5),
            (_units(30, 3, 2), _units(1, 3, 3), 30),
        ],
        [
            Mistake(_least_alike, "these are the products least alike: sort from the largest score down."),
            Mistake(
                _in_no_order, "the right products in the wrong order: `argpartition` does not sort the k it finds."
            ),
            Mistake(_one_list_for_all, "one list for all queries; there should be a row of k products for each."),
        ],
    ),
    Exercise(
        "4.2",
        recall_at_k,
        [
            (np.array([[3, 1, 0], [8, 0, 9], [0, 1, 2]]), _TRUTH),
            (_TRUTH[:, ::-1].copy(), _TRUTH),
            (_TRUTH + 100, _TRUTH),
        ],
        [
            Mistake(_same_place, "recall does not ask for the same place: a true neighbour counts wherever it stands."),
            Mistake(_any_hit, "that is the hit rate: one true neighbour is enough for it. Recall counts how many."),
            Mistake(_best_found, "you look for the nearest one only; recall is about all k of them."),
        ],
    ),
    Exercise(
        "4.3",
        search_cells,
        [
            (_units(40, 4, 0), _units(5, 4, 1), _units(6, 4, seed)[seed], nprobe, 4)
            for seed, nprobe in ((2, 1), (3, 2), (4, 3))
        ],
        [
            Mistake(_one_cell, "you visit one cell; `nprobe` says how many of the nearest centres to visit."),
            Mistake(
                _positions_in_the_cells, "these count within the visited cells; turn them back into rows of `vectors`."
            ),
            Mistake(_every_cell, "that is brute force: only products of the visited cells may be compared."),
        ],
    ),
    Exercise(
        "4.4",
        pq_bytes,
        [(1_000_000, 384, 8), (902, 384, 48), (0, 64, 4)],
        [
            Mistake(_without_codebooks, "the codebooks are missing: without them no code can be read back."),
            Mistake(_codebook_a_piece, "a codebook holds pieces, not whole vectors: its entries have d / m floats."),
            Mistake(_bits, "a code of one of 256 entries is 8 bits, which is one byte."),
        ],
    ),
    Exercise(
        "4.5",
        search_allowed,
        [
            (_units(60, 5, 0), _units(1, 5, 1)[0], _SOME, 5),
            (_units(60, 5, 2), _units(1, 5, 3)[0], ~_SOME, 10),
            (_units(60, 5, 4), _units(1, 5, 5)[0], _SOME, 40),
        ],
        [
            Mistake(
                _filter_afterwards, "filtered after the search, the k best shrink to those allowed. Filter before."
            ),
            Mistake(
                _positions_among_allowed, "these count among the allowed products; turn them into rows of `vectors`."
            ),
            Mistake(_zeroed, "a score of zero is not out of the race: products with a negative cosine lose to it."),
        ],
    ),
]
