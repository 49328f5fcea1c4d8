"""Corruptions: one thing is changed, nothing else, and it is false by the facts."""

import os
import re
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from recbook.narratives.corruptions import AMOUNT_PATTERN, CORRUPTIONS, COUNT_PATTERN, PRAISE_WORDS, corrupt
from recbook.narratives.fact_store import draw_facts
from recbook.narratives.facts import MONTH_NAMES, Facts, times_in_words
from recbook.narratives.templates import NARRATIVE_STYLES, document_text, write_template_narrative
from recbook.tokens.documents import format_pounds

Corrupted = list[tuple[str, str, Facts]]  # a true text, what became of it, and the facts


@pytest.fixture(scope="module")
def corrupted(fact_store, fact_subsets) -> Callable[[str], Corrupted]:
    """By kind: all of 300 true texts that can be corrupted so."""
    drawn = draw_facts(fact_store, fact_subsets[0], 300, seed=3)

    @cache
    def of_kind(kind: str) -> Corrupted:
        rng, made = np.random.default_rng(4), []
        for place, facts in enumerate(drawn):
            text = document_text(write_template_narrative(facts, NARRATIVE_STYLES[place % 2], rng))
            changed = corrupt(text, facts, fact_store, kind, rng)
            made += [(text, changed, facts)] if changed is not None else []
        return made

    return of_kind


def names(facts: Facts) -> list[str]:
    return [facts.name, *(p.name for p in facts.bought), *(c.name for c in facts.co_purchases)]


def changed_place(text: str, changed: str) -> str:
    """All of a text between the first letter that is another and the last; "" if something was only added."""
    start = len(os.path.commonprefix([text, changed]))
    end = len(os.path.commonprefix([text[start:][::-1], changed[start:][::-1]]))
    return text[start : len(text) - end]


def changeable(kind: str, text: str, facts: Facts) -> list[str]:
    """What a corruption of a kind may take out of a text, one thing of these, or nothing if it adds a sentence."""
    return {
        "product": names(facts),
        "price": [format_pounds(facts.price)],
        "discount": ["down", "up", "less", "more", *AMOUNT_PATTERN.findall(text), *re.findall(r"\d+(?=% off)", text)],
        "count": COUNT_PATTERN.findall(text),
        "date": MONTH_NAMES,
        "attribute": ["darker", "lighter", *(value for values in facts.attributes.values() for value in values)],
    }.get(kind, [])


@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind != "mixed up"])
def test_one_place_is_changed(corrupted, kind):
    found = corrupted(kind)
    assert len(found) > 100 or kind == "count" and len(found) > 40
    for text, changed, facts in found:
        assert text != changed
        taken = changed_place(text, changed)
        assert any(taken in thing for thing in ["", *changeable(kind, text, facts)]), (text, changed)


def test_what_was_mixed_up_is_a_true_text_when_swapped_back(corrupted):
    found = corrupted("mixed up")
    assert len(found) > 100
    for text, changed, facts in found:
        true = [*names(facts), format_pounds(facts.price), *([format_pounds(facts.was)] if facts.was else [])]
        pairs = [(one, other) for one in true for other in true if one in changed and other in changed]
        back = [changed.replace(a, "\0").replace(b, a).replace("\0", b) for a, b in pairs]
        assert text != changed and text in back


def test_no_corruption_is_a_true_price_count_or_month(corrupted):
    for text, changed, facts in corrupted("price"):
        assert text.count(format_pounds(facts.price)) == changed.count(format_pounds(facts.price)) + 1
    for _, changed, facts in corrupted("count"):
        true = {times_in_words(p.times) for p in facts.bought} | {f"{c.shoppers} " for c in facts.co_purchases}
        for name in sorted(names(facts), key=len, reverse=True):
            changed = changed.replace(name, "it")  # a number in a name is no count
        assert [word for word in COUNT_PATTERN.findall(changed) if word not in true]
    for text, changed, facts in corrupted("date"):
        new = [m for m in MONTH_NAMES if changed.count(m) > text.count(m)]
        assert len(new) == 1 and new[0] not in {date.month_name() for p in facts.bought for date in p.dates}


def test_a_product_is_replaced_by_one_that_the_facts_do_not_know(corrupted, fact_store):
    for _, changed, facts in corrupted("product"):
        known = names(facts)
        others = [name for name in set(fact_store.names.values()) - set(known) if name in changed]
        assert any(not any(other in name for name in known) for other in others)


def test_praise_is_added(corrupted):
    assert all(any(word in changed for word in PRAISE_WORDS) for _, changed, _ in corrupted("other"))
