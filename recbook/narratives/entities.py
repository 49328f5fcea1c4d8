"""Entity recognition: finds products by name, attributes, prices, numbers and months in a text; it knows no facts.

Names of products are found first, the longest first, and covered, so that the six in "set of 6 spice tins" is not
taken for a number, nor the red in "red retrospot plate" for a claim. All places are (start, end) in the text as given.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any, Generic, NamedTuple, TypeVar

import pandas as pd

from recbook.narratives.facts import MONTH_NAMES, NUMBER_WORDS, Attributes

COVERED = "\ue000"  # replaces every letter of a name that was found
MONTH_PATTERN = "|".join(f"{name}|{name[:3]}" for name in MONTH_NAMES) + "|Sept"
DAY_PATTERN = r"\d{1,2}(?:st|nd|rd|th)?"
DATE_PATTERN = re.compile(
    rf"\b(?:({DAY_PATTERN})\s+(?:of\s+)?)?({MONTH_PATTERN})\b(?:\s+({DAY_PATTERN})\b)?(?:,?\s+((?:19|20)\d\d)\b)?"
    r"|\b((?:19|20)\d\d)\b"
)
PRICE_PATTERN = re.compile(r"£\s?(\d+(?:,\d{3})*(?:\.\d+)?)|\b(\d+(?:\.\d+)?)\s?(pounds?|pence|p|quid|GBP)\b")
PERCENT_PATTERN = re.compile(r"\b(\d+(?:\.\d+)?)\s?(?:%|per ?cent\b)")
LETTERS_PATTERN = re.compile(r"[^\s\ue000]+")
PLAIN_WORD_PATTERN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
NUMBER_PATTERN = re.compile(
    r"\b(?:once|twice|thrice|" + "|".join(NUMBER_WORDS[1:]) + r"|thirteen|fifteen|twenty|hundred|dozen|couple"
    r"|\d+(?:[.,]\d+)*)(?!\w)",
    re.IGNORECASE,
)  # fmt: skip
NUMBER_VALUES = {word: value for value, word in enumerate(NUMBER_WORDS)} | {
    "once": 1, "twice": 2, "thrice": 3, "couple": 2, "dozen": 12, "thirteen": 13, "fifteen": 15, "twenty": 20,
    "hundred": 100,
}  # fmt: skip
CHAIN_PATTERN = re.compile(r"(?:,?\s+(?:and|or)|,)\s*$")  # between two dates
MORE_PLAIN_WORDS = frozenset(  # plain words besides those of stories.json
    """
    able across act afternoon against ago agree ahead along alongside already anything anytime appeal appreciate
    arrive aside ask away awhile bag belong bit bottom bring came care case catch chance change charming check cheer
    click client collect collection combination comfort coming compare continue count course cup daily date deal
    decide delight delightful deserve different done drink during earlier earliest early easy eat eight either
    eleven entire especially everyday everything exactly excellent explore eye fallen fan fancy feel fifteen finally
    fine five follow four fourteen fun further future gift giving glad gorgeous greet group guess hand happen hear
    heart help hey hi hope hour household increase indeed inspired instead interest invite item join joy joyful kept
    late latest launched leave left lies life likewise list literally live loving lucky mark member mention mid mine
    minute miss moment money morning mother myself name natural nearby neighbour night nine none normal notice
    number obvious oneself onto open option ourselves owner paid part particular pass past pay per plain plan play
    pleasant pleasure plenty plus possible present previous product purchase put question quick reach ready real
    remain remind rest reward rose round seem send sense serve set seven share sharing shelf shelves side sight
    similar simply six size somebody someone sometimes somewhere sort spend spent spoil spot spring stand start stay
    steady stop style sure surprise table tell ten themselves third thirteen three throughout till tonight top total
    toward tried turn twelve twenty twice type unit usual value variety visit wait weekend welcome went whatever
    whenever whether whole whom wide within word work yes
    """.split()
)
WORD_ENDINGS = ("", "s", "es", "ed", "d", "ing", "ly", "'s", "'ve", "'re", "'ll", "'d", "n't")


Value = TypeVar("Value")  # of a product name the codes that have it, of an attribute its words


class Mention(NamedTuple, Generic[Value]):
    """An entity in a text: where it stands, and its value."""

    start: int
    end: int
    value: Value


ProductName = Mention[frozenset[str]]


@lru_cache(maxsize=1)
def word_lists() -> dict[str, Any]:
    """Plain words, attribute words that this shop may not have, and synonyms: the lists of stories.json."""
    return json.loads(files("recbook.narratives").joinpath("stories.json").read_text(encoding="utf-8"))


class Lexicon:
    """A dictionary of a catalogue's names and attributes, which finds them in texts (a gazetteer)."""

    def __init__(self, names: Mapping[str, str], attributes: Mapping[str, Attributes]):
        """Both by code: `names` as texts write them, `attributes` such as colour: ("navy",)."""
        self.codes: dict[str, set[str]] = defaultdict(set)
        for code, name in names.items():
            self.codes[_normalized(name)].add(code)
        self.by_first_word: dict[str, list[str]] = defaultdict(list)  # first word -> names, the longest first
        for name in sorted(self.codes, key=len, reverse=True):
            self.by_first_word[name.split()[0]].append(name)
        self.values = {_normalized(v) for values in attributes.values() for group in values.values() for v in group}
        self.values |= {_normalized(word) for word in word_lists()["foreign"]}
        self.stems = {code: self._stems([names[code], *_flattened(attributes[code])]) for code in names}
        self.phrases = {code: {_normalized(value) for value in _flattened(attributes[code])} for code in names}
        known = {word_stem(word) for name in self.codes for word in PLAIN_WORD_PATTERN.findall(name)}
        known |= {word_stem(word) for value in self.values for word in PLAIN_WORD_PATTERN.findall(value)}
        self.product_words = known - {word_stem(word) for word in word_lists()["plain"]} | set(
            map(word_stem, word_lists()["alike"])
        )
        longest = sorted((v for v in self.values if " " in v), key=len, reverse=True)
        self.pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, longest)) + r")\b" if longest else r"(?!)")

    def names(self, text: str) -> list[ProductName]:
        """Every product name; its value is the set of codes that have that name."""
        small, found, place = _lower_case_in_place(text), [], 0
        while word := LETTERS_PATTERN.search(small, place):
            place = word.end()
            for start in _name_starts(word):
                if named := self._name(small, start):
                    name, place = named
                    found.append(Mention(start, place, frozenset(self.codes[name])))
                    break
        return found

    def _name(self, text: str, place: int) -> tuple[str, int] | None:
        """The longest name that begins here, and where it ends."""
        first = re.match(r"\S+", text[place:])
        if not first or (place and text[place - 1].isalnum()):
            return None
        opening = first[0]
        while opening:
            for name in self.by_first_word.get(opening, ()):
                end = place + len(name)
                if (
                    text.startswith(name, place)
                    and not (text[end : end + 1].isalnum() and name[-1].isalnum())
                    and (len(PLAIN_WORD_PATTERN.findall(name)) != 1 or word_stem(name) in self.product_words)
                ):
                    return name, end
            opening = opening[:-1]
        return None

    def attributes(self, text: str) -> list[Mention[str]]:
        """Every attribute, and every other word of product names; its value is the words in lower case."""
        small = _lower_case_in_place(text)
        found = [Mention(*place.span(), place[0]) for place in self.pattern.finditer(small)]
        covered = cover_mentions(small, found)
        for word in PLAIN_WORD_PATTERN.finditer(covered):
            if word_stem(word[0]) in self.product_words:
                found.append(Mention(*word.span(), word[0]))
        return sorted(found)

    def frame(self, text: str) -> str:
        """The text with every name, attribute, price, date and number replaced by the same mark, "…".

        Two texts with the same frame are one template with different facts.
        """
        covered = cover_mentions(text, self.names(text))
        covered = cover_mentions(covered, self.attributes(covered))
        for pattern in (PRICE_PATTERN, PERCENT_PATTERN, DATE_PATTERN, NUMBER_PATTERN):
            covered = pattern.sub("…", covered)
        return re.sub(rf"{COVERED}(?:[{COVERED}\s]*{COVERED})?", "…", covered)

    def fits(self, value: str, code: str) -> bool:
        """Whether an attribute that was found is this product's; False for a code that is not in the catalogue."""
        if code not in self.stems:
            return False
        if value in self.values and " " in value:
            return value in self.phrases[code] or self._stems([value]) <= self.stems[code]
        return self._stems([value]) <= self.stems[code]

    def _stems(self, texts: Iterable[str]) -> frozenset[str]:
        return frozenset(word_stem(word) for text in texts for word in PLAIN_WORD_PATTERN.findall(text))


