"""The rankers by text, by the BasketGPT and by a weighted sum; shoppers read from receipts."""

import numpy as np
import pandas as pd
import pytest

from recbook.ranking.rankers import (
    BasketGPTRanker,
    BlendedRanker,
    Shopper,
    TextRanker,
    rank_candidates,
    shoppers_at,
    standardized,
)
from recbook.search.index import build_index

CODES = ["A", "B", "C", "D"]
VECTORS = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]], np.float32)
NOBODY = Shopper([], pd.Timestamp("2011-11-09"))
HISTORY = [("2011-01-02", ["A", "gone"]), ("2011-02-03", ["C"])]


def words(texts):
    """Two words, two axes."""
    return np.array([[text.count("east"), text.count("north")] for text in texts], np.float32)


def by_text():
    return TextRanker(build_index(CODES, VECTORS), words)


class Fixed:
    """A ranker with fixed scores."""

    def __init__(self, **scores):
        self.scores = scores

    def score(self, shopper, query, candidates):
        return np.array([self.scores[code] for code in candidates], float)


def test_text_scores_are_cosines_to_the_query():
    scores = by_text().score(NOBODY, "east", ["D", "B", "A"])
    assert scores == pytest.approx([-1.0, 0.8, 1.0])
    assert by_text().score(NOBODY, "east north", ["B"]) == pytest.approx([(0.8 + 0.6) / np.sqrt(2)])


def test_without_a_query_the_mean_of_what_was_bought_is_asked():
    shopper = Shopper(HISTORY, NOBODY.when)  # A and C; what the index does not hold is left out
    assert by_text().score(shopper, None, CODES) == pytest.approx(VECTORS @ [np.sqrt(0.5), np.sqrt(0.5)], abs=1e-6)


def test_without_query_and_history_all_texts_are_alike():
    assert by_text().score(NOBODY, None, CODES).tolist() == [0, 0, 0, 0]


def test_an_unknown_candidate_is_named():
    with pytest.raises(KeyError, match="'X'"):
        by_text().score(NOBODY, "east", ["A", "X"])


def test_standardized_scores_have_mean_zero_and_deviation_one():
    scaled = standardized(np.array([-700.0, -300.0, 100.0]))
    assert scaled == pytest.approx(np.array([-1, 0, 1]) * np.sqrt(1.5))
    assert standardized(np.full(3, 0.1)).tolist() == [0, 0, 0]


def test_a_blend_weighs_standardized_scores():
    small, large = Fixed(A=0.1, B=0.2, C=0.3), Fixed(A=100.0, B=-100.0, C=0.0)
    both = BlendedRanker([(small, 1.0), (large, 2.0)])
    unit = np.sqrt(1.5)
    assert both.score(NOBODY, None, ["A", "B", "C"]) == pytest.approx([-unit + 2 * unit, -2 * unit, unit])


def test_best_are_sorted_and_equals_keep_their_order():
    table = rank_candidates(Fixed(A=1.0, B=2.0, C=1.0, D=0.0), NOBODY, None, ["C", "D", "A", "B"], k=3)
    assert table["code"].tolist() == ["B", "C", "A"] and table["score"].tolist() == [2, 1, 1]


class Model:
    """A BasketGPT as far as a ranker looks at it: two products known, the score of a product the day asked about."""

    def __init__(self):
        from recbook.baskets.catalogue import Catalogue

        self.catalogue = Catalogue({"A": "A THING", "B": "ANOTHER"})

    def score(self, histories, when):
        assert histories == [HISTORY] and when == NOBODY.when
        return np.array([[-1.0, -2.0]])


def test_the_basket_gpt_scores_candidates_in_their_order():
    ranker = BasketGPTRanker(Model())
    assert ranker.score(Shopper(HISTORY, NOBODY.when), "ignored", ["B", "A"]).tolist() == [-2, -1]
    with pytest.raises(ValueError, match="'X', 'Y'"):
        ranker.score(Shopper(HISTORY, NOBODY.when), None, ["X", "A", "Y"])


def receipts():
    lines = [
        (7, "2", "2011-03-01 09:00", "B", "France"), (7, "1", "2011-01-05 10:00", "A", "Spain"),
        (7, "1", "2011-01-05 10:00", "C", "Spain"), (7, "1", "2011-01-05 10:00", "A", "Spain"),
        (7, "3", "2011-11-09 00:00", "D", "Italy"), (8, "4", "2011-02-01 12:00", "D", "Spain"),
    ]  # fmt: skip
    table = pd.DataFrame(lines, columns=["customer", "invoice", "date", "code", "country"])
    return table.assign(date=pd.to_datetime(table["date"]))


def test_a_shopper_is_their_baskets_before_the_cut_oldest_first():
    (second, first) = shoppers_at(receipts(), [8, 7], NOBODY.when)
    assert first.history == [
        (pd.Timestamp("2011-01-05 10:00"), ["A", "C"]), (pd.Timestamp("2011-03-01 09:00"), ["B"])
    ]  # fmt: skip
    assert first.country == "France" and second.history[0][1] == ["D"]


def test_a_customer_without_a_purchase_is_named():
    with pytest.raises(KeyError, match="customer 9"):
        shoppers_at(receipts(), [7, 9], NOBODY.when)
