"""Listwise training data: lists by hand, blind to the future, each with something that was bought."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from recbook.llm_ranking import training_lists


def receipts(*baskets: tuple[int, int, str]) -> pd.DataFrame:
    """Baskets as customer, day and the codes bought, such as (1, 30, "AB") or (1, 30, ["A", "B"])."""
    start, rows = pd.Timestamp("2011-01-01"), []
    for invoice, (customer, day, codes) in enumerate(baskets):
        rows += [(invoice, customer, start + pd.Timedelta(days=day), code, "France") for code in codes]
    return pd.DataFrame(rows, columns=["invoice", "customer", "date", "code", "country"])


def shop(seed: int = 0) -> pd.DataFrame:
    """Three hundred baskets of three products, none of the same shopper on the same day."""
    rng = np.random.default_rng(seed)
    when = sorted({(int(rng.integers(200)), int(rng.integers(40))) for _ in range(300)})
    return receipts(*[(customer, day, "".join(rng.choice(list("ABCDEFGHIJ"), 3, False))) for day, customer in when])


def test_the_only_list_there_is():
    log = receipts((1, 0, "AB"), (2, 80, "CD"), (3, 82, "C"), (1, 100, "BC"))
    [question] = {q.shopper.when: q for q in training_lists.past_lists(log, 1, size=4, days=2)}.values()
    assert [(f"{date:%Y-%m-%d}", codes) for date, codes in question.shopper.history] == [("2011-01-01", ["A", "B"])]
    assert pd.Timestamp("2011-04-01") < question.shopper.when <= pd.Timestamp("2011-04-11")
    assert set(question.candidates) == set("ABCD")  # their own; C and D sold in the four weeks before
    assert {code for code, hit in zip(question.candidates, question.bought, strict=True) if hit} == {"B", "C"}


def test_every_list_has_something_that_was_bought_and_nothing_twice():
    log = shop()
    made = training_lists.past_lists(log, 50, size=5, days=60)
    assert len(made) == 50
    of_shoppers = [list(lines.groupby("date")["code"].agg(set).items()) for _, lines in log.groupby("customer")]
    for question in made:
        assert len(set(question.candidates)) == len(question.candidates) == len(question.bought) <= 5
        assert question.bought.any() and question.bought.dtype == bool
        history = [(date, set(codes)) for date, codes in question.shopper.history]
        assert history and history[-1][0] <= question.shopper.when
        bought = {code for code, hit in zip(question.candidates, question.bought, strict=True) if hit}
        # Whoever has that history bought this in the basket after it, and nothing else of what was proposed.
        later = [past for past in of_shoppers if past[: len(history)] == history and len(past) > len(history)]
        assert bought in [past[len(history)][1] & set(question.candidates) for past in later]


def test_the_future_changes_nothing():
    """What is proposed for a basket is the same if other things were bought later on."""
    rng, codes = np.random.default_rng(0), np.array([f"{n:03}" for n in range(300)])
    days = np.sort(rng.integers(0, 200, 400))
    lines = receipts(*[(int(rng.integers(20)), int(day), rng.choice(codes, 3, False)) for day in days])
    now = lines["date"].min() + pd.Timedelta(days=150)
    swapped = lines["code"].map(dict(zip(codes, codes[::-1], strict=True)))
    other = lines.assign(code=lines["code"].where(lines["date"] < now, swapped))

    def proposed(receipts: pd.DataFrame) -> dict[str, set[str]]:
        """All candidates that there are, by history and day, of the lists before `now`."""
        made = training_lists.past_lists(receipts, 10_000, size=len(codes), days=120)
        return {f"{each.shopper}": set(each.candidates) for each in made if each.shopper.when < now}

    first, second = proposed(lines), proposed(other)
    both = first.keys() & second.keys()
    assert len(both) > 50 and all(first[each] == second[each] for each in both)
    assert max(map(len, first.values())) < 0.8 * len(codes)  # and not simply all products


def test_own_products_come_first_and_others_fill_up():
    log = receipts(*[(9, day, "XYZ") for day in range(60, 90)], (1, 50, "ABCDEF"), (1, 91, "A"))
    [question] = training_lists.past_lists(log, 1, size=6, days=1)
    assert len(set(question.candidates) & set("ABCDEF")) == 4  # two thirds of six
    assert len(set(question.candidates) & set("XYZ")) == 2


def test_it_depends_on_the_seed_alone():
    log = shop()
    first, again, other = (training_lists.past_lists(log, 20, seed=seed) for seed in (0, 0, 1))
    assert [q.candidates for q in first] == [q.candidates for q in again] != [q.candidates for q in other]


def test_the_order_of_a_list_tells_nothing():
    """What was bought stands as often in the first half of a list as in the second."""
    made = training_lists.past_lists(shop(), 300, size=6, days=150)
    halves = np.array([(q.bought[:3].sum(), q.bought[3:].sum()) for q in made if len(q.bought) == 6])
    assert abs(halves[:, 0].mean() - halves[:, 1].mean()) < 0.2 * halves.mean()


def test_nobody_came_back():
    with pytest.raises(ValueError, match="take more days"):
        training_lists.past_lists(receipts((1, 0, "AB"), (2, 5, "C")), 10)
