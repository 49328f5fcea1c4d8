"""Nearest products among many: brute force by hand, and FAISS indexes that answer in product codes.

An index is built by FAISS's own factory string ("Flat", "IVF256,Flat", "HNSW32", "PQ48", "IVF256,PQ48,RFlat", …) over
unit vectors, so that the inner product is the cosine. What this module adds: codes in and out, filters inside the
search, exactly min(k, products allowed) answers to every query, and the same answers each time. Queries made of text
or of a history are in `queries`, what measures an index in `measures`, indexes on disk in `files`.
FAISS: Douze et al. 2024, arxiv.org/abs/2401.08281.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SCAN_BELOW = 5_000  # allowed products: so few are compared one by one, faster than any index and exact


@dataclass(frozen=True)
class ProductIndex:
    """A FAISS index over a catalogue: row i of `faiss_index` is the product `codes[i]`."""

    codes: pd.Index  # (n,) str, unique
    faiss_index: Any  # faiss.Index over inner products
    factory: str  # FAISS's factory string
    fingerprint: dict[str, str]  # sha256 of the "codes" and of the "vectors" that it was built of


@dataclass(frozen=True)
class SearchParameters:
    """How much of an approximate index a search visits; each part of an index takes its own setting."""

    nprobe: int = 16  # IVF: cells visited
    ef: int = 64  # HNSW: candidates kept on the walk
    refine: int = 4  # …,RFlat: times k candidates whose exact score is computed
    scan_below: int = SCAN_BELOW  # filters: allowed products that are compared one by one instead


class Hits(NamedTuple):
    """Answers, best first, equal scores by catalogue order: one row per query."""

    codes: np.ndarray  # (queries, k) str
    scores: np.ndarray  # (queries, k) float32: cosine, as the index computes it


def brute_force(vectors: np.ndarray, queries: np.ndarray, k: int, block: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """The k largest inner products of every query, by one matrix product per block of queries: scores, rows.

    vectors (n, d), queries (q, d) -> scores (q, k) float32 and rows (q, k) int64, best first, equal scores by
    the lower row (which of several equal products takes the last place is not promised).
    Costs q·n·d multiply-adds, and 4·block·n bytes for the scores of one block.
    """
    k = min(k, len(vectors))
    scores, rows = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), block):
        product = queries[start : start + block] @ vectors.T  # (block, d) @ (d, n) -> (block, n)
        best = np.argpartition(-product, k - 1, axis=1)[:, :k]  # the k largest, in no order
        values = np.take_along_axis(product, best, axis=1)
        scores[start : start + block], rows[start : start + block] = _ranked(values, best)
    return scores, rows


def _ranked(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)


def build_index(codes: Collection[str], vectors: np.ndarray, factory: str = "Flat", threads: int = 1) -> ProductIndex:
    """Train and fill a FAISS index of the products `codes`, whose unit vectors are the rows of `vectors` (n, d).

    `threads` are those of the build: with more than one, an HNSW's links depend on which thread comes first, so that
    two builds differ. ValueError, with the first offender: codes that repeat or are no strings, vectors that are not
    finite or not of length 1, shapes that do not fit, a factory string that FAISS does not know or that needs more
    products.
    """
    import faiss

    codes = pd.Index(np.asarray(codes, dtype=object), dtype=object)  # not inferred: a string index converts at each use
    vectors = _checked_catalogue(codes, vectors)
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ValueError(
            f"FAISS does not know the factory string {factory!r} for {vectors.shape[1]} dimensions"
        ) from error
    _enough_to_train(factory, len(vectors))
    _without_polysemous_codes(index)
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        index.train(vectors)
        index.add(vectors)
    finally:
        faiss.omp_set_num_threads(before)
    if "IVF" in factory:  # 8 bytes per product: in which cell each row lies, and where, so that its vector can be had
        faiss.extract_index_ivf(index).make_direct_map()
    return ProductIndex(codes, index, factory, catalogue_fingerprint(codes, vectors))


def _checked_catalogue(codes: pd.Index, vectors: np.ndarray) -> np.ndarray:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(codes) or not len(codes):
        raise ValueError(f"{len(codes)} codes need a vector each, (n, d) with n >= 1; the vectors are {vectors.shape}")
    if strange := [code for code in codes if not isinstance(code, str)]:
        raise ValueError(
            f"{len(strange)} codes are not strings, the first {strange[0]!r}: read StockCode as text (dtype=str)"
        )
    if not codes.is_unique:
        raise ValueError(f"the code {codes[codes.duplicated()][0]!r} stands for more than one vector; keep one each")
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))  # written so that NaN is wrong too
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"{len(wrong)} vectors are not of length 1, the first that of {codes[row]!r} (row {row}, length "
            f"{lengths[row]:.4g}): inner products would not be cosines. Divide each row by its length."
        )
    return vectors


def _enough_to_train(factory: str, products: int) -> None:
    cells = int(match[1]) if (match := re.search(r"IVF(\d+)", factory)) else 1
    centroids = max(cells, 256 if re.search(r"PQ\d+($|[^x\d])", factory) else 1)
    if products < centroids:
        raise ValueError(
            f"ask for fewer: {factory!r} learns {centroids} centroids and has {products} products to learn from"
        )


def _without_polysemous_codes(index: Any) -> None:
    """Skip the training of PQ that only Hamming-distance filtering would use; it takes most of the time."""
    import faiss

    part = faiss.downcast_index(index.base_index) if isinstance(index, faiss.IndexRefine) else index
    if hasattr(part, "do_polysemous_training"):
        part.do_polysemous_training = False


def catalogue_fingerprint(codes: Collection[str], vectors: np.ndarray) -> dict[str, str]:
    """The sha256 of the codes, in their order, and of the vectors' shape and float32 values, to the bit."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    of_vectors = hashlib.sha256(repr(vectors.shape).encode())
    of_vectors.update(vectors.data)
    of_codes = hashlib.sha256(json.dumps([str(code) for code in codes]).encode())
    return {"codes": of_codes.hexdigest(), "vectors": of_vectors.hexdigest()}


