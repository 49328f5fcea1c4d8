"""The fact store: what may be said, counted by hand on a few receipts, and again with pandas on the embedded shop."""

import numpy as np
import pandas as pd
import pytest

from recbook.narratives.fact_store import FEWEST_SHOPPERS, GUEST, OFTEN_SHARE, FactStore
from recbook.narratives.facts import month_in_words, times_in_words

MOMENT = pd.Timestamp("2011-11-09")


def receipts(*lines: tuple) -> pd.DataFrame:
    """Clean receipts of (invoice, customer, date, code, description, price)."""
    table = pd.DataFrame(lines, columns=["invoice", "customer", "date", "code", "description", "price"])
    table = table.assign(quantity=1, country="France", date=pd.to_datetime(table["date"], format="ISO8601"))
    return table.astype({"customer": "int64", "invoice": str})


BY_HAND = receipts(
    ("1", 7, "2011-03-02 10:00", "A", "RED KETTLE", 20.0),
    ("2", 7, "2011-06-11 10:00", "A", "RED KETTLE", 18.0),
    ("2", 7, "2011-06-11 10:00", "A", "RED KETTLE", 17.0),  # the same basket, another line
    ("2", 7, "2011-06-11 10:00", "B", "GLASS VASE", 5.0),
    *((f"c{n}", 100 + n, "2011-04-01", "A", "RED KETTLE", 20.0) for n in range(9)),
    *((f"c{n}", 100 + n, "2011-04-01", "C", "BLACK MUG", 8.0) for n in range(6)),
    *((f"d{n}", 200 + n, "2011-10-01", "C", "BLACK MUG", 6.8) for n in range(20)),
    ("e", 300, "2011-11-20", "C", "BLACK MUG", 1.0),  # after the moment
)


@pytest.fixture(scope="module")
def by_hand() -> FactStore:
    return FactStore(BY_HAND, MOMENT)


def test_a_recommendation_by_hand(by_hand):
    found = by_hand.facts(7, "C")
    kettle = next(purchase for purchase in found.purchases if purchase.code == "A")
    assert (found.name, found.price, found.own) == ("black mug", 6.8, None)
    assert kettle.times == 2 and [f"{date:%d.%m.}" for date in kettle.dates] == ["02.03.", "11.06."]
    assert kettle.paid == 17.0 and kettle.name == "red kettle"
    assert [(c.code, c.shoppers, c.often) for c in found.co_purchases] == [("A", 6, True)]  # 6 of 9 others
    assert (found.was, found.change, found.percent) == (8.0, -1.2, -15)  # lines older than 90 days
    assert found.season == "October" and found.new_since is None  # 20 invoices of 26
    assert found.attributes == {"colour": ("black",)}


def test_what_was_bought_before_is_told_by_what_was_paid(by_hand):
    found = by_hand.facts(7, "A")
    assert found.own.times == 2 and found.was == 17.0 and found.price == 20.0
    assert (found.change, found.percent) == (3.0, 18)
    assert [purchase.code for purchase in found.purchases] == ["B"] and found.own in found.bought


def test_a_guest_pays_todays_prices_and_is_not_counted(by_hand):
    with_guest = by_hand.guest([(MOMENT, ["A", "A"]), (MOMENT - pd.Timedelta(days=40), ["B"])])
    found = with_guest.facts(GUEST, "C", ["A"])
    assert [(p.code, p.times, p.paid) for p in found.purchases] == [("A", 1, 20.0)]
    # 6 of all 10, and the guest is none of them.
    assert [(c.code, c.shoppers, c.often) for c in found.co_purchases] == [("A", 6, True)]
    assert with_guest.bought(GUEST) == ["B", "A"] and GUEST in with_guest and GUEST not in by_hand
    assert with_guest.facts(7, "C") == by_hand.facts(7, "C")
    assert by_hand.guest([]).facts(GUEST, "C").purchases == ()
    with pytest.raises(KeyError):
        by_hand.guest([(MOMENT, ["nothing"])])


