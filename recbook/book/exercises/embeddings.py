"""Checks of Chapter 3: cosine, word weights, nearest rows, interests."""

import math

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def cosine(a, b):
    """The cosine of the angle between two vectors; 0 where one is zero."""
    lengths = math.sqrt((a * a).sum() * (b * b).sum())
    return 0.0 if lengths == 0 else float((a * b).sum() / lengths)


def _divides_by_zero(a, b):
    with np.errstate(all="ignore"):
        return float(np.float64(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)))


def _halfway_normalised(a, b):
    length = np.linalg.norm(a)
    return float(a @ b / length) if length > 0 else 0.0


def word_weights(texts):
    """Each word of the texts, in lower case, to its inverse document frequency."""
    split = [set(text.lower().split()) for text in texts]
    return {
        word: 1 + math.log((1 + len(texts)) / (1 + sum(word in words for words in split)))
        for word in set().union(*split)
    }


def _counts_repeats(texts):
    listed = [word for text in texts for word in text.lower().split()]
    return {word: 1 + math.log((1 + len(texts)) / (1 + listed.count(word))) for word in listed}


def _keeps_capitals(texts):
    split = [set(text.split()) for text in texts]
    return {
        word: 1 + math.log((1 + len(texts)) / (1 + sum(word in words for words in split)))
        for word in set().union(*split)
    }


def _unsmoothed(texts):
    split = [set(text.lower().split()) for text in texts]
    return {word: math.log(len(texts) / sum(word in words for words in split)) for word in set().union(*split)}


def nearest_rows(vectors, row, k):
    """The k rows most similar to row `row`, itself left out, best first."""
    others = [i for i in range(len(vectors)) if i != row]
    return sorted(others, key=lambda i: (-round(cosine(vectors[i], vectors[row]), 9), i))[:k]


def _with_itself(vectors, row, k):
    return sorted(range(len(vectors)), key=lambda i: (-round(cosine(vectors[i], vectors[row]), 9), i))[:k]


def _by_dot_product(vectors, row, k):
    others = [i for i in range(len(vectors)) if i != row]
    return sorted(others, key=lambda i: (-round(float(vectors[i] @ vectors[row]), 9), i))[:k]


def _farthest_first(vectors, row, k):
    others = [i for i in range(len(vectors)) if i != row]
    return sorted(others, key=lambda i: (round(cosine(vectors[i], vectors[row]), 9), i))[:k]


def interest_scores(vectors, bought):
    """For each product its largest cosine to any product that was bought."""
    scores = np.array([max(float(vector @ vectors[b]) for b in bought) for vector in vectors])
    return np.where(np.isin(np.arange(len(vectors)), bought), -np.inf, scores)


def _mean_of_interests(vectors, bought):
    scores = (vectors @ vectors[bought].T).mean(axis=1)
    scores[bought] = -np.inf
    return scores


def _keeps_what_was_bought(vectors, bought):
    return (vectors @ vectors[bought].T).max(axis=1)


def _unit(rows: list[list[float]]) -> np.ndarray:
    vectors = np.array(rows, dtype=float)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


_SCATTERED = np.random.default_rng(3).normal(size=(12, 4)) * np.arange(1, 13)[:, None]  # rows of many lengths

EXERCISES = [
    Exercise(
        "3.2",
        cosine,
        [
            (np.array([1.0, 0.0]), np.array([2.0, 0.0])),
            (np.array([1.0, 2.0]), np.array([2.0, -1.0])),
            (np.array([3.0, 4.0]), np.array([4.0, 3.0])),
            (np.array([0.0, 0.0]), np.array([1.0, 1.0])),
            (np.array([1.0, 1.0]), np.array([0.0, 0.0])),
            (np.array([1.0, -2.0, 0.5]), np.array([-2.0, 4.0, -1.0])),
        ],
        [
            Mistake(lambda a, b: float(a @ b), "That is the dot product. Divide it by both lengths."),
            Mistake(_divides_by_zero, "A vector of zeros has length zero, and dividing by it gives NaN. Ask first."),
            Mistake(_halfway_normalised, "Divide by both lengths, not by one."),
        ],
    ),
    Exercise(
        "3.3",
        word_weights,
        [
            (["red mug", "red pot", "blue pot"],),
            (["Red red RED mug", "blue mug"],),
            (["mug"],),
            (["tea for two", "TEA", "two two", "coffee", "cosy tea"],),
        ],
        [
            Mistake(_counts_repeats, "Count texts, not occurrences: a word counts once per text, so take a set."),
            Mistake(_keeps_capitals, "`Red` and `red` are one word: lower-case the text first."),
            Mistake(_unsmoothed, "That is ln(n / d). The formula adds one in three places."),
        ],
    ),
    Exercise(
        "3.4",
        nearest_rows,
        [
            (np.array([[1.0, 0.0], [9.0, 9.0], [2.0, 0.1], [-1.0, 0.0]]), 0, 2),
            (np.array([[1.0, 1.0], [0.0, 5.0], [1.0, 1.0], [3.0, 3.0]]), 2, 3),
            (np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]), 2, 1),
            (_SCATTERED, 4, 5),
            (_SCATTERED, 0, 11),
        ],
        [
            Mistake(_with_itself, "A row is most similar to itself: leave it out."),
            Mistake(_by_dot_product, "Rows of different lengths: scale them to length one before you multiply."),
            Mistake(_farthest_first, "`argsort` goes from the smallest up. Sort the negative similarities."),
        ],
    ),
    Exercise(
        "3.5",
        interest_scores,
        [
            (_unit([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9], [1, 1]]), [0, 2]),
            (_unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 3]]), [1]),
            (_unit(_SCATTERED.tolist()), [3, 7, 9]),
        ],
        [
            Mistake(_mean_of_interests, "You average over what was bought. Take the largest similarity instead."),
            Mistake(_keeps_what_was_bought, "What was bought is most similar to itself: set it to minus infinity."),
        ],
    ),
]