def search_index(
    index: ProductIndex,
    queries: np.ndarray,
    k: int = 10,
    among: Collection[str] | None = None,
    parameters: SearchParameters = SearchParameters(),  # noqa: B008  (frozen)
) -> Hits:
    """The k products nearest to each query (q, d): exactly min(k, products allowed) of them, whatever the index.

    `among` are the codes that may be answered (None: all), such as `catalogue.query("price < 5").index`; codes that the
    index does not hold are left out. An empty `among` gives answers with no columns. Queries are scaled to length 1.
    ValueError: k < 1, queries of another dimension, not finite, or zero. TypeError: an `among` that is no list of
    codes, such as one string, a table, or True and False for each product.
    """
    queries = _checked_queries(index, queries)
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one product")
    rows = None if among is None else _rows(index, among)
    k = min(k, len(index.codes) if rows is None else len(rows))
    if k == 0:
        return Hits(np.empty((len(queries), 0), object), np.empty((len(queries), 0), np.float32))
    if rows is not None and (len(rows) <= parameters.scan_below or not _takes_filter(index)):
        return _hits(index, *_scan(index, queries, k, rows))
    scores, found = index.faiss_index.search(queries, k, params=_parameters(index.faiss_index, k, parameters, rows))
    short = (found < 0).any(axis=1)  # the cells visited, or the walk, held fewer than k: look at everything instead
    if short.any():
        scores[short], found[short] = _scan(index, queries[short], k, rows)
    return _hits(index, *_ranked(scores, found))


