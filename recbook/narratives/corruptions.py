"""Corruptions: adversarial negatives that test the checker, true texts in which one thing is made false.

Each kind of claim has its own corruption: another price, month, number, name or colour; a fall in price told as a rise;
a co-purchase that is not in the facts; praise that no receipt proves. The facts make it false, not the checker.
"""

import re
from collections.abc import Callable

import numpy as np

from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.fact_store import FactStore
from recbook.narratives.facts import MONTH_NAMES, NUMBER_WORDS, Facts, times_in_words
from recbook.tokens.documents import format_pounds

PRAISE_WORDS = ["bestselling", "handmade", "organic", "award-winning", "limited", "exclusive"]
COUNT_PATTERN = re.compile(
    r"\b(once|twice|(?:" + "|".join([*NUMBER_WORDS[2:], r"\d+"]) + r") times|\d+(?= (?:other )?(?:shoppers|others)))\b"
)
AMOUNT_PATTERN = re.compile(r"£\d+(?:\.\d+)?")


def corrupt(text: str, facts: Facts, fact_store: FactStore, kind: str, rng: np.random.Generator) -> str | None:
    """The text with one corruption of a kind, one of `CORRUPTIONS`; None if nothing in it can be corrupted so."""
    return CORRUPTIONS[kind](text, facts, fact_store, rng)


def is_caught(corrupted: str, facts: Facts, kind: str, checker: ClaimChecker) -> bool:
    """Whether the checker finds a false claim of this kind; a "mixed up" text may be false in any way."""
    kinds = {claim.kind for claim in checker.false(corrupted, facts)}
    return bool(kinds) if kind == "mixed up" else kind in kinds


def _swap(
    text: str, places: list[re.Match], other: Callable[[str], str | None], rng: np.random.Generator
) -> str | None:
    """The text with one of the places, drawn at random, replaced by what `other` makes of it."""
    if not places:
        return None
    place = places[rng.integers(len(places))]
    said = other(place[0])
    return None if said is None else text[: place.start()] + said + text[place.end() :]


