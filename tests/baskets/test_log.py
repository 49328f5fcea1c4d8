"""log: against pandas and slow loops, on logs made up here; windows of every context that fits."""

import numpy as np
import pandas as pd
import pytest

from recbook.baskets.log import (
    DAY,
    InteractionLog,
    PredictionPoints,
    interaction_log,
    log_of_histories,
    log_windows,
    log_with_openings,
    prediction_points,
)

CODES = np.array(["A", "B", "C", "D", "E"])
ORIGIN = pd.Timestamp("2011-01-01")


def receipts() -> pd.DataFrame:
    """Lines out of order: two invoices a day, one twice the same product, one product that no catalogue holds."""
    lines = [
        (7, "i4", "B", "2011-01-05 09:00"),
        (3, "i2", "D", "2011-01-03 12:00"),
        (3, "i2", "A", "2011-01-03 12:00"),
        (3, "i1", "C", "2011-01-01 08:00"),
        (7, "i3", "E", "2011-01-02 10:00"),
        (3, "i2", "D", "2011-01-03 12:00"),
        (3, "i5", "A", "2011-01-03 18:00"),
        (7, "i4", "unknown", "2011-01-05 09:00"),
        (9, "i6", "unknown", "2011-01-06 09:00"),
        (7, "i4", "A", "2011-01-05 09:00"),
    ]
    frame = pd.DataFrame(lines, columns=["customer", "invoice", "code", "date"])
    return frame.assign(date=pd.to_datetime(frame["date"]))


def made_up(seed: int = 0, shoppers: int = 12, products: int = 9) -> InteractionLog:
    """Baskets of one to four products on rising days."""
    rng = np.random.default_rng(seed)
    people = []
    for _ in range(shoppers):
        days = np.sort(rng.uniform(0, 60, rng.integers(1, 7)))
        people.append([(day, rng.choice(products, rng.integers(1, 5), replace=False)) for day in days])
    return log_of_histories(people, products, ORIGIN)


def baskets(log: InteractionLog) -> list[tuple[int, float, list[int]]]:
    """(first basket, day, products) of each, by slicing alone."""
    return [
        (int(log.first[b]), float(log.days[b]), log.items[log.starts[b] : log.starts[b + 1]].tolist())
        for b in range(len(log.days))
    ]


# Reading


def test_interaction_log_has_shoppers_one_after_the_other_and_their_baskets_in_time_order_each_product_once():
    log, customer = interaction_log(receipts(), CODES)
    at = [0, 2 + 0.5, 2 + 0.75, 1 + 10 / 24, 4 + 9 / 24]
    products = [[2], [3, 0], [0], [4], [1, 0]]
    assert [b[2] for b in baskets(log)] == products
    assert [b[0] for b in baskets(log)] == [0, 0, 0, 3, 3]
    np.testing.assert_allclose(log.days, np.array(at) + np.array([8 / 24, 0, 0, 0, 0]))
    assert customer.tolist() == [3, 3, 3, 7, 7]  # the shopper who bought nothing of the catalogue is not there
    assert log.origin == ORIGIN and log.products == 5 and log.sizes.tolist() == [1, 2, 1, 1, 2]


def test_interaction_log_counts_days_from_the_origin_it_is_given():
    mine, _ = interaction_log(receipts(), CODES)
    theirs, _ = interaction_log(receipts(), CODES, ORIGIN - 3 * DAY)
    np.testing.assert_allclose(theirs.days, mine.days + 3)


def test_interaction_log_depends_on_the_order_of_lines_only_within_a_basket():
    log, customer = interaction_log(receipts(), CODES)
    turned, again = interaction_log(receipts().iloc[::-1], CODES)
    np.testing.assert_array_equal(customer, again)
    np.testing.assert_array_equal(log.starts, turned.starts)
    np.testing.assert_allclose(log.days, turned.days)
    assert [set(b[2]) for b in baskets(log)] == [set(b[2]) for b in baskets(turned)]


