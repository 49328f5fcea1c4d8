"""falsehoods: one thing is changed, nothing else, and it is false by the facts."""

import difflib

import numpy as np
import pandas as pd
import pytest

from recbook import falsehoods, shop, storytelling
from recbook import receipts as rc
from recbook.documents import pounds
from recbook.facts import MONTHS, often
from recbook.ledger import Ledger, draw, part

SHOP = shop.simulate()
LEDGER = Ledger(rc.clean(SHOP.receipts).receipts, pd.Timestamp("2011-11-09"), SHOP.products)
CAST, _ = part(LEDGER, 0.2)
MADE = draw(LEDGER, CAST, 300, seed=3)


def planted(kind: str):
    rng = np.random.default_rng(4)
    for place, facts in enumerate(MADE):
        text = storytelling.plain(storytelling.narrative(facts, storytelling.STYLES[place % 2], rng))
        changed = falsehoods.plant(text, facts, LEDGER, kind, rng)
        if changed is not None:
            yield text, changed, facts


@pytest.mark.parametrize("kind", falsehoods.PLANTS)
def test_one_place_is_changed(kind):
    found = list(planted(kind))
    assert len(found) > 100 or kind == "count" and len(found) > 40
    for text, changed, _ in found:
        assert text != changed
        words = difflib.SequenceMatcher(None, text.split(), changed.split(), autojunk=False).get_opcodes()
        assert sum(what != "equal" for what, *_ in words) <= 8  # a name may be told in other words, all at one place
        assert abs(len(text) - len(changed)) < 120


def test_no_true_price_count_or_month_is_planted():
    for text, changed, facts in planted("price"):
        assert text.count(pounds(facts.price)) == changed.count(pounds(facts.price)) + 1
    for _, changed, facts in planted("count"):
        true = {often(p.times) for p in facts.bought} | {f"{c.shoppers} " for c in facts.companions}
        new = [
            word for word in falsehoods.COUNTED.findall(falsehoods._without_names(changed, facts)) if word not in true
        ]
        assert new
    for text, changed, facts in planted("date"):
        new = [m for m in MONTHS if changed.count(m) > text.count(m)]
        assert len(new) == 1 and new[0] not in {date.month_name() for p in facts.bought for date in p.dates}


def test_a_product_is_replaced_by_one_that_the_facts_do_not_know():
    for _, changed, facts in planted("product"):
        known = [facts.name, *(p.name for p in facts.bought), *(c.name for c in facts.companions)]
        others = [name for name in set(LEDGER.names.values()) - set(known) if name in changed]
        assert any(not any(other in name for name in known) for other in others)


def test_praise():
    assert all(any(word in changed for word in falsehoods.PRAISE) for _, changed, _ in planted("other"))