def test_what_nobody_bought_yet_has_a_name_a_price_and_no_past():
    new = pd.DataFrame({"description": ["GREEN GLASS VASE"], "price": [9.0]}, index=["N"])
    store = FactStore(BY_HAND, MOMENT, unsold=new)
    found = store.facts(7, "N", ["B"])
    assert (found.name, found.price, found.was, found.new_since, found.season) == (
        "green glass vase",
        9.0,
        None,
        None,
        None,
    )
    assert found.co_purchases == () and found.attributes == {"colour": ("green",), "material": ("glass",)}
    assert store.facts(7, "C") == FactStore(BY_HAND, MOMENT).facts(7, "C")


def test_others_are_others(by_hand):
    assert by_hand.facts(7, "A").co_purchases == ()  # nobody else bought the vase
    few = FactStore(BY_HAND[~BY_HAND["invoice"].isin(["c0", "c1"])], MOMENT).facts(7, "C")
    assert few.co_purchases == ()  # four others: too few to tell
    assert by_hand.facts(7, "C").co_purchases[0].kind == ""  # one kettle does not make a kind
    seldom = receipts(*((f"x{n}", 400 + n, "2011-05-01", "A", "RED KETTLE", 20.0) for n in range(40)))
    co_purchase = FactStore(pd.concat([BY_HAND, seldom]), MOMENT).facts(7, "C").co_purchases[0]
    assert (co_purchase.shoppers, co_purchase.often) == (6, False)  # 6 of 49


@pytest.mark.parametrize(("now", "was"), [(7.9, None), (7.76, 8.0), (8.24, 8.0), (8.2, None)])
def test_a_change_of_less_than_three_per_cent_is_none(now, was):
    lines = BY_HAND.assign(price=BY_HAND["price"].where(BY_HAND["price"] != 6.8, now))
    assert FactStore(lines, MOMENT).facts(7, "C").was == was


def test_reasons_are_taken_in_their_order_and_others_left_out(by_hand):
    assert [p.code for p in by_hand.facts(7, "C", ["B", "A"]).purchases] == ["B"]
    assert [p.code for p in by_hand.facts(7, "C", ["A", "B"]).purchases] == ["A"]
    assert [p.code for p in by_hand.facts(7, "C", among={"A"}).purchases] == ["A"]
    assert by_hand.facts(7, "C", among={"B"}).co_purchases == ()


def test_what_cannot_be_asked(by_hand):
    with pytest.raises(KeyError, match="no product 'Z'"):
        by_hand.facts(7, "Z")
    with pytest.raises(KeyError, match="customer 8 bought nothing"):
        by_hand.facts(8, "C")
    with pytest.raises(ValueError, match="did not buy C"):
        by_hand.facts(7, "B", ["C"])
    with pytest.raises(ValueError, match="no receipts before 2001"):
        FactStore(BY_HAND, pd.Timestamp("2001-01-01"))


def test_a_new_product_is_new_and_the_first_of_the_log_are_not():
    lines = receipts(
        ("1", 7, "2010-12-01", "A", "RED KETTLE", 20.0),
        ("2", 8, "2011-09-03", "B", "GLASS VASE", 5.0),
        ("3", 8, "2011-05-03", "C", "BLACK MUG", 5.0),
    )
    store = FactStore(lines, MOMENT)
    assert f"{store.facts(7, 'B').new_since:%Y-%m}" == "2011-09"
    assert store.facts(7, "C").new_since is None and store.facts(8, "A").new_since is None
    short = FactStore(lines[1:], MOMENT)
    assert short.facts(8, "B").new_since is not None


def test_the_season_is_one_month_or_none():
    lines = [(f"{n}", n, "2011-02-01", "A", "MUG", 1.0) for n in range(12)]
    assert FactStore(receipts(*lines), MOMENT).table.loc["A", "season"] == "February"
    tie = [*lines, *((f"t{n}", n, "2011-07-01", "A", "MUG", 1.0) for n in range(12))]
    assert FactStore(receipts(*tie), MOMENT).table.loc["A", "season"] == ""
    assert FactStore(receipts(*lines[:9]), MOMENT).table.loc["A", "season"] == ""


