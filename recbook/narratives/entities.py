"""What a text mentions, wherever it stands: products by name, attributes, prices, numbers, months. No facts yet.

Names of products are looked for first, the longest first, and covered, so that the six in "set of 6 spice tins" is no
number and the red in "red retrospot plate" no claim of its own. All places are (start, end) in the text as given.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import pandas as pd

from recbook.narratives.facts import MONTH_NAMES, NUMBER_WORDS, Attributes

COVERED = "\ue000"  # stands for every letter of a name that was found
MONTH_PATTERN = "|".join(f"{name}|{name[:3]}" for name in MONTH_NAMES) + "|Sept"
DAY_PATTERN = r"\d{1,2}(?:st|nd|rd|th)?"
DATE_PATTERN = re.compile(
    rf"\b(?:({DAY_PATTERN})\s+(?:of\s+)?)?({MONTH_PATTERN})\b(?:\s+({DAY_PATTERN})\b)?(?:,?\s+((?:19|20)\d\d)\b)?|\b((?:19|20)\d\d)\b"
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


class Mention(NamedTuple):
    """A place in a text, and what it says."""

    start: int
    end: int
    value: object


@lru_cache(maxsize=1)
def word_lists() -> dict:
    """Plain words, words for attributes that a shop may not have, and words of one meaning, from stories.json."""
    return json.loads(files("recbook.narratives").joinpath("stories.json").read_text(encoding="utf-8"))


class Lexicon:
    """The names and attributes of a catalogue, to be found in texts."""

    def __init__(self, names: Mapping[str, str], attributes: Mapping[str, Attributes]):
        """Both by code: `names` as they are told, `attributes` such as colour: ("navy",)."""
        self.codes: dict[str, set[str]] = defaultdict(set)
        for code, name in names.items():
            self.codes[_plain(name)].add(code)
        self.starts = defaultdict(list)  # first word -> names, the longest first
        for name in sorted(self.codes, key=len, reverse=True):
            self.starts[name.split()[0]].append(name)
        self.values = {_plain(v) for values in attributes.values() for group in values.values() for v in group}
        self.values |= {_plain(word) for word in word_lists()["foreign"]}
        self.of = {code: self._words([names[code], *_all(attributes[code])]) for code in names}
        self.phrases = {code: {_plain(value) for value in _all(attributes[code])} for code in names}
        known = {word_stem(word) for name in self.codes for word in PLAIN_WORD_PATTERN.findall(name)}
        known |= {word_stem(word) for value in self.values for word in PLAIN_WORD_PATTERN.findall(value)}
        self.goods = known - {word_stem(word) for word in word_lists()["plain"]} | set(
            map(word_stem, word_lists()["alike"])
        )
        longest = sorted((v for v in self.values if " " in v), key=len, reverse=True)
        self.pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, longest)) + r")\b" if longest else r"(?!)")

    def names(self, text: str) -> list[Mention]:
        """Every product named, its value the set of codes of that name."""
        small, found, place = _same_length(text), [], 0
        while word := LETTERS_PATTERN.search(small, place):
            place = next((at for at in _starts(word) if self._name(small, at)), None)
            if place is None:
                place = word.end()
                continue
            name, end = self._name(small, place)
            found.append(Mention(place, end, frozenset(self.codes[name])))
            place = end
        return found

    def _name(self, text: str, place: int) -> tuple[str, int] | None:
        """The longest name that begins here, and where it ends."""
        first = re.match(r"\S+", text[place:])
        if not first or (place and text[place - 1].isalnum()):
            return None
        opening = first[0]
        while opening:
            for name in self.starts.get(opening, ()):
                end = place + len(name)
                if text.startswith(name, place) and not (text[end : end + 1].isalnum() and name[-1].isalnum()):
                    if len(PLAIN_WORD_PATTERN.findall(name)) != 1 or word_stem(name) in self.goods:
                        return name, end
            opening = opening[:-1]
        return None

    def attributes(self, text: str) -> list[Mention]:
        """Every attribute, or other word of the goods, its value the words as they stand in the catalogue's names."""
        small = _same_length(text)
        found = [Mention(*place.span(), place[0]) for place in self.pattern.finditer(small)]
        covered = cover_mentions(small, found)
        for word in PLAIN_WORD_PATTERN.finditer(covered):
            if word_stem(word[0]) in self.goods:
                found.append(Mention(*word.span(), word[0]))
        return sorted(found)

    def frame(self, text: str) -> str:
        """A text without what it tells: names, attributes, prices, dates and numbers are all the same mark.

        Two texts of one frame are one template with other facts.
        """
        covered = cover_mentions(text, self.names(text))
        covered = cover_mentions(covered, self.attributes(covered))
        for pattern in (PRICE_PATTERN, PERCENT_PATTERN, DATE_PATTERN, NUMBER_PATTERN):
            covered = pattern.sub("…", covered)
        return re.sub(rf"{COVERED}(?:[{COVERED}\s]*{COVERED})?", "…", covered)

    def fits(self, value: str, code: str) -> bool:
        """Whether an attribute that was found is one of this product; of a code that is not here nothing is."""
        if code not in self.of:
            return False
        if value in self.values and " " in value:
            return value in self.phrases[code] or self._words([value]) <= self.of[code]
        return self._words([value]) <= self.of[code]

    def _words(self, texts: Iterable[str]) -> frozenset[str]:
        return frozenset(word_stem(word) for text in texts for word in PLAIN_WORD_PATTERN.findall(text))


