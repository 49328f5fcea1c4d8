"""Baselines against hand-computed cases, limits, scikit-learn, and EASE against the problem that defines it."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity

from recbook.baselines import evaluation, metrics, models

CUT = pd.Timestamp("2011-03-01")


def split_of(lines, min_shoppers=1):
    """A split at CUT from (shopper, days before the cut, codes); every shopper buys A at the cut."""
    rows = [
        {"invoice": f"{number:03}", "customer": shopper, "code": code, "date": CUT - pd.Timedelta(days=days)}
        for number, (shopper, days, codes) in enumerate(lines)
        for code in codes
    ]
    shoppers = sorted({shopper for shopper, _, _ in lines})
    rows += [{"invoice": f"9{shopper}", "customer": shopper, "code": "A", "date": CUT} for shopper in shoppers]
    receipts = pd.DataFrame(rows).sort_values("date", kind="stable")
    names = {"A": "RED MUG", "B": "BLUE MUG", "C": "RED LAMP", "D": "GARDEN GNOME"}
    return evaluation.next_basket(receipts.assign(description=receipts["code"].map(names)), CUT, min_shoppers)


@pytest.fixture
def split():
    return split_of([(1, 100, "AB"), (1, 60, "A"), (2, 28, "BC"), (3, 29, "AD"), (3, 1, "C"), (3, 0.5, "C")])


def test_popularity_counts_shoppers_not_invoices(split):
    assert models.popularity(split).tolist() == [[2, 2, 2, 1]] * 3
    assert models.popularity(split).dtype == np.float32


def test_recent_popularity_ends_at_the_window(split):
    """28 days before the cut is inside, 29 is not."""
    assert models.recent_popularity(split).tolist() == [[0, 1, 2, 0]] * 3
    assert models.popularity(split, days=29)[0].tolist() == [1, 1, 2, 1]


def test_personal_frequency_by_hand(split):
    ranking = metrics.rank(models.personal_frequency(split), 4)
    assert split.codes[ranking[0]].tolist() == ["A", "B", "C", "D"]  # 2 invoices, 1, then the recently popular
    assert split.codes[ranking[1]].tolist() == ["C", "B", "A", "D"]  # B and C once each: C is more popular lately
    whole = np.floor(models.personal_frequency(split))
    assert (whole == split.counts.toarray()).all()  # popularity only ever breaks ties


def test_cosine_similarity_equals_scikit_learn():
    X = sparse.random(50, 20, density=0.3, random_state=0, format="csr", dtype=np.float32)
    theirs = cosine_similarity(X.T)
    np.fill_diagonal(theirs, 0)
    np.testing.assert_allclose(models.cosine_similarity(X), theirs, atol=1e-6)


def test_cosine_of_a_product_that_nobody_bought_is_zero():
    assert not models.cosine_similarity(sparse.csr_matrix(np.array([[1.0, 0], [1, 0]]))).any()


def test_item_knn_by_hand(split):
    """Rows of who bought what: AB, BC, ACD. Shopper 1 owns A and B."""
    half, root = 1 / 2, 1 / np.sqrt(2)
    cosine = np.array([[0, half, half, root], [half, 0, half, 0], [half, half, 0, root], [root, 0, root, 0]])
    np.testing.assert_allclose(models.item_knn(split), [cosine[0] + cosine[1], cosine[1] + cosine[2],
                                                           cosine[0] + cosine[2] + cosine[3]], atol=1e-6)  # fmt: skip


def test_item_knn_keeps_only_the_nearest(split):
    nearest = np.array([[0, 0, 0, 1], [1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 1, 0]])  # B is as near to A as to C: both stay
    full = models.cosine_similarity(models.shoppers_by_products(split))
    own = split.counts.toarray() > 0
    np.testing.assert_allclose(models.item_knn(split, neighbours=1), own @ (full * nearest).T, atol=1e-6)


@pytest.fixture(scope="module")
def purchases():
    rng = np.random.default_rng(4)
    return sparse.csr_matrix((rng.random((40, 8)) < rng.random(8)).astype(np.float32))


def test_ease_solves_the_problem_that_defines_it(purchases):
    """Zero diagonal, and off it the gradient of |X - XB|² + l2 |B|² is zero: a convex problem has no better B."""
    l2 = 3.0
    X, B = purchases.toarray().astype(float), models.ease_weights(purchases, l2).astype(float)
    gradient = -2 * X.T @ (X - X @ B) + 2 * l2 * B
    assert (B.diagonal() == 0).all()
    assert np.abs(gradient[~np.eye(8, dtype=bool)]).max() < 1e-4
    assert np.abs(gradient.diagonal()).min() > 0.1  # only the constraint keeps each product from predicting itself


@pytest.mark.parametrize("l2", [0.5, 200])
def test_ease_is_a_ridge_regression_per_product(purchases, l2):
    X, B = purchases.toarray(), models.ease_weights(purchases, l2)
    for product in range(X.shape[1]):
        others = np.delete(np.arange(X.shape[1]), product)
        ridge = Ridge(alpha=l2, fit_intercept=False).fit(X[:, others], X[:, product])
        np.testing.assert_allclose(B[others, product], ridge.coef_, atol=1e-4)


def test_ease_limits(purchases):
    """With infinite l2 the weights are the co-counts over l2; without any there may be no inverse."""
    together = (purchases.T @ purchases).toarray()
    np.fill_diagonal(together, 0)
    np.testing.assert_allclose(models.ease_weights(purchases, 1e7) * 1e7, together, atol=1e-2)
    with pytest.raises(ValueError, match="above zero"):
        models.ease_weights(purchases, 0)


def test_ease_scores_are_the_own_row_times_the_weights(split):
    X = models.shoppers_by_products(split)
    assert X.toarray().tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1]]
    np.testing.assert_allclose(models.ease(split, 5.0), X @ models.ease_weights(X, 5.0), atol=1e-6)


def test_recency_halves_every_half_life_since_the_last_purchase(split):
    fresh = models.recency(split, split.shoppers, half_life=60).toarray()
    assert fresh[0] == pytest.approx([0.5, 0.5 ** (100 / 60), 0, 0])  # A again after 100 days, 60 days ago
    assert fresh[2, 2] == pytest.approx(0.5 ** (0.5 / 60))
    assert models.recency(split, np.array([2])).toarray() == pytest.approx(0.5 ** (28 / 60) * np.array([[0, 1, 1, 0]]))


def test_recency_without_decay_is_who_bought_what(split):
    fresh = models.recency(split, split.shoppers, half_life=1e12).toarray()
    np.testing.assert_allclose(fresh, models.shoppers_by_products(split).toarray())


def test_blend_is_its_three_terms(split):
    R = models.recency(split, split.shoppers, 60).toarray()
    recent = np.array([0, 1, 2, 0])
    expected = R @ models.ease_weights(sparse.csr_matrix(R), 100) * np.sqrt(recent / 0.75)
    expected += np.log(1 + split.counts.toarray())
    np.testing.assert_allclose(models.blend(split), expected, atol=1e-6)


def test_text_profile_by_hand(split):
    """Shopper 1 owns RED MUG and BLUE MUG, so RED LAMP shares a word and GARDEN GNOME none."""
    scores = models.text_profile(split)
    assert scores[0, 0] > scores[0, 2] > scores[0, 3] == 0
    assert (scores <= 1 + 1e-6).all() and (scores >= 0).all()


def test_text_profile_of_one_product_is_its_cosine_to_the_others():
    split = split_of([(1, 5, "A"), (2, 5, "BCD")])
    np.testing.assert_allclose(models.text_profile(split)[0], models.description_similarity(split)[0], atol=1e-6)
    np.testing.assert_allclose(models.description_similarity(split).diagonal(), 1, atol=1e-6)


@pytest.mark.parametrize("name", models.BASELINES)
def test_every_method_scores_every_shopper_and_product(split, name):
    scores = models.BASELINES[name](split)
    assert scores.shape == split.counts.shape and scores.dtype == np.float32 and np.isfinite(scores).all()
    assert (scores == models.BASELINES[name](split)).all()


@pytest.mark.parametrize("name", models.BASELINES)
def test_no_method_looks_at_the_target(split, name):
    blind = evaluation.Split(split.cut, split.receipts, split.codes, split.shoppers, split.counts, split.targets * 0)
    assert (models.BASELINES[name](blind) == models.BASELINES[name](split)).all()


@pytest.mark.parametrize("name", models.BASELINES)
def test_every_method_lives_through_a_month_without_sales(name):
    quiet = split_of([(1, 200, "AB"), (2, 150, "BC"), (3, 100, "CD")])
    assert np.isfinite(models.BASELINES[name](quiet)).all()
