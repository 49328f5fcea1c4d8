"""Corruptions: one thing is changed, nothing else, and it is false by the facts."""

import difflib

import numpy as np
import pandas as pd
import pytest

from recbook.cleaning import receipts as rc
from recbook.cleaning import shop
from recbook.narratives.corruptions import CORRUPTIONS, COUNT_PATTERN, PRAISE_WORDS, _without_names, corrupt
from recbook.narratives.fact_store import FactStore, draw_facts, split_facts
from recbook.narratives.facts import MONTH_NAMES, times_in_words
from recbook.narratives.templates import NARRATIVE_STYLES, document_text, write_template_narrative
from recbook.tokens.documents import format_pounds

SHOP = shop.simulate()
FACT_STORE = FactStore(rc.clean(SHOP.receipts).receipts, pd.Timestamp("2011-11-09"), SHOP.products)
TRAIN, _ = split_facts(FACT_STORE, 0.2)
FACTS = draw_facts(FACT_STORE, TRAIN, 300, seed=3)


def corrupted(kind: str):
    rng = np.random.default_rng(4)
    for place, facts in enumerate(FACTS):
        text = document_text(write_template_narrative(facts, NARRATIVE_STYLES[place % 2], rng))
        changed = corrupt(text, facts, FACT_STORE, kind, rng)
        if changed is not None:
            yield text, changed, facts


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_one_place_is_changed(kind):
    found = list(corrupted(kind))
    assert len(found) > 100 or kind == "count" and len(found) > 40
    for text, changed, _ in found:
        assert text != changed
        words = difflib.SequenceMatcher(None, text.split(), changed.split(), autojunk=False).get_opcodes()
        assert sum(what != "equal" for what, *_ in words) <= 8  # a name may be told in other words, all at one place
        assert abs(len(text) - len(changed)) < 120


def test_no_corruption_is_a_true_price_count_or_month():
    for text, changed, facts in corrupted("price"):
        assert text.count(format_pounds(facts.price)) == changed.count(format_pounds(facts.price)) + 1
    for _, changed, facts in corrupted("count"):
        true = {times_in_words(p.times) for p in facts.bought} | {f"{c.shoppers} " for c in facts.co_purchases}
        new = [word for word in COUNT_PATTERN.findall(_without_names(changed, facts)) if word not in true]
        assert new
    for text, changed, facts in corrupted("date"):
        new = [m for m in MONTH_NAMES if changed.count(m) > text.count(m)]
        assert len(new) == 1 and new[0] not in {date.month_name() for p in facts.bought for date in p.dates}


def test_a_product_is_replaced_by_one_that_the_facts_do_not_know():
    for _, changed, facts in corrupted("product"):
        known = [facts.name, *(p.name for p in facts.bought), *(c.name for c in facts.co_purchases)]
        others = [name for name in set(FACT_STORE.names.values()) - set(known) if name in changed]
        assert any(not any(other in name for name in known) for other in others)


def test_praise_is_added():
    assert all(any(word in changed for word in PRAISE_WORDS) for _, changed, _ in corrupted("other"))
