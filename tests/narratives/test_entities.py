"""Entity recognition: what stands where in a text, by hand, and names found among all names of the shop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbook.narratives.entities import (
    COVERED,
    DATE_PATTERN,
    MORE_PLAIN_WORDS,
    NUMBER_PATTERN,
    PERCENT_PATTERN,
    PRICE_PATTERN,
    Lexicon,
    Mention,
    cover_mentions,
    is_plain_english,
    list_opening,
    parse_number,
    word_lists,
    word_stem,
)

NAMES = {
    "1": "red mug",
    "2": "set of 6 spice tins",
    "3": "red mug with stars",
    "4": "Red Mug",
    "5": "candle",
    "6": "t-light",
}
ATTRIBUTES = {code: {} for code in NAMES} | {
    "1": {"colour": ("red",), "kind": ("mug",)}, "3": {"colour": ("red",), "theme": ("shooting stars",)}
}  # fmt: skip
LEXICON = Lexicon(NAMES, ATTRIBUTES)


def found(pattern, text: str) -> list[str]:
    return [place[0] for place in pattern.finditer(text)]


def test_the_longest_name_is_found_whatever_its_letters():
    text = "The RED MUG with stars, the Set of 6 Spice Tins and a red mug."
    names = LEXICON.names(text)
    assert [text[n.start : n.end] for n in names] == ["RED MUG with stars", "Set of 6 Spice Tins", "red mug"]
    assert [set(n.value) for n in names] == [{"3"}, {"2"}, {"1", "4"}]


@pytest.mark.parametrize("text", ["a tired mug", "red muggy", "candles", "set of 6 spice"])
def test_parts_of_words_are_no_names(text):
    assert LEXICON.names(text) == []


def test_a_name_after_a_punctuation_mark():
    assert [(n.start, n.end) for n in LEXICON.names("(candle) x/t-light.")] == [(1, 7), (11, 18)]


def test_attributes_the_longest_first_and_words_of_names():
    text = "shooting stars on a red thing, turquoise"
    assert [text[a.start : a.end] for a in LEXICON.attributes(text)] == ["shooting stars", "red", "turquoise"]
    assert LEXICON.fits("red", "1") and LEXICON.fits("stars", "3") and LEXICON.fits("tin", "2")
    assert (
        not LEXICON.fits("red", "2") and not LEXICON.fits("turquoise", "1") and not LEXICON.fits("shooting stars", "1")
    )


def test_texts_of_one_frame_differ_in_their_facts_alone():
    one = LEXICON.frame("You bought the red mug twice since May. It is red, £8.50, 15% off.")
    other = LEXICON.frame("You bought the set of 6 spice tins 12 times since June. It is shooting stars, £1, 3% off.")
    assert one == "You bought the … … since …. It is …, …, … off."
    assert other == one.replace("… … since", "… … times since")
    assert LEXICON.frame("You chose the red mug.") != LEXICON.frame("You bought the red mug.")


def test_covering_keeps_the_length():
    covered = cover_mentions("a red mug!", [Mention(2, 9, None)])
    assert covered == f"a {7 * COVERED}!"


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("since March, not march", ["March"]), ("on 14 March 2011.", ["14 March 2011"]),
        ("March 14, 2011", ["March 14, 2011"]),
        ("in Sept and Dec", ["Sept", "Dec"]), ("since 2010", ["2010"]), ("£2010 or 12010", ["2010"]), ("Marching", []),
    ],
)  # fmt: skip
def test_dates(text, dates):
    assert found(DATE_PATTERN, text) == dates


def test_prices_per_cents_and_numbers():
    assert found(PRICE_PATTERN, "£8.50, £ 1,200 or 8 pounds, 50p. 3 pots") == ["£8.50", "£ 1,200", "8 pounds", "50p"]
    assert found(PERCENT_PATTERN, "15% and 3.5 per cent, 4 percents") == ["15%", "3.5 per cent"]
    assert found(NUMBER_PATTERN, "Once, twice, three, 12 and oneself; 1,200") == [
        "Once",
        "twice",
        "three",
        "12",
        "1,200",
    ]
    assert [parse_number(word) for word in ("Twice", "twelve", "1,200", "3.5")] == [2, 12, 1200, 3.5]


def test_stems():
    assert word_stem("Mugs") == word_stem("mug") and word_stem("glass") == "glass"
    assert word_stem("Kenyan") == word_stem("Kenya") and word_stem("wood") == "wooden"


def test_plain_words_in_all_their_forms():
    assert all(
        map(is_plain_english, ["The", "bought", "buying", "wishes", "you've", "it’s", "didn't", "chosen", "enjoyed"])
    )
    assert not any(map(is_plain_english, ["hazelnut", "oak", "waterproof", "huge", "organic", "decaffeinated"]))
    foreign = {word.lower() for word in word_lists()["foreign"]}
    assert not MORE_PLAIN_WORDS & {*word_lists()["plain"], *foreign}


@pytest.mark.parametrize(
    ("before", "first"),
    [("in March and ", "in "), ("on 14 March, and ", "on "), ("in March, April and ", "in "),
     ("since March ", "since March "), ("tea and ", "tea and ")],
)  # fmt: skip
def test_months_in_a_list_are_read_with_the_first(before, first):
    assert list_opening(before) == first


def test_no_plain_word_is_an_attribute(shop):
    lists = word_lists()
    assert not set(lists["plain"]) & {word.lower() for word in lists["foreign"]}
    assert len(set(lists["plain"])) == len(lists["plain"])
    true = [*shop.products["colour"], *shop.products["material"]]
    values = {word for value in true for word in value.lower().split()}
    assert values & set(lists["plain"]) <= {"for", "light"}  # ground for filter


@given(st.lists(st.sampled_from(sorted(set(NAMES.values())) + ["and", "the", "a mug", "12"]), max_size=6))
def test_names_are_found_wherever_they_stand(parts):
    text = " | ".join(parts)
    named = [text[n.start : n.end] for n in LEXICON.names(text)]
    assert named == [part for part in parts if part in NAMES.values()]


def test_every_name_of_the_shop_is_found_in_a_sentence(shop):
    names = shop.products["name"].to_dict()
    lexicon, rng = Lexicon(names, {code: {} for code in names}), np.random.default_rng(0)
    for code in rng.choice(list(names), 200):
        text = f"You bought the {names[code]} twice."
        assert [text[n.start : n.end] for n in lexicon.names(text)] == [names[code]]
        assert code in lexicon.names(text)[0].value
