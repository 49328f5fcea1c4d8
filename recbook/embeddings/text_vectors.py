"""Product text to unit vectors, so that a dot product says how alike two products' descriptions are.

Three ways, each built on the one before: TF-IDF (a word is an axis, rare words weigh more), LSA (the axes that a
singular value decomposition finds in TF-IDF) and a sentence-transformer (a small BERT trained on a billion pairs of
sentences), which is `recbook.embeddings.encoder.encode`. Every function returns unit rows, so cosine similarity is
`a @ b` and no caller normalises again.

`recbook.book.workshop.embeddings()` keeps the vectors of the whole catalogue between runs.
"""

import re

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.linalg import svds
from threadpoolctl import threadpool_limits

WORD_PATTERN = re.compile(r"\b\w\w+\b")  # two letters or more, as scikit-learn's vectorizers split


def words(text: str) -> list[str]:
    """The words of a text, lower-cased: `"SET OF 6 Tea-Lights"` gives `["set", "of", "tea", "lights"]`."""
    return WORD_PATTERN.findall(text.lower())


def distinct_words(texts: list[str]) -> list[str]:
    """The distinct words of the texts, sorted: word j is column j of `count_words` and `tfidf`."""
    return sorted({word for text in texts for word in words(text)})


def count_words(texts: list[str], vocabulary: list[str]) -> sparse.csr_matrix:
    """How often each word of the vocabulary stands in each text: (texts, words). Words outside it are not counted."""
    column = {word: j for j, word in enumerate(vocabulary)}
    found = [(i, column[word]) for i, text in enumerate(texts) for word in words(text) if word in column]
    rows, columns = np.array(found, dtype=int).reshape(-1, 2).T
    shape = (len(texts), len(vocabulary))
    return sparse.csr_matrix((np.ones(len(found)), (rows, columns)), shape)  # repeated (row, column) pairs add up


def idf(counts: sparse.csr_matrix) -> np.ndarray:
    """The weight of each word, (words,): `1 + ln((1 + n) / (1 + d))`, where d of the n texts hold the word.

    The ones under the logarithm act as one more text that holds every word, so no word divides by zero; the one outside
    keeps a word that stands in every text from vanishing. Source: Spärck Jones (1972), smoothed as in scikit-learn.
    """
    texts_with_word = np.asarray((counts > 0).sum(axis=0)).ravel()
    return 1 + np.log((1 + counts.shape[0]) / (1 + texts_with_word))


def tfidf(texts: list[str], fit_on: list[str] | None = None) -> sparse.csr_matrix:
    """TF-IDF vectors: word counts times `idf`, rows of length one, float32 (texts, words of the fitted texts).

    Vocabulary and weights come from `fit_on`, or from the texts themselves. A text without any known word gives a row
    of zeros: it is like nothing, itself included. Equal to scikit-learn's TfidfVectorizer with its defaults.
    """
    known = list(texts if fit_on is None else fit_on)
    terms = distinct_words(known)
    if not terms:
        raise ValueError(f"none of the {len(known)} texts to fit on has a word of two letters or more")
    weights = idf(count_words(known, terms))
    return unit(count_words(texts, terms).multiply(weights).tocsr())


