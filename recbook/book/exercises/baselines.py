"""Checks of Chapter 2: recall, the next basket, ranking what is new, one column of EASE."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _recall_at(ranking, basket, k):
    return sum(product in basket for product in ranking[:k]) / len(basket)


def _next_baskets(baskets, cut, first=min, at_the_cut=True, strangers=False):
    known = {customer for customer, date, _ in baskets if date < cut}
    later = {}
    for customer, date, codes in baskets:
        if (date >= cut if at_the_cut else date > cut) and (strangers or customer in known):
            later.setdefault(customer, []).append((date, codes))
    return {customer: set(first(visits)[1]) for customer, visits in later.items()}


def _explore_list(scores, bought, k):
    new = [position for position in range(len(scores)) if not bought[position]]
    return sorted(new, key=lambda position: (-scores[position], position))[:k]


def _ease_column(X, j, l2):
    X = np.asarray(X, dtype=float)
    P = np.linalg.inv(X.T @ X + l2 * np.eye(X.shape[1]))
    weights = -P[:, j] / P[j, j]
    weights[j] = 0
    return weights


def _with_itself(X, j, l2):
    return np.linalg.solve(X.T @ X + l2 * np.eye(X.shape[1]), X.T @ X[:, j])


def _unpenalised(X, j, l2):
    others = np.delete(X, j, axis=1)
    return np.insert(np.linalg.lstsq(others, X[:, j], rcond=None)[0], j, 0)


def _row_divided(X, j, l2):
    P = np.linalg.inv(X.T @ X + l2 * np.eye(X.shape[1]))
    weights = -P[:, j] / P.diagonal()
    weights[j] = 0
    return weights


RANKING = ["mug", "lamp", "saucer", "teapot", "clock", "tray"]
VISITS = [
    (1, "2011-10-01", ["A", "B"]),
    (1, "2011-11-20", ["C"]),
    (1, "2011-11-09", ["A", "D"]),  # on the day of the cut, and not in time order
    (2, "2011-11-10", ["A"]),  # unknown before the cut
    (3, "2011-09-01", ["E"]),  # never comes back
    (4, "2011-11-08", ["F"]),
    (4, "2011-12-01", ["F", "G"]),
    (4, "2011-12-05", ["H"]),
    (5, "2011-10-10", ["I"]),
    (5, "2011-12-07", ["J"]),
    (5, "2011-12-06", ["K"]),
]
SHELF = np.random.default_rng(0).integers(0, 4, 60).astype(float)  # so many ties that an unstable sort shows
PURCHASES = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 1.0]])

EXERCISES = [
    Exercise(
        "2.2",
        _recall_at,
        cases=[
            (RANKING, {"lamp", "teapot", "cushion"}, 5),
            (RANKING, {"lamp", "teapot", "cushion"}, 2),
            (RANKING, {"clock", "tray"}, 3),
            (RANKING, {"mug", "lamp", "saucer", "teapot"}, 2),
            (RANKING, {"mug"}, 100),
        ],
        mistakes=[
            Mistake(
                lambda ranking, basket, k: _recall_at(ranking, basket, k) * len(basket) / k,
                "you divided by the length of the list: that is precision. Divide by the size of the basket.",
            ),
            Mistake(
                lambda ranking, basket, k: _recall_at(ranking, basket, len(ranking)),
                "you looked at the whole ranking: only its first k count.",
            ),
            Mistake(
                lambda ranking, basket, k: len(set(ranking[:k]) & basket) / min(k, len(basket)),
                "you divided by the best that k places can hold. Recall divides by the whole basket.",
            ),
        ],
    ),
    Exercise(
        "2.3",
        _next_baskets,
        cases=[
            (VISITS, "2011-11-09"),
            (VISITS, "2011-11-10"),
            (VISITS[::-1], "2011-12-01"),
            (VISITS, "2010-01-01"),
            ([], "2011-11-09"),
        ],
        mistakes=[
            Mistake(
                lambda baskets, cut: _next_baskets(baskets, cut, at_the_cut=False),
                "a basket on the day of the cut belongs to the future: compare with >=.",
            ),
            Mistake(
                lambda baskets, cut: _next_baskets(baskets, cut, strangers=True),
                "somebody without a basket before the cut has no history to recommend from: leave them out.",
            ),
            Mistake(
                lambda baskets, cut: _next_baskets(baskets, cut, first=max),
                "you kept a later basket: the target is the first one in time.",
            ),
            Mistake(
                lambda baskets, cut: _next_baskets(baskets, cut, first=lambda visits: visits[0]),
                "the baskets come in any order: sort by date before you take the first.",
            ),
        ],
    ),
    Exercise(
        "2.4",
        _explore_list,
        cases=[
            (np.array([0.2, 0.9, 0.5, 0.9, 0.1]), np.array([False, True, False, False, False]), 2),
            (np.array([1.0, 1.0, 1.0, 1.0]), np.array([True, False, False, False]), 2),
            (np.array([-1.0, -3.0, -2.0]), np.array([False, False, True]), 2),
            (np.array([3.0, 2.0, 1.0]), np.array([True, True, False]), 2),
            (np.array([3.0, 2.0]), np.array([True, True]), 1),
            (SHELF, np.arange(60) % 3 == 0, 25),
        ],
        mistakes=[
            Mistake(
                lambda scores, bought, k: [int(i) for i in np.argsort(-np.asarray(scores), kind="stable")[:k]],
                "products that were bought are still on the list.",
            ),
            Mistake(
                lambda scores, bought, k: [int(i) for i in np.argsort(-np.where(bought, 0, scores), kind="stable")[:k]],
                "a score of zero does not take a product off the list: others may be below zero, or too few.",
            ),
            Mistake(
                lambda scores, bought, k: [
                    int(i) for i in np.argsort(-np.where(bought, -np.inf, scores), kind="stable")[:k]
                ],
                "minus infinity puts what was bought last, not away: where few are new, k places still reach it.",
            ),
            Mistake(
                lambda scores, bought, k: [int(i) for i in np.argsort(scores, kind="stable")[::-1] if not bought[i]][
                    :k
                ],
                "equal scores come out backwards: sort the negated scores instead of reversing.",
            ),
            Mistake(
                lambda scores, bought, k: [
                    int(i) for i in np.argsort(-np.asarray(scores), kind="stable")[:k] if not bought[i]
                ],
                "leave out what was bought first, then take k; the other way round the list gets too short.",
            ),
        ],
    ),
    Exercise(
        "2.5",
        _ease_column,
        cases=[(PURCHASES, 0, 0.5), (PURCHASES, 2, 0.5), (PURCHASES, 3, 20.0), (PURCHASES[:, :2], 1, 1.0)],
        mistakes=[
            Mistake(_with_itself, "product j helps to predict itself: delete its column before you solve."),
            Mistake(_unpenalised, "where is the penalty? Add l2 to the diagonal of the others' Gram matrix."),
            Mistake(
                _row_divided, "the divisor is that of the predicted product: P[j, j], the same for the whole column."
            ),
        ],
    ),
]
