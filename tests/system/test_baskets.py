"""One definition of a basket: all that reads receipts finds the same ones, however odd the till's numbers are."""

import numpy as np
import pandas as pd
import pytest

from recbook.baselines import evaluation
from recbook.baskets.log import interaction_log
from recbook.cleaning import receipts as rc
from recbook.cleaning.schema import RAW_COLUMNS
from recbook.narratives.fact_store import FactStore
from recbook.ranking.rankers import shoppers_at

CUT = pd.Timestamp("2011-04-01")
LINES = [  # number, code, date, customer
    ("1", "A", "2011-03-01 10:00", 11),
    ("1", "B", "2011-03-01 10:01", 11),
    ("1", "C", "2011-03-01 10:01", 12),  # another till, the same number
    ("2", "A", "2011-03-09 10:00", 11),  # two baskets in the same minute
    ("1", "B", "2011-03-09 10:00", 11),  # the numbers begin anew
    ("3", "C", "2011-03-31 23:59", 12),  # over midnight, and over the cut
    ("3", "A", "2011-04-01 00:01", 12),
    ("4", "B", "2011-04-02 09:00", 12),
    ("1", "C", "2011-04-02 09:00", 11),
]
EXPECTED = {
    11: [("2011-03-01 10:00", ["A", "B"]), ("2011-03-09 10:00", ["A"]), ("2011-03-09 10:00", ["B"])],
    12: [("2011-03-01 10:01", ["C"]), ("2011-03-31 23:59", ["C", "A"])],
}


@pytest.fixture(scope="module")
def receipts() -> pd.DataFrame:
    rows = [(i, f"1000{c}", c, 1, d, 1.0, who, "France") for i, c, d, who in LINES]
    return rc.clean(pd.DataFrame(rows, columns=RAW_COLUMNS), r"1000\w").receipts


def plain(baskets) -> list[tuple[str, list[str]]]:
    return [(f"{date:%Y-%m-%d %H:%M}", [code[-1] for code in codes]) for date, codes in baskets]


def test_the_histories_of_chapter_1_and_of_whoever_asks_are_the_same(receipts):
    before = receipts[receipts["date"] < CUT]
    assert {
        who: [[code[-1] for code in basket] for basket in history] for who, history in rc.histories(before).items()
    } == {who: [codes for _, codes in history] for who, history in EXPECTED.items()}
    for who, shopper in zip((11, 12), shoppers_at(receipts, [11, 12], CUT), strict=True):
        assert plain(shopper.history) == EXPECTED[who]


def test_the_facts_that_are_told_are_of_the_same_baskets(receipts):
    facts = FactStore(receipts, CUT)
    for who in (11, 12):
        assert plain(facts.history(who)) == EXPECTED[who]
        dates = [date for date, codes in EXPECTED[who] if "A" in codes]
        assert [f"{date:%Y-%m-%d %H:%M}" for date in facts.facts(who, "1000A").own.dates] == dates


def test_the_network_learns_from_the_same_baskets(receipts):
    codes = np.array(["1000A", "1000B", "1000C"])
    log, customer = interaction_log(receipts[receipts["date"] < CUT], codes)
    found: dict[int, list] = {11: [], 12: []}
    for basket, who in enumerate(customer.tolist()):
        items = log.items[log.starts[basket] : log.starts[basket + 1]]
        found[who].append((log.origin + log.days[basket] * pd.Timedelta(days=1), codes[items].tolist()))
    assert {
        who: plain([(date.round("s"), held) for date, held in baskets]) for who, baskets in found.items()
    } == EXPECTED


def test_a_split_cuts_between_baskets(receipts):
    split = evaluation.next_basket(receipts, CUT, min_shoppers=1)
    assert split.counts.toarray().tolist() == [[2, 2, 0], [1, 0, 2]]  # customer 12's basket of midnight is history
    assert split.targets.toarray().tolist() == [[False, False, True], [False, True, False]]