def test_counts_of_the_shop_counted_again(clean_receipts, fact_store):
    lines, rng = clean_receipts[clean_receipts["date"] < MOMENT], np.random.default_rng(0)
    for _ in range(60):
        customer, code = int(rng.choice(fact_store.customers)), str(rng.choice(list(fact_store.names)))
        found, mine = fact_store.facts(customer, code), lines[lines["customer"] == customer]
        for purchase in found.bought:
            held = mine[mine["code"] == purchase.code]
            assert purchase.times == held["invoice"].nunique()
            assert (purchase.dates[0], purchase.dates[-1]) == (held["date"].min(), held["date"].max())
        buyers = set(lines.loc[lines["code"] == code, "customer"]) - {customer}
        for co_purchase in found.co_purchases:
            known = set(lines.loc[lines["code"] == co_purchase.code, "customer"]) - {customer}
            assert co_purchase.shoppers == len(buyers & known) >= FEWEST_SHOPPERS
            assert co_purchase.often == (len(buyers & known) / len(known) >= OFTEN_SHARE)
            assert co_purchase.code in set(mine["code"])
        assert found.price == pytest.approx(lines[lines["code"] == code].tail(20)["price"].median())


def test_nothing_is_known_from_later_on(shop, clean_receipts, fact_store):
    later = clean_receipts.copy()
    after = later["date"] >= MOMENT
    later.loc[after, ["customer", "price"]] = [99, 1234.5]
    again = FactStore(later, MOMENT, shop.products)
    for customer, code in zip(fact_store.customers[:30], list(fact_store.names)[:30], strict=True):
        assert fact_store.facts(customer, code) == again.facts(customer, code)


def test_attributes_are_those_of_the_truth(shop, fact_store):
    products = shop.products
    beans = products.index[products["group"] == "beans"][0]
    truth = products.loc[beans]
    assert fact_store.attributes[beans]["roast"][0] in truth["kind"]
    assert all(note in truth["name"] for note in fact_store.attributes[beans]["notes"])
    assert fact_store.names[beans].startswith(truth["theme"]) and "single-origin" not in fact_store.names[beans]
    teapot = products.index[products["kind"] == "teapot"][0]
    assert fact_store.attributes[teapot]["colour"] == (products.loc[teapot, "colour"],)


def test_attributes_of_other_shops_are_what_descriptions_tell():
    names = ["RED GLASS VASE", "BLUE VASE", "TALL VASE", "OLD VASE", "VASE"] + [
        f"WELCOME HOME{n * '!'}" for n in range(6)
    ]
    lines = [(f"{n}", n, "2011-02-01", f"{n:05}", name, 1.0) for n, name in enumerate(names)]
    store = FactStore(receipts(*lines), MOMENT)
    assert store.attributes["00000"] == {"colour": ("red",), "kind": ("vase",), "material": ("glass",)}
    assert store.attributes["00005"] == {}  # "your home" is where one lives


def test_a_history_is_what_was_bought(fact_store):
    customer = fact_store.customers[3]
    history = fact_store.history(customer)
    assert [date for date, _ in history] == sorted(date for date, _ in history)
    assert {code for _, codes in history for code in codes} == set(fact_store.bought(customer))


def test_words_for_numbers_and_months():
    assert [times_in_words(n) for n in (1, 2, 3, 12, 13)] == [
        "once",
        "twice",
        "three times",
        "twelve times",
        "13 times",
    ]
    assert month_in_words(pd.Timestamp("2010-12-01"), MOMENT) == "December"
    assert month_in_words(pd.Timestamp("2010-11-30"), MOMENT) == "November 2010"
    assert month_in_words(pd.Timestamp("2011-11-01"), MOMENT) == "November"
