"""features, shop_features: against slow loops, pandas and the baselines' EASE; a changed future must change nothing."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from recbook.baselines import models
from recbook.baskets.features import (
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
from recbook.baskets.log import InteractionLog, PredictionPoints, log_of_histories, prediction_points
from recbook.baskets.shop_features import (
    EASE_L2,
    RELATED_FEATURES,
    FeatureBatch,
    ShopFeatures,
    related_items,
    strongest,
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
def points(log) -> PredictionPoints:
    return prediction_points(log, 5.0, seed=3)


@pytest.fixture(scope="module")
def bought(log, points) -> UserItemFeatures:
    return user_item_features(log, points)


@pytest.fixture(scope="module")
def text() -> np.ndarray:
    vectors = np.random.default_rng(1).normal(0, 1, (9, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def shop_features(log, text) -> ShopFeatures:
    return ShopFeatures(log, text, refresh=14.0, nearest=4, solved=6)


# User features and user-item features


def of_one(log: InteractionLog, first: int, end: int, day: float, item: int) -> list[float]:
    """The features of one product, from the definitions."""
    seen = [b for b in range(first, end) if item in basket(log, b)]
    count, since, recency = len(seen), end - 1 - seen[-1], max(day - log.days[seen[-1]], 0)
    counts = [sum(0.5 ** ((day - log.days[b]) / half) for b in seen) for half in (15, 45, 120)]
    gap = (log.days[seen[-1]] - log.days[seen[0]]) / (count - 1) if count > 1 else None
    overdue = -1 if gap is None else math.tanh(recency / (gap + 7) - 1)
    shares = [count / (end - first), count / (end - seen[0])]
    times = [math.exp(-recency / 30), math.log1p(recency) / 3, overdue]
    return [math.log(count), *shares, since == 0, math.log1p(since), *counts, *times]


def test_user_item_features_follow_the_definitions_product_by_product(log, points, bought):
    assert len(bought.starts) == len(points.day) + 1 and bought.features.shape[1] == len(USER_ITEM_FEATURES)
    for q, (first, end, day) in enumerate(zip(*points, strict=True)):
        pairs = slice(bought.starts[q], bought.starts[q + 1])
        distinct = sorted({item for b in range(first, end) for item in basket(log, b)})
        assert bought.items[pairs].tolist() == distinct
        by_hand = np.array([of_one(log, first, end, day, i) for i in distinct]).reshape(-1, len(USER_ITEM_FEATURES))
        np.testing.assert_allclose(bought.features[pairs], by_hand, atol=1e-5)
        latest = {item: log.days[b] for b in range(first, end) for item in basket(log, b)}
        fresh = [0.5 ** ((day - latest[i]) / models.HALF_LIFE) for i in distinct]
        np.testing.assert_allclose(bought.fresh[pairs], fresh, atol=1e-5)
        assert bought.last[pairs].tolist() == [end > first and i in basket(log, end - 1) for i in distinct]


def test_user_item_features_of_points_in_any_order_and_of_runs_of_any_length(log):
    points = PredictionPoints(np.array([5, 0, 0, 0]), np.array([5, 2, 0, 1]), np.array([30.0, 71.0, 5.0, 71.0]))
    bought = user_item_features(log, points)
    sizes = [len({i for b in range(f, e) for i in basket(log, b)}) for f, e, _ in zip(*points, strict=True)]
    assert np.diff(bought.starts).tolist() == sizes and sizes[0] == sizes[2] == 0


def test_user_features_follow_the_definitions_point_by_point(log, points):
    found = user_features(log, points)
    assert found.shape == (len(points.day), len(USER_FEATURES))
    for row, (first, end, day) in zip(found, zip(*points, strict=True), strict=True):
        count, size = end - first, sum(len(basket(log, b)) for b in range(first, end))
        last, since = (len(basket(log, end - 1)), day - log.days[end - 1]) if count else (0, 0)
        year = 2 * math.pi * (day + log.origin.day_of_year) / 365.25
        counted = [math.log1p(count), math.log1p(size) / 3, math.log1p(size / max(count, 1)) / 2, math.log1p(last) / 2]
        by_hand = [*counted, math.log1p(since) / 2, math.sin(year), math.cos(year)]
        np.testing.assert_allclose(row, by_hand, atol=1e-5)


def test_matrix_holds_a_column_of_the_given_points(bought):
    rows = np.array([4, 0, 4, 7])
    found = bought.matrix(bought.fresh, rows, 9).toarray()
    by_hand = np.zeros((4, 9))
    for place, q in enumerate(rows):
        for pair in range(bought.starts[q], bought.starts[q + 1]):
            by_hand[place, bought.items[pair]] = bought.fresh[pair]
    np.testing.assert_allclose(found, by_hand)
    apart = bought.matrix(bought.fresh, rows, 9, block=np.array([1, 0, 2, 1])).toarray().reshape(4, 3, 9)
    np.testing.assert_allclose(apart.sum(axis=1), by_hand)
    assert (apart[[0, 2, 3], 0] == 0).all() and (apart[[0, 1, 3], 2] == 0).all()


def test_positions_go_through_runs_one_after_the_other():
    at, starts = positions(np.array([5, 2, 9]), np.array([7, 2, 12]))
    assert at.tolist() == [5, 6, 9, 10, 11] and starts.tolist() == [0, 2, 2, 5]


# Item features


def test_item_features_count_what_sold_before_each_day(log):
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
def test_item_features_of_a_day_know_nothing_of_that_day_or_later(log, day):
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


def test_related_items_are_the_blend_s_ease_and_the_share_of_buyers(log):
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


def test_strongest_takes_rows_in_parts_and_keeps_the_largest():
    dense = np.random.default_rng(0).random((11, 7))
    found = strongest(sparse.csr_matrix(dense), 3, rows=4)
    np.testing.assert_allclose(found.toarray(), only_largest(dense, 3, range(7)), rtol=1e-6)
    np.testing.assert_allclose(strongest(sparse.csr_matrix(dense), 8).toarray(), dense, rtol=1e-6)


def test_related_items_know_nothing_of_the_day_or_later(log):
    changed = related_items(shuffled_after(log, 40.0), 40.0, 4, 6)
    for known, other in zip(related_items(log, 40.0, 4, 6), changed, strict=True):
        np.testing.assert_array_equal(known.toarray(), other.toarray())


# All features of a shop


def pieces(batch: FeatureBatch) -> list[np.ndarray]:
    return [batch.related, batch.trend.astype(np.float32), batch.bought]


def test_a_batch_of_points_of_mixed_days_is_the_points_one_by_one(shop_features, bought, points):
    rows = np.random.default_rng(0).permutation(len(points.day))
    batch = shop_features.batch(bought, rows, points.day[rows])
    assert batch.related.shape == (len(rows), 9, len(RELATED_FEATURES))
    for place, row in enumerate(rows):
        alone = shop_features.batch(bought, rows[place : place + 1], points.day[row : row + 1])
        pairs = batch.row == place
        np.testing.assert_allclose(batch.related[place], alone.related[0], atol=1e-6)
        np.testing.assert_array_equal(batch.trend[place], alone.trend[0])
        np.testing.assert_array_equal(batch.item[pairs], alone.item)
        np.testing.assert_array_equal(batch.bought[pairs], alone.bought)


def test_related_features_are_those_of_the_last_snapshot_by_hand(log, shop_features, bought, points, text):
    rows = np.flatnonzero(points.end - points.first >= 2)
    batch = shop_features.batch(bought, rows, points.day[rows])
    for place, q in enumerate(rows):
        snapshots = [day for day in shop_features.snapshots if day <= points.day[q]]
        items = slice(bought.starts[q], bought.starts[q + 1])
        weights = np.zeros((2, 9))
        weights[:, bought.items[items]] = bought.fresh[items], bought.last[items]
        profiles = weights @ text
        cosines = [p @ text.T / max(np.linalg.norm(p), 1e-9) for p in profiles]
        np.testing.assert_allclose(batch.related[place, :, 3:].T, cosines, atol=1e-5)
        together = np.zeros((3, 9))
        if snapshots:
            ease, share = (m.toarray() for m in related_items(log, snapshots[-1], 4, 6))
            shares = [w / w.sum() @ share for w in weights]
            together = np.array([weights[0] @ ease, *shares])
        np.testing.assert_allclose(batch.related[place, :, :3].T, together, atol=1e-5)


@pytest.mark.parametrize("day", [20.5, 45.0])
def test_features_of_a_day_do_not_change_with_what_comes_later(log, text, day):
    points = PredictionPoints(*(np.array(c) for c in zip(*before(log, day), strict=True)))
    rows = np.arange(len(points.day))
    known, other = (
        ShopFeatures(each, text, 14.0, 4, 6).batch(user_item_features(each, points), rows, points.day)
        for each in (log, shuffled_after(log, day))
    )
    for mine, theirs in zip(pieces(known), pieces(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def before(log: InteractionLog, day: float) -> list[tuple[int, int, float]]:
    """The prediction point of every shopper on a day: their baskets before it."""
    return [
        (first, first + int(((log.first == first) & (log.days < day)).sum()), day) for first in np.unique(log.first)
    ]


def test_the_last_day_comes_after_every_receipt_also_of_shops_that_keep_no_time_of_day(text):
    """Receipts dated at midnight: on the day after the last, all of them are known; on their own day, none is."""
    people = [[(float(day), np.array([day % 3, 3 + day % 4])) for day in range(p, 40, 6)] for p in range(6)]
    log = log_of_histories(people, 9, ORIGIN)
    shop_features = ShopFeatures(log, text, 14.0, 4, 6)
    assert shop_features.last_day == 40
    np.testing.assert_array_equal(shop_features.trends[39], item_features(shuffled_after(log, 39), 40)[39])
    sold = np.bincount(log.items, minlength=9)
    np.testing.assert_allclose(shop_features.trends[-1, :, ITEM_FEATURES.index("ever")], np.log1p(sold), atol=5e-3)


def test_days_after_the_last_have_its_features(shop_features, bought, points):
    rows, late = np.arange(5), np.full(5, float(shop_features.last_day))
    for mine, theirs in zip(
        pieces(shop_features.batch(bought, rows, late)),
        pieces(shop_features.batch(bought, rows, late + 400)),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_latest_gives_every_point_the_features_of_the_last_day(shop_features, bought, points):
    rows, last = np.arange(len(points.day)), np.full(len(points.day), float(shop_features.last_day))
    latest = shop_features.latest()
    assert latest.trends.shape[0] == 1 and latest.ease.shape == latest.share.shape == (9, 9)
    for day in (last, last + 9, points.day):
        for mine, theirs in zip(
            pieces(latest.batch(bought, rows, day)), pieces(shop_features.batch(bought, rows, last)), strict=True
        ):
            np.testing.assert_allclose(mine, theirs, atol=1e-6)
    assert shop_features.trends.shape[0] > 1, "what it was made from stays whole"


@pytest.mark.parametrize("kept", ["all", "latest"])
def test_arrays_and_numbers_restore_all_features(shop_features, bought, points, kept):
    known = shop_features.latest() if kept == "latest" else shop_features
    again = ShopFeatures.restored(known.arrays(), known.numbers())
    assert again.numbers() == known.numbers() and again.origin == known.origin
    rows = np.arange(len(points.day))
    for mine, theirs in zip(
        pieces(again.batch(bought, rows, points.day)), pieces(known.batch(bought, rows, points.day)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_rhythm_is_the_middle_gap_between_a_shopper_s_baskets(log, shop_features, text):
    table = pd.DataFrame({"first": log.first, "day": log.days})
    assert shop_features.rhythm == pytest.approx(table.groupby("first")["day"].diff().median())
    once = log_of_histories([[(3.5, np.array([1]))], [(8.2, np.array([2]))]], 9, ORIGIN)
    assert ShopFeatures(once, text).rhythm == 30.0