def cover_mentions(text: str, found: Iterable[Mention]) -> str:
    """The text with all that was found covered, as long as before."""
    for place in found:
        text = text[: place.start] + COVERED * (place.end - place.start) + text[place.end :]
    return text


def word_stem(word: str) -> str:
    """A word without its plural, small; words that say the same are one: Kenyan is Kenya, wood is wooden."""
    small = word.lower().replace("’", "'").removesuffix("'s")
    small = word_lists()["alike"].get(small, small)
    return small[:-1] if len(small) > 3 and small.endswith("s") and not small.endswith("ss") else small


def parse_number(text: str) -> float:
    """What a number says, in figures or as a word."""
    small = text.lower()
    return NUMBER_VALUES[small] if small in NUMBER_VALUES else float(small.replace(",", ""))


def month_of(place: re.Match) -> str | None:
    """The whole name of the month in a match of DATE, None where it has a year alone."""
    return next((name for name in MONTH_NAMES if place[2] and name.startswith(place[2][:3])), None)


def said_of(place: re.Match, dates: Iterable[pd.Timestamp], moment: pd.Timestamp) -> bool:
    """Whether one of the dates is what a DATE says: its month, and its day and year where they are told.

    A month without a year is the last one of that name.
    """
    month, day = month_of(place), place[1] or place[3]
    year = place[4] or place[5]
    for date in dates:
        lately = 12 * (moment.year - date.year) + moment.month - date.month < 12
        if (
            (month is None or date.month_name() == month)
            and (day is None or date.day == int(re.match(r"\d+", day)[0]))
            and (date.year == int(year) if year else lately)
        ):
            return True
    return False


def is_plain_english(word: str) -> bool:
    """Whether a word is plain English, in any of its forms: one that tells nothing of goods."""
    small, known = word.lower().replace("’", "'"), {*word_lists()["plain"], *MORE_PLAIN_WORDS}
    stems = {small.removesuffix(ending) for ending in WORD_ENDINGS}
    return any(stem in known or f"{stem}e" in known for stem in stems)


def list_opening(before: str) -> str:
    """What stands before a month, and before the months that it is listed with: "in" before "March and October"."""
    while link := CHAIN_PATTERN.search(before):
        earlier = [date for date in DATE_PATTERN.finditer(before) if date.end() == link.start()]
        if not earlier:
            break
        before = before[: earlier[0].start()]
    return before


def _all(values: Attributes) -> list[str]:
    return [value for group in values.values() for value in group]


def _plain(name: str) -> str:
    return " ".join(_same_length(name).split())


def _same_length(text: str) -> str:
    """Small letters where that leaves the length as it is, so that places stay."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _starts(word: re.Match) -> list[int]:
    """Places in a run of letters where a name may begin: at its start, or after what is no letter."""
    return [word.start(), *(word.start() + at.end() for at in re.finditer(r"\W+", word[0]) if at.end() < len(word[0]))]