def _price(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    places = [place for place in AMOUNT_PATTERN.finditer(text) if place[0] == format_pounds(facts.price)]
    return _swap(text, places, lambda old: _amount(old, facts, rng), rng)


def _discount(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    if swapped := _reversed_change(text, rng):
        return swapped
    places = [
        place for place in re.finditer(r"£\d+(?:\.\d+)?|\b\d+(?=% off)", text) if place[0] != format_pounds(facts.price)
    ]
    if not places:
        was = format_pounds(facts.price + 1 if facts.change >= 0 else facts.price - 0.01)
        return (
            f"{text} It cost {was} less before."
            if rng.random() < 0.3
            else f"{text} Now {37 if facts.percent != -37 else 41}% off."
        )
    return _swap(text, places, lambda old: _amount(old, facts, rng) if "£" in old else str(int(old) % 90 + 3), rng)


def _reversed_change(text: str, rng: np.random.Generator) -> str | None:
    """A fall told as a rise, or the other way round; None in half of the cases."""
    turns = {"down from £": "up from £", "up from £": "down from £", "less than before": "more than before"}
    found = re.search(rf"\b(?:{'|'.join(turns)})", text)
    if not found or rng.random() < 0.5:
        return None
    return text[: found.start()] + turns[found[0]] + text[found.end() :]


def _amount(old: str, facts: Facts, rng: np.random.Generator) -> str:
    """Another price, which is not in the facts."""
    known = {format_pounds(facts.price), format_pounds(facts.was or 0), format_pounds(abs(facts.change)), old}
    known |= {format_pounds(purchase.paid) for purchase in facts.bought}
    while (new := format_pounds(max(0.05, float(old[1:]) * rng.uniform(0.4, 2.5)))) in known:
        pass
    return new


def _count(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    def other(old: str) -> str:
        known = {
            old,
            *(times_in_words(purchase.times) for purchase in facts.bought),
            *(str(c.shoppers) for c in facts.co_purchases),
        }
        while (new := str(rng.integers(5, 99)) if old.isdigit() else times_in_words(int(rng.integers(1, 40)))) in known:
            pass
        return new

    return _swap(text, list(COUNT_PATTERN.finditer(_without_names(text, facts))), other, rng)


def _date(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    dates = [date for purchase in facts.bought for date in purchase.dates]
    known = {date.month_name() for date in dates} | {facts.season, facts.new_since and facts.new_since.month_name()}
    free = [name for name in MONTH_NAMES if name not in known]
    places = list(re.finditer("|".join(MONTH_NAMES), _without_names(text, facts)))
    return _swap(text, places, lambda old: free[rng.integers(len(free))], rng) if free else None


def _product(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    named = [re.escape(name) for name in _names(facts)]
    places = list(re.finditer("|".join(sorted(named, key=len, reverse=True)), text))
    return _swap(text, places, lambda old: _unknown_product(facts, fact_store, rng), rng)


def _attribute(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    """Another value in place of one that stands outside names; else a value that the product does not have."""
    mine = {value for values in facts.attributes.values() for value in values}
    theirs = {value for p in facts.bought for values in p.attributes.values() for value in values}
    for name in ("occasion", "notes", "theme", "colour", "material"):
        others = sorted({v for values in fact_store.attributes.values() for v in values.get(name, ())} - mine - theirs)
        others = [
            v
            for v in others
            if not set(v.lower().split()) & set(" ".join([*mine, *theirs, *_names(facts)]).lower().split())
        ]
        places = [
            place for value in facts.attributes.get(name, ())
            for place in re.finditer(rf"\b{re.escape(value)}\b", _without_names(text, facts))
        ]  # fmt: skip
        if places and others:
            return _swap(text, places, lambda old: others[rng.integers(len(others))], rng)  # noqa: B023
        if name == "colour" and others and rng.random() < 0.8:
            return f"{text} It is {others[rng.integers(len(others))]}."
    for old, new in (("darker", "lighter"), ("lighter", "darker")):
        if re.search(rf"\b{old}\b", text):
            return re.sub(rf"\b{old}\b", new, text)
    return None


def _co_purchase(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    """A co-purchase that is not in the facts; or "often" where the facts say seldom."""
    seldom = [other for other in facts.co_purchases if not other.often]
    if seldom and rng.random() < 0.5:
        return f"{text} Shoppers who bought the {seldom[0].name} often take it too."
    opening = rng.choice(["Shoppers who bought", "It is often bought with", "Others took it beside"])
    return f"{text} {opening} the {_unknown_product(facts, fact_store, rng)}."


def _other(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    place = text.find(facts.name)
    return None if place < 0 else f"{text[:place]}{PRAISE_WORDS[rng.integers(len(PRAISE_WORDS))]} {text[place:]}"


def _mixed_up(text: str, facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str | None:
    """Two true things swapped: what was bought and what is recommended, or the price and the old price."""
    swaps = [(facts.name, purchase.name) for purchase in facts.purchases if facts.own is None]
    swaps += [(format_pounds(facts.price), format_pounds(facts.was))] if facts.was is not None else []
    swaps = [(a, b) for a, b in swaps if a in text and b in text and a not in b and b not in a]
    if not swaps:
        return None
    one, other = swaps[rng.integers(len(swaps))]
    return text.replace(one, "\0").replace(other, one).replace("\0", other)


CORRUPTIONS = {
    "product": _product, "price": _price, "discount": _discount, "count": _count, "date": _date,
    "attribute": _attribute, "co-purchase": _co_purchase, "other": _other, "mixed up": _mixed_up,
}  # fmt: skip


def _names(facts: Facts) -> list[str]:
    return [facts.name, *(purchase.name for purchase in facts.bought), *(other.name for other in facts.co_purchases)]


def _without_names(text: str, facts: Facts) -> str:
    """The text with names masked, since a number in a name is no count."""
    for name in sorted(_names(facts), key=len, reverse=True):
        text = text.replace(name, "_" * len(name))
    return text


def _unknown_product(facts: Facts, fact_store: FactStore, rng: np.random.Generator) -> str:
    """The name of a product that is not in the facts."""
    codes, known = list(fact_store.names), {name.lower() for name in _names(facts)}
    while (name := fact_store.names[codes[rng.integers(len(codes))]]).lower() in known:
        pass
    return name