def unit(vectors: np.ndarray | sparse.spmatrix) -> np.ndarray | sparse.csr_matrix:
    """Rows scaled to length one, float32, dense or sparse as they came; a row of zeros stays as it is."""
    if isinstance(vectors, sparse.spmatrix | sparse.sparray):
        lengths = np.sqrt(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1 / np.where(lengths > 0, lengths, 1)) @ vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def centred(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) less their mean, at length one again, float32: what all texts share tells none from another."""
    less = vectors - vectors.mean(axis=0)
    return (less / np.maximum(np.linalg.norm(less, axis=1, keepdims=True), 1e-9)).astype(np.float32, order="C")


def topics(matrix: sparse.csr_matrix, dimensions: int) -> np.ndarray:
    """The `dimensions` directions of word space along which the rows spread most, (dimensions, words), widest first.

    They are the right singular vectors of the matrix; their sign, which the decomposition leaves open, makes each
    one's largest entry positive. Equal to scikit-learn's TruncatedSVD up to that sign.
    """
    if not 1 <= dimensions < min(matrix.shape):
        raise ValueError(f"dimensions must be from 1 to {min(matrix.shape) - 1} for a matrix of {matrix.shape}")
    start = np.ones(min(matrix.shape))  # the solver's first guess: fixed, so that the answer is
    with threadpool_limits(1):  # its steps are so small that threads mostly wait for each other
        _, widths, directions = svds(matrix.astype(np.float64), k=dimensions, v0=start)
    directions = directions[np.argsort(-widths)]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(dimensions), largest])
    return directions * signs[:, None]


def lsa(texts: list[str], dimensions: int = 128, fit_on: list[str] | None = None) -> np.ndarray:
    """LSA vectors: TF-IDF projected onto its own `topics`, float32 unit rows (texts, dimensions).

    Words that keep the same company share topics, so two texts can be alike without a word in common. A text that no
    topic touches gives a row of zeros.
    Source: Deerwester et al. (1990), Indexing by Latent Semantic Analysis.
    """
    known = texts if fit_on is None else fit_on
    directions = topics(tfidf(known), dimensions)
    projected = tfidf(texts, known) @ directions.T  # (texts, words) @ (words, dimensions)
    projected[np.linalg.norm(projected, axis=1) < 1e-6] = 0  # rounding errors, which `unit` would scale to length one
    return unit(projected)


def nearest(
    query: np.ndarray | sparse.spmatrix, codes: np.ndarray, vectors: np.ndarray | sparse.spmatrix, k: int = 10
) -> pd.Series:
    """The k products whose vectors are most like the query's (d,): similarities indexed by code, highest first.

    `vectors` are unit rows (products, d), dense or sparse, in the order of `codes`; ties keep that order. Fewer than k
    come back where fewer have anything in common with the query (a similarity above zero). ValueError: k < 1, codes not
    as many as the vectors, a query of another length.
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one product")
    if len(codes) != vectors.shape[0]:
        raise ValueError(
            f"{len(codes)} codes for {vectors.shape[0]} vectors: there must be one each, in the same order"
        )
    query = np.asarray(query.todense() if isinstance(query, sparse.spmatrix | sparse.sparray) else query).ravel()
    if query.shape != vectors.shape[1:]:
        raise ValueError(f"the query has {query.size} dimensions, the products have {vectors.shape[1]}")
    similarities = vectors @ query
    best = np.argsort(-similarities.round(6), kind="stable")[:k]
    best = best[similarities[best] > 0]
    return pd.Series(similarities[best], index=np.asarray(codes)[best], name="similarity")


def neighbours(vectors: np.ndarray, k: int = 10, block: int = 1024) -> np.ndarray:
    """Row numbers of each product's k most similar others, most similar first: (products, k), itself left out.

    Works through `block` products at a time, so memory is block × products. Ties go to the lower row.
    """
    products = vectors.shape[0]
    if not 1 <= k < products:
        raise ValueError(f"k must be from 1 to {products - 1} for {products} products, not {k}")
    found = np.empty((products, k), dtype=np.int64)
    for start in range(0, products, block):
        similar = vectors[start : start + block] @ vectors.T  # (block, products)
        similar = similar.toarray() if sparse.issparse(similar) else similar
        rows = np.arange(similar.shape[0])
        similar[rows, start + rows] = -np.inf
        found[start + rows] = np.argsort(-similar.round(6), axis=1, kind="stable")[:, :k]
    return found


def profile_scores(counts: sparse.csr_matrix, vectors: np.ndarray, sharpness: float = 1) -> np.ndarray:
    """How well each product's text fits what a shopper bought: (shoppers, products) float32, bigger is better.

    The sum, over the distinct products that the shopper bought, of similarity to the power `sharpness`. Similarities
    below zero count as none; but for that, the sum at 1 ranks as the mean of the bought vectors does. The higher the
    power, the more the nearest bought product decides alone. `counts` is (shoppers, products), `vectors` unit rows
    (products, d).
    """
    similarity = vectors @ vectors.T
    similarity = similarity.toarray() if sparse.issparse(similarity) else similarity
    return (counts > 0).astype(np.float32) @ np.maximum(similarity, 0) ** sharpness


def with_text(scores: np.ndarray, text: np.ndarray, weight: float) -> np.ndarray:
    """Another method's scores plus `weight` times text scores, each in standard deviations: (shoppers, products).

    A shopper's scores are divided by their spread, so that a weight means the same for any method and any shopper.
    """
    return _in_spreads(scores) + weight * _in_spreads(text)


def _in_spreads(scores: np.ndarray) -> np.ndarray:
    spread = scores.std(axis=1, keepdims=True)
    return scores / np.where(spread > 0, spread, 1)


def tsne_map(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """A map of the products by t-SNE, (products, 2): it keeps neighbours near and says nothing about far distances.

    Deterministic in the seed on one machine. Seconds grow with the products: about two for a thousand.
    Source: van der Maaten and Hinton (2008).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    components = min(50, *vectors.shape)
    compact = PCA(components, random_state=seed).fit_transform(vectors)
    perplexity = min(30, (len(vectors) - 1) / 3)
    with threadpool_limits(1):  # many small steps: a second thread costs more than it brings on a busy machine
        return TSNE(init="pca", perplexity=perplexity, max_iter=600, random_state=seed).fit_transform(compact)
