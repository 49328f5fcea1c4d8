"""clues, knowledge: against slow loops, pandas, the baselines' EASE, and a future that must change nothing."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recbook.baselines import models
from recbook.baskets.item_features import (
    EASE_L2,
    RELATED_FEATURES,
    FeatureBatch,
    ShopFeatures,
    related_items,
    strongest,
)
from recbook.baskets.log import InteractionLog, PredictionPoints, log_of_histories, prediction_points
from recbook.baskets.shopper_features import (
    ITEM_FEATURES,
    USER_FEATURES,
    USER_ITEM_FEATURES,
    UserItemFeatures,
    item_features,
    on_sale_from,
    positions,
    user_features,
    user_item_features,
)

ORIGIN = pd.Timestamp("2011-03-04")


def made_up(seed: int = 0, shoppers: int = 20, products: int = 9, until: float = 70.0) -> InteractionLog:
    """Baskets of one to four products; the last product is never sold."""
    rng = np.random.default_rng(seed)
    people = []
    for _ in range(shoppers):
        days = np.sort(rng.uniform(0, until, rng.integers(1, 7)))
        people.append([(day, rng.choice(products - 1, rng.integers(1, 5), replace=False)) for day in days])
    return log_of_histories(people, products, ORIGIN)


def basket(log: InteractionLog, b: int) -> list[int]:
    return log.items[log.starts[b] : log.starts[b + 1]].tolist()


def lines(log: InteractionLog) -> list[tuple[int, float, int]]:
    """(shopper, day, product), by slicing alone."""
    return [(int(log.first[b]), float(log.days[b]), item) for b in range(len(log.days)) for item in basket(log, b)]


def shuffled_after(log: InteractionLog, day: float, seed: int = 5) -> InteractionLog:
    """The same log with other products on every line from `day` on."""
    _, days, items = log.lines
    other = np.random.default_rng(seed).integers(0, log.products, len(items))
    changed = copy.copy(log)
    object.__setattr__(changed, "items", np.where(days >= day, other, items))
    return changed


@pytest.fixture(scope="module")
def log() -> InteractionLog:
    return made_up()


@pytest.fixture(scope="module")
def asked(log) -> PredictionPoints:
    return prediction_points(log, 5.0, seed=3)


@pytest.fixture(scope="module")
def bought(log, asked) -> UserItemFeatures:
    return user_item_features(log, asked)


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    vectors = np.random.default_rng(1).normal(0, 1, (9, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def knowledge(log, text) -> ShopFeatures:
    return ShopFeatures(log, text, refresh=14.0, nearest=4, solved=6)


# Of a shopper and of what they bought


def of_one(log: InteractionLog, first: int, end: int, day: float, item: int) -> list[float]:
    """The clues of one product, from the definitions."""
    seen = [b for b in range(first, end) if item in basket(log, b)]
    count, since, recency = len(seen), end - 1 - seen[-1], max(day - log.days[seen[-1]], 0)
    counts = [sum(0.5 ** ((day - log.days[b]) / half) for b in seen) for half in (15, 45, 120)]
    gap = (log.days[seen[-1]] - log.days[seen[0]]) / (count - 1) if count > 1 else None
    overdue = -1 if gap is None else math.tanh(recency / (gap + 7) - 1)
    shares = [count / (end - first), count / (end - seen[0])]
    times = [math.exp(-recency / 30), math.log1p(recency) / 3, overdue]
    return [math.log(count), *shares, since == 0, math.log1p(since), *counts, *times]


def test_of_bought_is_the_definitions_product_by_product(log, asked, bought):
    assert len(bought.starts) == len(asked.day) + 1 and bought.clues.shape[1] == len(USER_ITEM_FEATURES)
    for q, (first, end, day) in enumerate(zip(*asked, strict=True)):
        stretch = slice(bought.starts[q], bought.starts[q + 1])
        distinct = sorted({item for b in range(first, end) for item in basket(log, b)})
        assert bought.items[stretch].tolist() == distinct
        by_hand = np.array([of_one(log, first, end, day, i) for i in distinct]).reshape(-1, len(USER_ITEM_FEATURES))
        np.testing.assert_allclose(bought.clues[stretch], by_hand, atol=1e-5)
        latest = {item: log.days[b] for b in range(first, end) for item in basket(log, b)}
        fresh = [0.5 ** ((day - latest[i]) / models.HALF_LIFE) for i in distinct]
        np.testing.assert_allclose(bought.fresh[stretch], fresh, atol=1e-5)
        assert bought.last[stretch].tolist() == [end > first and i in basket(log, end - 1) for i in distinct]


def test_bought_of_questions_in_any_order_with_stretches_of_any_kind(log):
    asked = PredictionPoints(np.array([5, 0, 0, 0]), np.array([5, 2, 0, 1]), np.array([30.0, 71.0, 5.0, 71.0]))
    bought = user_item_features(log, asked)
    sizes = [len({i for b in range(f, e) for i in basket(log, b)}) for f, e, _ in zip(*asked, strict=True)]
    assert np.diff(bought.starts).tolist() == sizes and sizes[0] == sizes[2] == 0


def test_of_shoppers_is_the_definitions_question_by_question(log, asked):
    found = user_features(log, asked)
    assert found.shape == (len(asked.day), len(USER_FEATURES))
    for row, (first, end, day) in zip(found, zip(*asked, strict=True), strict=True):
        count, size = end - first, sum(len(basket(log, b)) for b in range(first, end))
        last, since = (len(basket(log, end - 1)), day - log.days[end - 1]) if count else (0, 0)
        year = 2 * math.pi * (day + log.origin.day_of_year) / 365.25
        counted = [math.log1p(count), math.log1p(size) / 3, math.log1p(size / max(count, 1)) / 2, math.log1p(last) / 2]
        by_hand = [*counted, math.log1p(since) / 2, math.sin(year), math.cos(year)]
        np.testing.assert_allclose(row, by_hand, atol=1e-5)


def test_matrix_holds_a_column_of_the_questions_asked_for(bought):
    rows = np.array([4, 0, 4, 7])
    found = bought.matrix(bought.fresh, rows, 9).toarray()
    by_hand = np.zeros((4, 9))
    for place, q in enumerate(rows):
        for pair in range(bought.starts[q], bought.starts[q + 1]):
            by_hand[place, bought.items[pair]] = bought.fresh[pair]
    np.testing.assert_allclose(found, by_hand)
    apart = bought.matrix(bought.fresh, rows, 9, look=np.array([1, 0, 2, 1])).toarray().reshape(4, 3, 9)
    np.testing.assert_allclose(apart.sum(axis=1), by_hand)
    assert (apart[[0, 2, 3], 0] == 0).all() and (apart[[0, 1, 3], 2] == 0).all()


def test_positions_go_through_stretches_one_after_the_other():
    at, starts = positions(np.array([5, 2, 9]), np.array([7, 2, 12]))
    assert at.tolist() == [5, 6, 9, 10, 11] and starts.tolist() == [0, 2, 2, 5]


# Of every product


def test_trends_count_what_sold_before_each_day(log):
    days = 75
    found = item_features(log, days)
    assert found.shape == (days + 1, log.products, len(ITEM_FEATURES))
    sales = [(math.floor(day), item) for _, day, item in lines(log)]
    for today in (0, 1, 7, 30, 57, days):
        for product in range(log.products):
            before = [day for day, item in sales if item == product and day < today]
            sold = [math.log1p(sum(day >= today - window for day in before)) for window in (7, 28, 90, 1000)]
            past = math.log1p(sum(today - 56 <= day < today - 28 for day in before))
            age = math.log1p(today - min(before)) / 3 if before else 0
            np.testing.assert_allclose(found[today, product], [*sold, age, sold[1] - past], atol=5e-3)


@pytest.mark.parametrize("day", [1, 20, 43])
def test_trends_of_a_day_know_nothing_of_that_day_or_later(log, day):
    changed = item_features(shuffled_after(log, day), 75)
    known = item_features(log, 75)
    np.testing.assert_array_equal(known[: day + 1], changed[: day + 1])
    assert (known[day + 1 :] != changed[day + 1 :]).any(), "the case must change something"


@pytest.mark.parametrize("shoppers", [1, 2, 5, 21])
def test_a_product_is_on_sale_from_the_day_that_pandas_finds(log, shoppers):
    table = pd.DataFrame(lines(log), columns=["shopper", "day", "item"])
    firsts = table.groupby(["item", "shopper"])["day"].min().groupby("item").apply(sorted)
    by_hand = [firsts.get(i, [])[shoppers - 1 : shoppers] or [np.inf] for i in range(log.products)]
    np.testing.assert_allclose(on_sale_from(log, shoppers), np.ravel(by_hand))


def test_neighbours_are_the_blend_s_ease_and_the_share_of_buyers(log):
    day, nearest, solved = 50.0, 4, 6
    ease, share = related_items(log, day, nearest, solved)
    fresh = np.zeros((len(log.days), log.products))
    for shopper, when, item in lines(log):
        if when < day:
            fresh[shopper, item] = max(fresh[shopper, item], 0.5 ** ((day - when) / models.HALF_LIFE))
    buyers = (fresh > 0).sum(axis=0)
    most = sorted(range(log.products), key=lambda i: (-buyers[i], i))[:solved]
    weights = np.zeros((log.products, log.products))
    weights[np.ix_(sorted(most), sorted(most))] = models.ease_weights(
        sparse.csr_matrix(fresh[:, sorted(most)]), EASE_L2
    )
    np.testing.assert_allclose(ease.toarray(), only_largest(weights, nearest, sorted(most)), atol=1e-6)
    together = fresh.T @ fresh
    by_hand = together / (together.diagonal()[:, None] + 1)
    np.fill_diagonal(by_hand, 0)
    np.testing.assert_allclose(share.toarray(), only_largest(by_hand, nearest, range(log.products)), atol=1e-6)


def only_largest(matrix: np.ndarray, number: int, columns) -> np.ndarray:
    """Each row's largest entries among `columns`, the rest zero."""
    columns, kept = list(columns), np.zeros_like(matrix)
    for i, row in enumerate(matrix):
        best = sorted(columns, key=lambda j: -row[j])[:number]
        kept[i, best] = row[best]
    return kept