def test_lines_say_of_every_product_who_when_and_what():
    log = made_up()
    shopper, day, item = log.lines
    by_hand = [(first, day, item) for first, day, items in baskets(log) for item in items]
    assert list(zip(shopper.tolist(), day.tolist(), item.tolist(), strict=True)) == by_hand


def test_log_of_histories_keeps_empty_baskets_and_shoppers_apart_even_on_the_same_day():
    none = np.array([], np.int64)
    log = log_of_histories([[(4.0, np.array([1, 0])), (5.0, none)], [(5.0, none)], [(5.0, np.array([2]))]], 3, ORIGIN)
    assert baskets(log) == [(0, 4.0, [1, 0]), (0, 5.0, []), (2, 5.0, []), (3, 5.0, [2])]


# Openings


def test_log_with_openings_keeps_the_given_baskets_and_ends_each_shopper_with_an_empty_one():
    log = made_up(1)
    kept = np.random.default_rng(2).random(len(log.days)) < 0.4
    people: dict[int, list] = {}
    for b, (first, day, items) in enumerate(baskets(log)):
        if kept[b]:
            people.setdefault(first, []).append((day, np.array(items)))
    wanted = log_of_histories([[*p, (99.0, np.array([], np.int64))] for p in people.values()], log.products, ORIGIN)
    assert baskets(log_with_openings(log, kept, 99.0)) == baskets(wanted)
    assert len(people) < len(set(log.first.tolist())), "the case must leave a shopper out"


# Prediction points


@pytest.mark.parametrize("ahead", [0.0, 0.5, 10.0, 1000.0])
def test_a_prediction_point_is_after_the_basket_before_and_at_most_so_much_ahead(ahead):
    log = made_up(3, shoppers=40)
    points = prediction_points(log, ahead, seed=1)
    np.testing.assert_array_equal(points.end, np.arange(len(log.days)))
    np.testing.assert_array_equal(points.first, log.first)
    for b in range(len(log.days)):
        earliest = log.days[b] - ahead if b == log.first[b] else max(log.days[b - 1], log.days[b] - ahead)
        assert earliest - 1e-9 <= points.day[b] <= log.days[b]
    early = log.days - points.day
    assert (early == 0).all() if ahead == 0 else early.max() > min(ahead, 20) / 2  # that it does look ahead


def test_prediction_points_are_the_same_for_the_same_seed_only():
    log = made_up(3)
    days = [prediction_points(log, 10.0, seed).day for seed in (1, 1, 2)]
    assert (days[0] == days[1]).all() and (days[0] != days[2]).any()


def test_take_is_each_column_at_these_rows():
    points = PredictionPoints(np.arange(4), np.arange(4) + 10, np.arange(4) / 2)
    assert [c.tolist() for c in points.take(np.array([3, 1]))] == [[3, 1], [13, 11], [1.5, 0.5]]


# Windows


@pytest.mark.parametrize("context", [2, 4, 5, 7, 8, 16, 64])
def test_windows_predict_every_token_once_with_half_a_window_before_it(context):
    log = made_up(4, shoppers=30)
    opening = [int(log.starts[b]) + b for b in range(len(log.days))]
    begin_of = {}  # token -> where its shopper's tokens begin
    for b in range(len(log.days)):
        begin_of |= dict.fromkeys(range(opening[b], opening[b] + 1 + log.sizes[b]), opening[log.first[b]])
    predicted = []
    for start, end, first in log_windows(log, context):
        assert end - start <= context and start <= first < end
        assert begin_of[start] == begin_of[end - 1], "a window of two shoppers"
        assert start == begin_of[start] == first or first - start >= context // 2
        predicted += range(first, end)
    assert predicted == sorted(begin_of), "each token once, in order"


def test_one_window_holds_a_shopper_that_fits():
    log = made_up(5)
    ends = np.append(np.unique(log.first), len(log.days))
    tokens = log.starts[ends] + ends
    assert log_windows(log, 1000) == [(a, b, a) for a, b in zip(tokens[:-1], tokens[1:], strict=True)]
