"""catalogue: what people type, right and wrong, on a catalogue of a few products."""

import numpy as np
import pandas as pd
import pytest

from recbook.baskets.catalogue import NAMED_IN_ERRORS, BasketEntry, Catalogue

PRODUCTS = {
    "10001": "RED MUG",
    "10002": "BLUE MUG",
    "85123A": "WHITE HANGING HEART",
    "85124": "TEA TOWEL",
    "85125": "TEA TOWEL",  # a name that two share
    "gift_0001_20": "VOUCHER 20.00",  # a code that is not in capitals
}
ORIGIN = pd.Timestamp("2011-01-01")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue(PRODUCTS)


def lists(entries: list[BasketEntry]) -> list[list[int]]:
    return [entry.items.tolist() for entry in entries]


# Products


@pytest.mark.parametrize("typed", ["85123A", "85123a", " 85123A ", "WHITE HANGING HEART", "white  hanging heart "])
def test_a_product_is_its_code_or_its_name_in_any_case(catalogue, typed):
    assert catalogue.columns([typed]).tolist() == [2]


def test_codes_may_be_small_letters_or_numbers(catalogue):
    assert catalogue.columns(["gift_0001_20", 10002]).tolist() == [5, 1]


def test_there_is_a_column_for_each_product_in_the_order_typed_repeats_too(catalogue):
    found = catalogue.columns(["10002", "red mug", "BLUE MUG", "10001"])
    assert found.tolist() == [1, 0, 1, 0] and found.dtype == np.int64
    nothing = catalogue.columns([])
    assert nothing.tolist() == [] and nothing.dtype == np.int64


def test_a_basket_holds_a_product_once(catalogue):
    [entry] = catalogue.entries([["10002", "red mug", "BLUE MUG", "10001"]])
    assert entry.items.tolist() == [1, 0] and entry.items.dtype == np.int64


def test_unknown_products_are_all_named_with_the_nearest_that_there_is(catalogue):
    with pytest.raises(ValueError) as error:
        catalogue.columns(["10001", "85123B", "blue mugg", "qqq"])
    message = str(error.value)
    assert "'85123B' (did you mean '85123A'?)" in message and "'blue mugg' (did you mean 'BLUE MUG'?)" in message
    assert "'qqq'" in message and "'qqq' (did" not in message
    assert "6 products" in message and "'10001'" not in message


def test_of_many_unknown_products_the_first_are_named_and_the_rest_counted(catalogue):
    typed = [f"zz{number}zz" for number in range(NAMED_IN_ERRORS + 3)]
    with pytest.raises(ValueError, match="and 3 more") as error:
        catalogue.columns(typed)
    assert all(repr(name) in str(error.value) for name in typed[:NAMED_IN_ERRORS])
    assert repr(typed[NAMED_IN_ERRORS]) not in str(error.value)


def test_a_name_that_two_products_share_is_neither(catalogue):
    with pytest.raises(ValueError, match="'tea towel'"):
        catalogue.columns(["tea towel"])


def test_one_text_is_not_a_list_of_products(catalogue):
    with pytest.raises(ValueError, match=r"write \['10001'\]"):
        catalogue.columns("10001")


# Baskets


def test_a_history_is_lists_or_pairs_of_a_date_and_a_list(catalogue):
    entries = catalogue.entries([["10001", "10002"], ("10002", "85124"), [], ("2011-03-01", ["85125"])])
    assert lists(entries) == [[0, 1], [1, 3], [], [4]]
    assert [entry.date for entry in entries] == [None, None, None, pd.Timestamp("2011-03-01")]
    assert catalogue.entries([]) == []


@pytest.mark.parametrize(
    "basket", [np.array(["10001", "10002"]), pd.Series(["10001", "10002"]), {"10001": 2, "10002": 1}]
)
def test_a_basket_may_be_any_collection(catalogue, basket):
    assert lists(catalogue.entries([basket])) == [[0, 1]]


@pytest.mark.parametrize("history", ["10001", ["10001", "10002"], [["10001"], "10002"], [10001]])
def test_a_flat_list_is_told_how_to_be_a_history(catalogue, history):
    with pytest.raises(ValueError, match="a list of baskets, each a list of products: write"):
        catalogue.entries(history)


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda basket: ("2011-02-03", basket)])
def test_the_error_names_what_is_unknown_in_every_basket(catalogue, form):
    with pytest.raises(ValueError) as error:
        catalogue.entries([form(["10001", "first?"]), form(["second?", "10002"])])
    assert "'first?'" in str(error.value) and "'second?'" in str(error.value)


def test_entries_of_entries_are_the_same(catalogue):
    entries = catalogue.entries([("2011-02-03", ["10001"]), ("2011-02-04", ["85124", "10001"])])
    assert lists(catalogue.entries(entries)) == lists(entries)


def test_bought_are_the_distinct_products_of_all_baskets(catalogue):
    assert catalogue.bought([["10002"], [], ["10001", "blue mug", "85124"]]).tolist() == [1, 0, 3]
    assert catalogue.bought([]).tolist() == [] == catalogue.bought([[]]).tolist()


def test_without_takes_a_product_out_and_leaves_the_baskets_where_they_were(catalogue):
    history = [("2011-02-03", ["10001"]), ("2011-02-04", ["85124", "10001", "10002"])]
    left = catalogue.without(history, 0)
    assert lists(left) == [[], [3, 1]]
    assert [entry.date for entry in left] == [pd.Timestamp("2011-02-03"), pd.Timestamp("2011-02-04")]


# Dates


def test_dates_become_days_since_the_origin(catalogue):
    history = [("2011-01-02 12:00", ["10001"]), (pd.Timestamp("2011-01-05"), ["10002"])]
    days = [day for day, _ in catalogue.dated(history, 4.0, ORIGIN, gap=99.0)]
    assert days == [1.5, 4.0]


def test_baskets_without_dates_are_as_far_apart_as_usual_the_last_one_gap_ago(catalogue):
    days = [day for day, _ in catalogue.dated([["10001"], [], ["10002"]], 100.0, ORIGIN, gap=20.0)]
    assert days == [40.0, 60.0, 80.0]
    assert catalogue.dated([], 100.0, ORIGIN, 20.0) == []


@pytest.mark.parametrize("dates", [("2011-02-03", "2011-02-01"), ("2011-02-03", "2011-04-12")])
def test_dates_out_of_order_or_after_the_day_of_asking_are_refused(catalogue, dates):
    with pytest.raises(ValueError, match="oldest first, none later than the day of asking, 2011-04-11"):
        catalogue.dated([(date, ["10001"]) for date in dates], 100.0, ORIGIN, 20.0)


def test_dates_for_some_baskets_only_are_refused(catalogue):
    with pytest.raises(ValueError, match="some baskets have a date and some have none"):
        catalogue.dated([("2011-02-03", ["10001"]), ["10002"]], 100.0, ORIGIN, 20.0)


def test_a_date_that_is_none_is_a_value_error(catalogue):
    with pytest.raises(ValueError):
        catalogue.entries([("yesterdayish", ["10001"])])


@pytest.mark.parametrize("missing", [None, "", pd.NaT, float("nan")])
def test_a_missing_date_is_refused(catalogue, missing):
    with pytest.raises(ValueError, match="a date is missing"):
        catalogue.dated([("2011-02-03", ["10001"]), (missing, ["10002"])], 100.0, ORIGIN, 20.0)
    with pytest.raises(ValueError, match="a date is missing"):
        catalogue.dated([["10001"]], float("nan"), ORIGIN, 20.0)