def test_strongest_looks_at_rows_in_parts_and_keeps_the_largest():
    dense = np.random.default_rng(0).random((11, 7))
    found = strongest(sparse.csr_matrix(dense), 3, rows=4)
    np.testing.assert_allclose(found.toarray(), only_largest(dense, 3, range(7)), rtol=1e-6)
    np.testing.assert_allclose(strongest(sparse.csr_matrix(dense), 8).toarray(), dense, rtol=1e-6)


def test_neighbours_know_nothing_of_the_day_or_later(log):
    changed = related_items(shuffled_after(log, 40.0), 40.0, 4, 6)
    for known, other in zip(related_items(log, 40.0, 4, 6), changed, strict=True):
        np.testing.assert_array_equal(known.toarray(), other.toarray())


# All of it


def pieces(known: FeatureBatch) -> list[np.ndarray]:
    return [known.related, known.trend.astype(np.float32), known.bought]


def test_questions_of_mixed_days_are_answered_as_one_by_one(knowledge, bought, asked):
    rows = np.random.default_rng(0).permutation(len(asked.day))
    known = knowledge.about(bought, rows, asked.day[rows])
    assert known.related.shape == (len(rows), 9, len(RELATED_FEATURES))
    for place, row in enumerate(rows):
        alone = knowledge.about(bought, rows[place : place + 1], asked.day[row : row + 1])
        pairs = known.row == place
        np.testing.assert_allclose(known.related[place], alone.related[0], atol=1e-6)
        np.testing.assert_array_equal(known.trend[place], alone.trend[0])
        np.testing.assert_array_equal(known.item[pairs], alone.item)
        np.testing.assert_array_equal(known.bought[pairs], alone.bought)