def cover_mentions(text: str, found: Iterable[Mention]) -> str:
    """The text with every mention covered; its length stays the same."""
    for place in found:
        text = text[: place.start] + COVERED * (place.end - place.start) + text[place.end :]
    return text


def word_stem(word: str) -> str:
    """The stem of a word: lower case, without its plural; synonyms have one stem: Kenyan is Kenya, wood is wooden."""
    small = word.lower().replace("’", "'").removesuffix("'s")
    small = word_lists()["alike"].get(small, small)
    return small[:-1] if len(small) > 3 and small.endswith("s") and not small.endswith("ss") else small


def parse_number(text: str) -> float:
    """The value of a number in figures or in words."""
    small = text.lower()
    return NUMBER_VALUES[small] if small in NUMBER_VALUES else float(small.replace(",", ""))


def month_of(place: re.Match) -> str | None:
    """The whole name of the month in a match of DATE_PATTERN, None where it has a year alone."""
    return next((name for name in MONTH_NAMES if place[2] and name.startswith(place[2][:3])), None)


def date_matches(place: re.Match, dates: Iterable[pd.Timestamp], moment: pd.Timestamp) -> bool:
    """Whether one of the dates agrees with a match of DATE_PATTERN: its month, and its day and year where given.

    A month without a year is the most recent one of that name.
    """
    month, day = month_of(place), place[1] or place[3]
    year = place[4] or place[5]
    for date in dates:
        lately = 12 * (moment.year - date.year) + moment.month - date.month < 12
        if (
            (month is None or date.month_name() == month)
            and (day is None or date.day == int(day.rstrip("dhnrst")))
            and (date.year == int(year) if year else lately)
        ):
            return True
    return False


