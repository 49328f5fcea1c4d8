"""The claim checker: texts written by hand, with every claim and its place; corruptions; true texts, none flagged."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbook.narratives import claim_patterns as patterns
from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.corruptions import CORRUPTIONS, corrupt, is_caught
from recbook.narratives.fact_store import FactStore, FactSubset, draw_facts
from recbook.narratives.facts import CoPurchase, Facts, Purchase
from recbook.narratives.templates import NARRATIVE_STYLES, document_text, write_template_narrative
from recbook.tokens.documents import format_pounds

MOMENT = pd.Timestamp("2011-11-09")
NAMES = {
    "G": "Guatemala dark roast", "E": "Ethiopia Yirgacheffe light roast", "K": "Kenya medium roast",
    "P": "cream steel pour-over kettle", "J": "navy gingham porcelain milk jug", "T": "navy gingham porcelain teapot",
    "S": "set of 6 spice tins", "M": "may tree card", "O": "Fanny's rest. stop sign",
}  # fmt: skip
ATTRIBUTES = {
    "G": {"kind": ("coffee",), "roast": ("dark roast",), "theme": ("Guatemala",),
          "notes": ("deep chocolate", "red berry")},
    "E": {"kind": ("coffee",), "roast": ("light roast",), "theme": ("Ethiopia Yirgacheffe",),
          "notes": ("bright lemon", "jasmine")},
    "K": {"kind": ("coffee",), "roast": ("medium roast",), "theme": ("Kenya",), "notes": ("caramel", "plum")},
    "P": {"kind": ("pour-over kettle",), "colour": ("cream",), "material": ("steel",), "occasion": ("morning coffee",)},
    "J": {"kind": ("milk jug",), "colour": ("navy",), "material": ("porcelain",), "theme": ("gingham",),
          "occasion": ("afternoon tea",)},
    "T": {"kind": ("teapot",), "colour": ("navy",), "material": ("porcelain",), "theme": ("gingham",),
          "occasion": ("afternoon tea",)},
    "S": {"kind": ("tins",)}, "M": {"kind": ("card",)}, "O": {"kind": ("sign",)},
}  # fmt: skip
CHECKER = ClaimChecker(SimpleNamespace(names=NAMES, attributes=ATTRIBUTES))


def purchase(code: str, *dates: str, paid: float = 7.0) -> Purchase:
    return Purchase(code, NAMES[code], tuple(map(pd.Timestamp, dates)), paid, ATTRIBUTES[code])


COFFEE = Facts(
    MOMENT, "G", NAMES["G"], 8.5, was=10.0, season="January", attributes=ATTRIBUTES["G"],
    purchases=(purchase("E", "2011-03-14", "2011-10-03"), purchase("P", "2011-05-20", paid=31.0)),
    co_purchases=(CoPurchase("P", NAMES["P"], "pour-over kettle", 14, often=True),
                CoPurchase("E", NAMES["E"], "coffee", 6, often=False)),
)  # fmt: skip
JUG = Facts(
    MOMENT, "J", NAMES["J"], 4.25, was=3.95, new_since=pd.Timestamp("2011-08-02"), attributes=ATTRIBUTES["J"],
    purchases=(purchase("T", "2011-02-01", "2011-02-20", "2011-09-09"), purchase("S", "2011-06-06")),
    own=purchase("J", "2010-12-24", paid=3.95), co_purchases=(CoPurchase("T", NAMES["T"], "teapot", 9, often=False),),
)  # fmt: skip

NARRATIVE = (
    "You've come back to the bright Ethiopian roast twice since March. This Guatemalan is its darker cousin: deep "
    "chocolate, a hint of red berry. £8.50, and shoppers who bought your kettle often take it too."
)


def told(text: str, facts: Facts) -> list[tuple[str, str, bool]]:
    found = CHECKER.claims(text, facts)
    assert all(text[claim.start : claim.end] == claim.text for claim in found)
    assert all(claim.kind in patterns.CLAIM_KINDS and bool(claim.why) != claim.true for claim in found)
    return [(claim.text, claim.kind, claim.true) for claim in found]


def false(text: str, facts: Facts) -> list[tuple[str, str]]:
    return [(text, kind) for text, kind, true in told(text, facts) if not true]


def test_every_claim_of_a_narrative_by_hand():
    assert told(NARRATIVE, COFFEE) == [
        ("come back", "count", True), ("bright", "attribute", True), ("Ethiopian", "attribute", True),
        ("roast", "attribute", True), ("twice", "count", True), ("March", "date", True),
        ("Guatemalan", "attribute", True), ("darker", "attribute", True),
        ("deep chocolate", "attribute", True), ("red berry", "attribute", True),
        ("£8.50", "price", True), ("shoppers", "co-purchase", True), ("kettle", "attribute", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "caught"),
    [
        ("twice", "three times", "three times"), ("March", "April", "April"), ("darker", "lighter", "lighter"),
        ("deep chocolate", "caramel", "caramel"), ("red berry", "jasmine", "jasmine"), ("£8.50", "£8.05", "£8.05"),
        ("kettle", "teapot", "teapot"), ("Guatemalan", "Kenyan", "Kenyan"), ("bright Ethiopian", "dark Ethiopian",
        "dark"),
        ("roast twice", "roast 2 times", ""), ("£8.50", "8.50 pounds", ""), ("since March", "since 14 March 2011", ""),
        ("since March", "since 15 March 2011", "15 March 2011"), ("since March", "since March 2010", "March 2010"),
        ("twice since", "often since", ""), ("shoppers who", "14 shoppers who", ""), ("shoppers who",
        "15 shoppers who", "15"),
        ("often take", "always take", "always"), ("This Guatemalan", "This bestselling Guatemalan", "bestselling"),
        ("its darker", "its cheaper darker", ""), ("This Guatemalan", "This Amsterdam", "Amsterdam"),
    ],
)  # fmt: skip
def test_one_thing_changed_in_it(old, new, caught):
    text = NARRATIVE.replace(old, new, 1)
    assert [part for part, _ in false(text, COFFEE)] == ([caught] if caught else [])


@pytest.mark.parametrize(
    "text",
    [
        "Down from £10.00 to £8.50: you save £1.50.", "It is 15% off, £8.50 instead of £10.",
        "Now £1.50 less than before, and cheaper is good.", "It was £10, it costs £8.50.", "It has fallen by £1.50.",
        "You last bought the Ethiopia Yirgacheffe light roast in October.",
        "First ordered in March, the Ethiopia Yirgacheffe light roast.", "Most of it is sold in January.",
        "You paid £7.00 for the Ethiopia Yirgacheffe light roast.", "January is when it sells best.",
        "6 others who bought the Ethiopia Yirgacheffe light roast took it too.", "You bought a kettle in May.",
        "In 2011 you bought the cream steel pour-over kettle.", "How about the Guatemala dark roast? May we send it?",
        "Often bought with the cream steel pour-over kettle.",
        "On 20 May 2011 you chose the cream steel pour-over kettle.",
    ],
)  # fmt: skip
def test_true_in_other_words(text):
    assert false(text, COFFEE) == []
    assert told(text, COFFEE)


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("Up from £10.00 to £8.50.", ["£10.00"]), ("It is 20% off.", ["20%"]),
        ("15% more than before.", ["15%", "more than before"]),
        ("It costs £10.", ["£10"]), ("It was £8.50.", ["£8.50"]), ("The price has gone up.", ["price has gone up"]),
        ("You bought the Guatemala dark roast in March.", ["Guatemala dark roast", "March"]),
        ("You bought the Kenya medium roast twice.", ["Kenya medium roast", "twice"]),
        ("This Ethiopia Yirgacheffe light roast is next.", ["Ethiopia Yirgacheffe light roast"]),
        ("Shoppers who bought the Kenya medium roast often take it too.", ["Kenya medium roast", "Kenya medium roast"]),
        ("14 shoppers who bought the Ethiopia Yirgacheffe light roast took it too.", ["14"]),
        ("Others bought it with the set of 6 spice tins.", ["set of 6 spice tins", "set of 6 spice tins"]),
        ("You bought the Ethiopia Yirgacheffe light roast last in March.", ["March"]),
        ("You bought the cream steel pour-over kettle twice in May.", ["twice"]),
        ("It sells best in July.", ["July"]), ("New since August.", ["August"]), ("A light roast.", ["light roast"]),
        ("It makes 12 cups, or 3 litres.", ["12", "3", "litres"]), ("Handmade and organic.", ["Handmade", "organic"]),
        ("You bought it last week.", ["last week"]), ("Ordered in March: this one.", ["March"]),
        ("The Guatemala dark roast is new. You bought it in March.", ["new", "March"]),
        ("You bought the Ethiopia Yirgacheffe light roast. Shoppers often take it too.", ["Shoppers"]),
        ("A turquoise velvet treat.", ["turquoise", "velvet"]),
        ("Half the price!", ["Half the price"]), ("Everyone loves it.", ["Everyone"]), ("Save €3.", ["€", "3"]),
    ],
)  # fmt: skip
def test_false_claims_in_other_words(text, caught):
    assert [part for part, _ in false(text, COFFEE)] == caught


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("You bought the navy gingham porcelain teapot three times since February, last in September.", []),
        ("You bought the navy gingham porcelain teapot twice in February.", []),
        ("You bought the navy gingham porcelain teapot three times in February.", ["three times"]),
        ("You have the navy gingham porcelain teapot. The jug has the same gingham.", []),
        ("Bought once: the set of 6 spice tins.", []), ("Bought 6 times: the set of 6 spice tins.", ["6 times"]),
        ("It has the same steel.", ["steel"]), ("Up from £3.95, by 8%.", ["8%"]), ("Up from £3.95, 8% more.", []),
        ("New in the shop since August.", []), ("New since July.", ["July"]), ("It is dearer than before, £4.25.", []),
        ("You bought this one in December.", []), ("You bought this one in November.", ["November"]),
        ("You bought this navy gingham porcelain milk jug in December.", []), ("You paid £3.95 last time.", []),
        ("The navy gingham porcelain teapot: for afternoon tea.", ["navy gingham porcelain teapot"]),
        ("The set of 6 spice tins: navy.", ["set of 6 spice tins", "navy"]),
        ("The navy gingham porcelain teapot: £4.25.", ["navy gingham porcelain teapot", "£4.25"]),
        ("The set of 6 spice tins, new since August.", ["set of 6 spice tins", "August"]),
        ("For afternoon tea.", []), ("For morning coffee.", ["morning coffee"]),
        ("9 shoppers bought both it and the navy gingham porcelain teapot.", []),
        ("Shoppers who bought your teapot often take it too.", ["Shoppers"]),
    ],
)  # fmt: skip
def test_another_product(text, caught):
    assert [part.lower() for part, _ in false(text, JUG)] == [part.lower() for part in caught]


def test_a_number_in_a_name_is_part_of_the_name():
    assert [part for part, kind, _ in told("Try the Set of 6 spice tins", JUG) if kind == "count"] == []
    assert false("It comes as a set of 6.", JUG) == [("set", "attribute"), ("6", "count")]
    assert CHECKER.starts("The Fanny's rest. stop sign is £3.50. It is new.") == [0, 38]


def test_facts_decide_and_not_the_words():
    text = "It is £8.50, down from £10."
    assert false(text, COFFEE) == [] and false(text, replace(COFFEE, was=9.0)) == [("£10", "discount")]
    assert false(text, replace(COFFEE, price=8.4)) == [("£8.50", "price")]
    assert false(text, replace(COFFEE, was=None)) == [("£10", "discount")]


@given(st.integers(1, 60), st.integers(1, 60))
def test_counts_are_held_against_the_receipts(bought, claimed):
    facts = replace(COFFEE, purchases=(purchase("E", *["2011-10-03"] * bought),))
    text = f"You bought the {NAMES['E']} {claimed} times."
    assert (false(text, facts) == []) == (bought == claimed)


@given(st.decimals("0.05", 500, places=2), st.decimals("0.05", 500, places=2))
def test_prices_are_exact(price, claimed):
    assert (false(f"It costs £{claimed}.", replace(COFFEE, price=float(price))) == []) == (price == claimed)


@given(st.text(max_size=80))
def test_any_text_is_read(text):
    for claim in CHECKER.claims(text, COFFEE):
        assert text[claim.start : claim.end] == claim.text


@given(st.integers(13, 99_999))
def test_no_number_goes_unexplained(stray):
    assert str(stray) in "".join(part for part, _ in false(f"The coffee for {stray} mornings.", COFFEE)).replace(
        ",", ""
    )


# Texts written by hand, by somebody else

HAND_WRITTEN = json.loads((Path(__file__).parent / "hand_written.json").read_text(encoding="utf-8"))


def written(by: str, truth: str) -> list[tuple[str, Facts]]:
    """The texts of one author, with their slots filled with the names and prices of the facts."""
    found = []
    for text in HAND_WRITTEN[by][truth]:
        facts = {"coffee": COFFEE, "jug": JUG}[text["facts"]]
        second = facts.co_purchases[0].name if facts is COFFEE else NAMES["S"]
        values = {"product": facts.name, "bought": facts.purchases[0].name, "price": format_pounds(facts.price)}
        values |= {"was": format_pounds(facts.was), "with": second, "second": second, "stranger": NAMES["S"]}
        found.append((text["text"].format(**values), facts))
    return found


@pytest.mark.parametrize(
    ("by", "number_false", "caught", "number_true", "passed"),
    [("reviewer", 129, 128, 67, 65), ("later", 32, 32, 25, 22)],
)
def test_texts_written_by_hand(by, number_false, caught, number_true, passed):
    """How many texts that are false are caught, and how many true ones pass: floors, not estimates.

    The first were written by somebody who had not read the rules, and before the rules were mended for them: before
    that, 52 of the 129 were caught and 49 of the 67 passed. Since the rules have been mended with these texts in view
    they say little of how others fare. The second were written once the rules were mended, by one who knew them: at
    first 32 of 32 were caught and 19 of 25 passed (by the old rules 18 and 21), then three of those that were flagged
    were mended as well. What the checker pays for its caution is the true texts that it flags.
    """
    lies, truths = written(by, "false"), written(by, "true")
    assert (len(lies), len(truths)) == (number_false, number_true)
    assert sum(bool(CHECKER.false(text, facts)) for text, facts in lies) >= caught
    assert sum(not CHECKER.false(text, facts) for text, facts in truths) >= passed


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("You may love the {E}!", ["{E}"]), ("The {P} would be just right.", ["{P}"]),
        ("We thought of the {E} next!", ["{E}"]), ("Suggested by us: the {E}.", ["{E}"]), ("Enjoy the {P}!", ["{P}"]),
        ("For you we chose the {P}.", ["{P}"]),
        ("The {E} could be your next treat! It is only £8.50.", ["{E}", "£8.50"]), ("Your {G} is lovely.", ["{G}"]),
        ("You own the {G}.", ["{G}"]), ("Like the {P}, the {G} is a coffee.", []), ("It goes with the {P}.", []),
        ("It is darker than the {G}.", ["{G}"]), ("The {E} goes with it.", ["{E}"]),
    ],
)  # fmt: skip
def test_no_other_product_is_recommended(text, caught):
    names = {code: NAMES[code] for code in "EGP"}
    assert [part for part, _ in false(text.format(**names), COFFEE)] == [part.format(**names) for part in caught]


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("Do you still love the {G}?", ["{G}"]), ("Do you still love the {P}?", []),
        ("You've come back to the {E}!", []),
        ("You've come back to the {P}!", ["come back"]), ("You bought the {P} again.", ["again"]),
        ("You bought the {E} again in October.", []), ("You bought the {E} again in March.", ["March"]),
        ("You bought the {P} often.", ["often"]), ("You bought the {E} often.", []),
        ("It is new.", ["new"]), ("It has just arrived.", ["arrived"]), ("You bought this one.", ["bought this one"]),
        ("You bought the {E} twice and the {P} once.", []), ("You bought the {E} twice and the {P} twice.", ["twice"]),
        ("In March you bought the {E}; in May, the {P}.", []),
        ("In March you bought the {E}; in June, the {P}.", ["June"]),
    ],
)  # fmt: skip
def test_whether_it_was_bought_and_again(text, caught):
    names = {code: NAMES[code] for code in "EGP"}
    assert [part for part, _ in false(text.format(**names), COFFEE)] == [part.format(**names) for part in caught]


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("It costs less than £10.", []), ("It costs less than £8.50.", ["£8.50"]), ("It costs more than £8.", []),
        ("It costs at least £9.", ["£9"]), ("You bought the {E} more than once.", []),
        ("You bought the {E} more than twice.", ["twice"]), ("You bought the {P} at least twice.", ["twice"]),
        ("It costs nothing.", ["nothing"]), ("It does not sell best in January.", ["not"]),
        ("It isn't dark.", ["isn't"]),
        ("The price has not changed.", ["not"]), ("The price went up.", ["price went up"]),
        ("It was cheaper.", ["was cheaper"]),
        ("Half of the shoppers who bought the {P} took it too.", ["Half of the shoppers"]),
        ("It tastes of hazelnut.", ["hazelnut"]), ("Dishwasher safe, made of oak.", ["Dishwasher", "safe", "oak"]),
        ("You bought the {E}: £8.50.", ["£8.50"]), ("You bought the {E}: £7.00.", []),
    ],
)  # fmt: skip
def test_words_that_turn_a_claim(text, caught):
    assert [part for part, _ in false(text.format(E=NAMES["E"], P=NAMES["P"]), COFFEE)] == caught


def test_what_is_new_may_be_called_new():
    assert false("It is new.", JUG) == [] and false("New in the shop.", JUG) == []
    assert false("It is new.", replace(JUG, new_since=None)) == [("new", "date")]


# Many texts: of the shop's own templates, so they say nothing of how the checker reads what others write


def true_texts(fact_store: FactStore, held_out: FactSubset, number: int, seed: int) -> list[tuple[str, Facts]]:
    rng = np.random.default_rng(seed)
    drawn = draw_facts(fact_store, held_out, number, seed)
    return [(document_text(write_template_narrative(f, NARRATIVE_STYLES[rng.integers(2)], rng)), f) for f in drawn]


def test_of_a_thousand_true_texts_none_is_flagged(fact_store, fact_subsets, claim_checker):
    for text, facts in true_texts(fact_store, fact_subsets[1], 1000, seed=0):
        claims = claim_checker.claims(text, facts)
        assert [claim for claim in claims if not claim.true] == [], text
        assert any(claim.kind == "price" for claim in claims)


def test_of_a_thousand_corruptions_all_are_caught(fact_store, fact_subsets, claim_checker):
    rng, caught = np.random.default_rng(1), Counter()
    texts = true_texts(fact_store, fact_subsets[1], 1000, seed=2)
    for kind in CORRUPTIONS:
        corrupted = ((corrupt(text, f, fact_store, kind, rng), f) for text, f in texts)
        corrupted = [(text, f) for text, f in corrupted if text is not None][:130]
        for text, facts in corrupted:
            assert is_caught(text, facts, kind, claim_checker), (kind, text)
            caught[kind] += 1
    assert sum(caught.values()) >= 1000 and set(caught) == {*patterns.CLAIM_KINDS, "mixed up"}