def test_related_is_by_hand_what_the_last_look_says_of_what_was_bought(log, knowledge, bought, asked, text):
    rows = np.flatnonzero(asked.end - asked.first >= 2)
    known = knowledge.about(bought, rows, asked.day[rows])
    for place, q in enumerate(rows):
        looks = [look for look in knowledge.looks if look <= asked.day[q]]
        items = slice(bought.starts[q], bought.starts[q + 1])
        weights = np.zeros((2, 9))
        weights[:, bought.items[items]] = bought.fresh[items], bought.last[items]
        profiles = weights @ text
        cosines = [p @ text.T / max(np.linalg.norm(p), 1e-9) for p in profiles]
        np.testing.assert_allclose(known.related[place, :, 3:].T, cosines, atol=1e-5)
        together = np.zeros((3, 9))
        if looks:
            ease, share = (m.toarray() for m in related_items(log, looks[-1], 4, 6))
            shares = [w / w.sum() @ share for w in weights]
            together = np.array([weights[0] @ ease, *shares])
        np.testing.assert_allclose(known.related[place, :, :3].T, together, atol=1e-5)


@pytest.mark.parametrize("day", [20.5, 45.0])
def test_what_is_known_on_a_day_does_not_change_with_what_comes_later(log, text, day):
    asked = PredictionPoints(*(np.array(c) for c in zip(*before(log, day), strict=True)))
    rows = np.arange(len(asked.day))
    known, other = (
        ShopFeatures(each, text, 14.0, 4, 6).about(user_item_features(each, asked), rows, asked.day)
        for each in (log, shuffled_after(log, day))
    )
    for mine, theirs in zip(pieces(known), pieces(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def before(log: InteractionLog, day: float) -> list[tuple[int, int, float]]:
    """Of every shopper the question on a day: what they bought before it."""
    return [
        (first, first + int(((log.first == first) & (log.days < day)).sum()), day) for first in np.unique(log.first)
    ]


def test_the_last_day_comes_after_every_receipt_also_of_shops_that_keep_no_time_of_day(text):
    """Receipts dated at midnight: on the day after the last, all of them are known; on their own day, none is."""
    people = [[(float(day), np.array([day % 3, 3 + day % 4])) for day in range(p, 40, 6)] for p in range(6)]
    log = log_of_histories(people, 9, ORIGIN)
    knowledge = ShopFeatures(log, text, 14.0, 4, 6)
    assert knowledge.last_day == 40
    np.testing.assert_array_equal(knowledge.trends[39], item_features(shuffled_after(log, 39), 40)[39])
    sold = np.bincount(log.items, minlength=9)
    np.testing.assert_allclose(knowledge.trends[-1, :, ITEM_FEATURES.index("ever")], np.log1p(sold), atol=5e-3)


def test_after_the_last_day_nothing_more_is_known(knowledge, bought, asked):
    rows, late = np.arange(5), np.full(5, float(knowledge.last_day))
    for mine, theirs in zip(
        pieces(knowledge.about(bought, rows, late)), pieces(knowledge.about(bought, rows, late + 400)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_latest_answers_every_question_as_of_the_last_day(knowledge, bought, asked):
    rows, last = np.arange(len(asked.day)), np.full(len(asked.day), float(knowledge.last_day))
    latest = knowledge.latest()
    assert latest.trends.shape[0] == 1 and latest.ease.shape == latest.share.shape == (9, 9)
    for day in (last, last + 9, asked.day):
        for mine, theirs in zip(
            pieces(latest.about(bought, rows, day)), pieces(knowledge.about(bought, rows, last)), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert knowledge.trends.shape[0] > 1, "what it was made from stays whole"


@pytest.mark.parametrize("kept", ["all", "latest"])
def test_arrays_and_numbers_restore_all_that_is_known(knowledge, bought, asked, kept):
    known = knowledge.latest() if kept == "latest" else knowledge
    again = ShopFeatures.restored(known.arrays(), known.numbers())
    assert again.numbers() == known.numbers() and again.origin == known.origin
    rows = np.arange(len(asked.day))
    for mine, theirs in zip(
        pieces(again.about(bought, rows, asked.day)), pieces(known.about(bought, rows, asked.day)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_rhythm_is_the_middle_gap_between_a_shopper_s_baskets(log, knowledge, text):
    table = pd.DataFrame({"first": log.first, "day": log.days})
    assert knowledge.rhythm == pytest.approx(table.groupby("first")["day"].diff().median())
    once = log_of_histories([[(3.5, np.array([1]))], [(8.2, np.array([2]))]], 9, ORIGIN)
    assert ShopFeatures(once, text).rhythm == 30.0
