"""Templates: what a fact prompt lists is true, what a text tells stands in the prompt, and texts vary."""

import re

import numpy as np
import pandas as pd
import pytest

from recbook.narratives import pretraining
from recbook.narratives.entities import PLAIN_WORD_PATTERN, word_lists
from recbook.narratives.fact_store import draw_facts
from recbook.narratives.facts import CoPurchase, Facts, Purchase
from recbook.narratives.templates import (
    NARRATIVE_STYLES,
    SENTENCE_KINDS,
    SLOT_PATTERN,
    document_text,
    expand_choices,
    fact_prompt,
    sentence_templates,
    slot_choices,
    slot_products,
    slot_values,
    write_template_narrative,
)
from recbook.tokens import documents
from recbook.tokens.documents import Control, Product

FACTS = Facts(
    pd.Timestamp("2011-11-09"), "G", "Guatemala dark roast", 8.5, was=10.0, season="January",
    attributes={"roast": ("dark roast",), "notes": ("deep chocolate", "red berry"), "occasion": ("office",),
                "theme": ("x",)},
    purchases=(Purchase("E", "Kenya light roast", (pd.Timestamp("2011-03-01"), pd.Timestamp("2011-10-01")), 7.0,
                        {"roast": ("light roast",), "theme": ("x",)}),),
    co_purchases=(CoPurchase("P", "steel kettle", "kettle", 14, True),),
)  # fmt: skip


def spelled(document: documents.Document) -> str:
    return "".join(
        part if isinstance(part, str) else f"<{part.name if isinstance(part, Control) else part.code}>"
        for part in document
    )


def test_a_fact_prompt_by_hand():
    assert spelled(fact_prompt(FACTS)) == (
        "<<|shopper|>><E> Kenya light roast: twice since March, last in October;"
        "<<|product|>><G> Guatemala dark roast: £8.50, for the office, deep chocolate, red berry, darker, was £10.00, "
        "less £1.50, off 15%, best in January, same x;<<|because|>><P> steel kettle: kettle, 14 shoppers, often;"
        "<<|answer|>>"
    )


def test_slots_of_a_rise_and_of_one_purchase():
    import dataclasses

    rise = dataclasses.replace(
        FACTS, was=8.0, purchases=(FACTS.purchases[0]._replace(dates=(pd.Timestamp("2010-12-02"),)),)
    )
    slots = slot_values(rise)
    assert (
        slots["rose"] == "£8.00" and slots["in"] == "December" and not {"was", "less", "percent", "since"} & set(slots)
    )


def test_all_variants_of_a_template():
    assert expand_choices("a [b|c] d[!|]") == ("a b d!", "a b d", "a c d!", "a c d")


@pytest.mark.parametrize("style", NARRATIVE_STYLES)
def test_what_is_told_stands_in_the_prompt(fact_store, fact_subsets, style):
    rng = np.random.default_rng(0)
    for facts in draw_facts(fact_store, fact_subsets[0], 150, seed=1):
        prompt, text = spelled(fact_prompt(facts)), spelled(write_template_narrative(facts, style, rng))
        for number in re.findall(r"£[\d.]+|\d+(?=%)|(?<= )\d+(?= (?:other )?shoppers)", text):
            assert number.rstrip(".") in prompt
        for code in re.findall(r"<(\w+)>", text):
            assert f"<{code}>" in prompt
        assert document_text(write_template_narrative(facts, style, rng))[0].isupper() or "£" in text


def test_narratives_name_the_product_and_its_price_once(fact_store, fact_subsets):
    rng = np.random.default_rng(1)
    for place, facts in enumerate(draw_facts(fact_store, fact_subsets[1], 200, seed=2)):
        document = write_template_narrative(facts, NARRATIVE_STYLES[place % 2], rng)
        assert [part.code for part in document if isinstance(part, Product)].count(facts.code) == 1
        text = document_text(document)
        assert (
            text.count(documents.format_pounds(facts.price)) >= 1
            and "{" not in text
            and "[" not in text
            and "  " not in text
        )


def test_one_prompt_has_many_texts():
    texts = {
        document_text(write_template_narrative(FACTS, style, np.random.default_rng(n)))
        for n in range(200)
        for style in NARRATIVE_STYLES
    }
    assert len(texts) > 200


def test_train_and_held_out_do_not_overlap(fact_store, fact_subsets):
    train, held_out = fact_subsets
    assert not set(train.shoppers) & set(held_out.shoppers) and not set(train.products) & set(held_out.products)
    assert sorted(train.shoppers + held_out.shoppers) == fact_store.customers
    assert abs(len(held_out.shoppers) / len(fact_store.customers) - 0.2) < 0.01
    for facts in draw_facts(fact_store, train, 300, seed=5):
        named = {facts.code, *(p.code for p in facts.bought), *(c.code for c in facts.co_purchases)}
        assert named <= set(train.products)


def test_every_template_can_be_filled_and_every_slot_is_known():
    known = set(slot_choices(FACTS)) | set(slot_products(FACTS))
    known |= {"in", "new", "rose", "own_times", "own_since", "own_in"}
    for style in NARRATIVE_STYLES:
        assert set(sentence_templates()[style]) == set(SENTENCE_KINDS)
        for templates in sentence_templates()[style].values():
            assert all(set(SLOT_PATTERN.findall(template)) <= known for template in templates)


def test_the_words_of_the_templates_are_plain_or_known_to_the_checker():
    """A template whose own words were claims would be flagged whatever the facts are."""
    plain = set(word_lists()["plain"])
    for style in NARRATIVE_STYLES:
        for template in (each for templates in sentence_templates()[style].values() for each in templates):
            words = {word.lower() for word in PLAIN_WORD_PATTERN.findall(SLOT_PATTERN.sub(" ", template))}
            assert words - plain <= {"you've"}, words - plain


def test_the_copy_task_repeats_the_prompt_and_nothing_else(fact_store):
    for document in pretraining.copy_task_prompts(fact_store, 40, seed=3):
        place = document.index(Control("<|answer|>"))
        prompt, copied = spelled(document[:place]), document[place + 1 :]
        words = [
            part.split(fact_store.names[code.code])[-1].strip(" :.")
            for code, part in zip(copied[::2], copied[1::2], strict=True)
        ]
        assert words and all(word in prompt for word in words)


def test_single_sentences_name_only_products_of_the_subset(fact_store):
    among = list(fact_store.names)[:7]
    others = [name for code, name in fact_store.names.items() if code not in among]
    for document in pretraining.single_sentences(fact_store, 60, seed=5, among=among):
        assert {part.code for part in document if isinstance(part, documents.Product)} <= set(among)
        text = " ".join(part for part in document if isinstance(part, str))
        assert not [name for name in others if name in text]


def test_single_sentences_have_no_prompt(fact_store):
    for document in pretraining.single_sentences(fact_store, 40, seed=4):
        assert not any(isinstance(part, Control) for part in document)


def test_an_unknown_style_is_refused():
    with pytest.raises(ValueError, match="no style 'gruff'"):
        write_template_narrative(FACTS, "gruff", np.random.default_rng(0))