def is_plain_english(word: str) -> bool:
    """Whether a word, in any inflection, is plain English: one that says nothing of products."""
    small, known = word.lower().replace("’", "'"), _plain_words()
    stems = {small.removesuffix(ending) for ending in WORD_ENDINGS}
    return any(stem in known or f"{stem}e" in known for stem in stems)


@lru_cache(maxsize=1)
def _plain_words() -> frozenset[str]:
    return MORE_PLAIN_WORDS.union(word_lists()["plain"])


def list_opening(before: str) -> str:
    """The text before a month, without the months that it is listed with: "in " before "March and October"."""
    while link := CHAIN_PATTERN.search(before):
        earlier = [date for date in DATE_PATTERN.finditer(before) if date.end() == link.start()]
        if not earlier:
            break
        before = before[: earlier[0].start()]
    return before


def _flattened(values: Attributes) -> list[str]:
    return [value for group in values.values() for value in group]


def _normalized(name: str) -> str:
    return " ".join(_lower_case_in_place(name).split())


def _lower_case_in_place(text: str) -> str:
    """Lower case, except for letters whose lower case has another length, so that places stay valid."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _name_starts(word: re.Match) -> list[int]:
    """Places in a run of characters where a name may begin: at its start, or after a character that is no letter."""
    return [word.start(), *(word.start() + at.end() for at in re.finditer(r"\W+", word[0]) if at.end() < len(word[0]))]