def _checked_queries(index: ProductIndex, queries: np.ndarray) -> np.ndarray:
    queries = np.atleast_2d(np.asarray(queries, dtype=np.float32))
    if queries.ndim != 2 or queries.shape[1] != index.faiss_index.d:
        raise ValueError(f"queries must be (q, {index.faiss_index.d}), as the index's vectors are; got {queries.shape}")
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise ValueError(f"query {wrong[0]} is zero or holds a value that is not finite: it points nowhere")
    return np.ascontiguousarray(queries / lengths)


def _rows(index: ProductIndex, codes: Collection[str]) -> np.ndarray:
    listed = pd.Index(check_codes(codes, "among"), dtype=object)
    rows = index.codes.get_indexer(listed.unique())
    return np.sort(rows[rows >= 0])


def check_codes(codes: Collection[str], what: str) -> list[str]:
    """The codes as a list; TypeError, naming the argument `what`, for anything that would silently match no product."""
    if isinstance(codes, str | pd.DataFrame):
        raise TypeError(f"{what} must be a list of product codes, not one {type(codes).__name__}")
    codes = list(codes)
    if codes and not isinstance(codes[0], str):
        raise TypeError(f"{what} must hold product codes, not {codes[0]!r}: of a table of products, pass the index")
    return codes


def _takes_filter(index: ProductIndex) -> bool:
    """FAISS takes a selector of ids in every index of this book but product quantization without cells."""
    import faiss

    part = index.faiss_index
    part = faiss.downcast_index(part.base_index) if isinstance(part, faiss.IndexRefine) else part
    return not isinstance(part, faiss.IndexPQ)


def _scan(index: ProductIndex, queries: np.ndarray, k: int, rows: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Brute force over the vectors of some rows, as the index holds them, a block of rows at a time."""
    rows = np.arange(len(index.codes)) if rows is None else rows
    scores, found = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), 65_536):
        block = rows[start : start + 65_536]
        more, positions = brute_force(index.faiss_index.reconstruct_batch(block), queries, k)
        scores, found = np.hstack([scores, more]), np.hstack([found, block[positions]])
        scores, found = (part[:, :k] for part in _ranked(scores, found))
    return scores, found


def _parameters(part: Any, k: int, parameters: SearchParameters, rows: np.ndarray | None) -> Any:
    """FAISS's search parameters for an index and, recursively, for what it wraps; `rows` become a selector of ids."""
    import faiss

    part = faiss.downcast_index(part)
    if isinstance(part, faiss.IndexRefine):
        base = _parameters(part.base_index, k, parameters, rows)
        return faiss.IndexRefineSearchParameters(k_factor=parameters.refine, base_index_params=base)  # type: ignore[call-arg]  # stubs lack it
    chosen = {} if rows is None else {"sel": _selector(rows, part.ntotal)}
    if isinstance(part, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=min(parameters.nprobe, part.nlist), **chosen)  # type: ignore[call-arg]  # stubs lack it
    if isinstance(part, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=max(parameters.ef, k), **chosen)  # type: ignore[attr-defined]  # stubs lack it
    return faiss.SearchParameters(**chosen) if chosen else None


def _selector(rows: np.ndarray, products: int) -> Any:
    import faiss

    allowed = np.zeros(products, dtype=bool)
    allowed[rows] = True
    bits = np.packbits(allowed, bitorder="little")  # one per product
    return faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg, arg-type]  # the stubs' are the arguments of C++


def _hits(index: ProductIndex, scores: np.ndarray, rows: np.ndarray) -> Hits:
    return Hits(index.codes.to_numpy()[rows], scores)


def vectors_of(index: ProductIndex, codes: Collection[str]) -> np.ndarray:
    """The vectors of products as the index holds them (codes, d): exact, but for SQ8 and PQ. KeyError names a code."""
    rows = index.codes.get_indexer(pd.Index(list(codes), dtype=object))
    if (rows < 0).any():
        raise KeyError(f"the index holds no product {str(list(codes)[int(np.argmin(rows))])!r}")
    return index.faiss_index.reconstruct_batch(rows)
