"""MMR against its definition, complements against counting by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbook.baselines import metrics
from recbook.ranking.diversity import Complements, mmr

EYE = np.eye(4, dtype=np.float32)


def greedy(scores, similarity, k, trade):
    """The definition, one candidate at a time."""
    worth = (scores - scores.min()) / np.ptp(scores)
    picks = []
    while len(picks) < k:
        left = [i for i in range(len(scores)) if i not in picks]
        value = {i: trade * worth[i] - (1 - trade) * max((similarity[i, j] for j in picks), default=0.0) for i in left}
        picks.append(max(left, key=lambda i: (value[i], -i)))
    return picks


@given(st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_mmr_is_its_definition(seed, trade):
    rng = np.random.default_rng(seed)
    unit = rng.standard_normal((9, 4))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scores = rng.standard_normal(9)
    assert mmr(scores, unit @ unit.T, 5, trade).tolist() == greedy(scores, unit @ unit.T, 5, trade)


def test_mmr_with_all_weight_on_scores_is_their_order():
    scores = np.array([0.2, 0.9, 0.1, 0.5])
    assert mmr(scores, np.ones((4, 4)), 10, trade=1.0).tolist() == [1, 3, 0, 2]


def test_mmr_leaves_out_a_duplicate():
    scores, similarity = np.array([1.0, 0.99, 0.5]), np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1.0]])
    assert mmr(scores, similarity, 2, trade=0.5).tolist() == [0, 2]


def test_mmr_makes_lists_more_diverse():
    rng = np.random.default_rng(0)
    unit = rng.standard_normal((50, 5))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scores, similarity = unit @ unit[0], unit @ unit.T
    plain, mixed = (mmr(scores, similarity, 10, trade)[None] for trade in (1.0, 0.5))
    assert metrics.intra_list_diversity(mixed, similarity) > metrics.intra_list_diversity(plain, similarity) + 0.1


def test_mmr_refuses_a_weight_outside_and_takes_few_or_equal():
    with pytest.raises(ValueError, match="trade is 1.5"):
        mmr(np.ones(2), np.eye(2), 2, 1.5)
    assert mmr(np.array([]), np.zeros((0, 0)), 3).tolist() == []
    assert mmr(np.full(3, 2.0), np.eye(3), 3).tolist() == [0, 1, 2]


def receipts():
    """Four baskets: A with B twice, A with C once, D alone; a line that comes twice counts once."""
    baskets = [["A", "B"], ["A", "B", "B"], ["A", "C"], ["D"], ["other"]]
    lines = [(str(number), code) for number, basket in enumerate(baskets) for code in basket]
    return pd.DataFrame(lines, columns=["invoice", "code"])


def complements(prior=1.0):
    return Complements(receipts(), ["A", "B", "C", "D"], EYE, prior)


def test_lift_is_counted_by_hand():
    counted = complements().lift("A")  # A is in 3 of 4 baskets, B in 2, C and D in 1
    expected = [0.0, np.log((2 + 1) / (3 * 2 / 4 + 1)), np.log((1 + 1) / (3 / 4 + 1)), np.log(1 / (3 / 4 + 1))]
    assert counted == pytest.approx(expected)


def test_a_larger_prior_shrinks_the_lift():
    assert np.abs(complements(100.0).lift("A")).max() < 0.05 < np.abs(complements().lift("A")).max()


def test_products_seen_come_last_and_lifts_are_averaged():
    found = complements()
    score = found.score(["A", "C"], unlike=0.0)
    assert score[[0, 2]].tolist() == [-np.inf, -np.inf]
    assert score[1] == pytest.approx((found.lift("A")[1] + found.lift("C")[1]) / 2)


def test_a_similar_description_counts_against_a_complement():
    alike = EYE.copy()
    alike[1] = alike[0]  # B reads as A does
    found = Complements(receipts(), ["A", "B", "C", "D"], alike, 1.0)
    plain, unlike = found.score(["A"], unlike=0.0), found.score(["A"], unlike=1.0)
    assert unlike[1] == pytest.approx(plain[1] - found.lift("A").std()) and unlike[2] == pytest.approx(plain[2])


def test_what_cannot_be_asked_is_named():
    with pytest.raises(KeyError, match="'X'"):
        complements().score(["A", "X"])
    with pytest.raises(ValueError, match="nothing was seen"):
        complements().score([])
