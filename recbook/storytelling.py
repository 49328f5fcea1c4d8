"""Facts as a model reads them, and narratives to learn from: many ways to say the same facts, in two styles.

    <|shopper|><|84971C|> navy gingham teapot: twice since March, last in October;<|product|><|20511|> navy gingham
    milk jug: £4.25, for afternoon tea, same navy, same gingham;<|because|><|38011A|> pale blue tea cosy: tea cosy,
    14 shoppers, often;<|answer|> You've come back to the<|84971C|> navy gingham teapot twice since March. How about …

A product's token stands before its name; who reads the text does not see it. What a sentence tells are the words of the
sheet, so that they can be copied. The forms of the sentences are in stories.json.
"""

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from recbook.documents import Control, Document, Product, pounds
from recbook.facts import ROASTS, Companion, Facts, Purchase, month, often
from recbook.instructions import for_occasion

STYLES = ("terse", "warm")
PARTS = ("reason", "opening", "intro", "close")
SLOT = re.compile(r" ?\{(\w+)\}")
CHOICE = re.compile(r"\[([^]]*)\]")
NAMED = ("bought", "product", "with")  # slots that name a product


class Item(NamedTuple):
    """One line of a fact sheet: under which heading, which product, and what is known of it, each in a few words."""

    heading: str  # of the control tokens
    code: str
    name: str
    words: tuple[str, ...]


@lru_cache(maxsize=1)
def forms() -> dict[str, dict[str, list[str]]]:
    """The forms of sentences, by style and part, from stories.json."""
    return json.loads(files("recbook").joinpath("stories.json").read_text(encoding="utf-8"))["forms"]


# --- The sheet ---------------------------------------------------------------------------------------------------


def sheet(facts: Facts) -> Document:
    """The prompt: all facts, in the words in which they can be told."""
    return [*listed(items(facts)), Control("<|answer|>")]


def items(facts: Facts) -> list[Item]:
    """The lines of the sheet."""
    lines = [Item("<|shopper|>", p.code, p.name, tuple(_of_purchase(p, facts))) for p in facts.purchases]
    values = slots(facts)
    told = [values[name] for name in ("price", "purpose", "note", "second", "cousin") if name in values]
    told += [f"{word} {values[name]}" for name, word in PREFIXES.items() if name in values]
    told += [f"yours {when}" for when in _of_purchase(facts.own, facts)] if facts.own else []
    told += [f"same {value}" for value in _told_shared(facts)]
    lines.append(Item("<|product|>", facts.code, facts.name, tuple(told)))
    for other in facts.companions:
        words = [*[other.kind] * bool(other.kind), f"{other.shoppers} shoppers", *["often"] * other.often]
        lines.append(Item("<|because|>", other.code, other.name, tuple(words)))
    return lines


PREFIXES = {"was": "was", "rose": "from", "less": "less", "percent": "off", "season": "best in", "new": "new since"}


def listed(lines: Sequence[Item]) -> Document:
    """Items as a document, each a product's token and what is said of it."""
    parts: Document = []
    heading = ""
    for line in lines:
        parts += [Control(line.heading)] * (line.heading != heading)
        parts += [Product(line.code), f" {line.name}: {', '.join(line.words)};"]
        heading = line.heading
    return parts


def _of_purchase(purchase: Purchase, facts: Facts) -> list[str]:
    """twice since March, last in October."""
    first, last = (month(purchase.dates[place], facts.moment) for place in (0, -1))
    if purchase.times == 1:
        return [f"in {first}"]
    return [f"{often(purchase.times)} since {first}"] + [f"last in {last}"] * (last != first)


def _told_shared(facts: Facts) -> list[str]:
    """Attributes in common that can be called "the same …"."""
    mine = facts.purchases[0].attributes if facts.purchases else {}
    wanted = [value for name in ("theme", "colour", "material") for value in mine.get(name, ())]
    return [value for value in wanted if value in facts.shared]


# --- What a sentence can tell ------------------------------------------------------------------------------------


def slots(facts: Facts) -> dict[str, str]:
    """The words for the places of the forms; a place is missing where the facts say nothing."""
    found = {"product": facts.name, "price": pounds(facts.price), "season": facts.season}
    found |= _about_the_price(facts) | _about_purchases(facts) | _about_taste(facts)
    if facts.new_since is not None:
        found["new"] = month(facts.new_since, facts.moment)
    if purposes := [for_occasion(value) for name in ("occasion", "season") for value in facts.attributes.get(name, ())]:
        found["purpose"] = purposes[0]
    return {name: value for name, value in found.items() if value}


def told(facts: Facts) -> dict[str, list[str]]:
    """By the place of a form, all the words that may fill it; names of products are in `named`."""
    found = {name: [words] for name, words in slots(facts).items() if name not in NAMED}
    if shared := _told_shared(facts):
        found["shared"] = shared
    for other in facts.companions:
        found |= {name: [words] for name, words in _of_companion(other).items() if name not in NAMED}
    return found


def named(facts: Facts) -> dict[str, Facts | Purchase | Companion]:
    """By the place of a form, the product that it names."""
    found = {"product": facts, "bought": next(iter(facts.purchases), None), "with": next(iter(facts.companions), None)}
    return {place: product for place, product in found.items() if product is not None}


def _about_the_price(facts: Facts) -> dict[str, str]:
    if not facts.change:
        return {}
    if facts.change > 0:
        return {"rose": pounds(facts.was)}
    return {"was": pounds(facts.was), "less": pounds(-facts.change), "percent": f"{-facts.percent}%"}


def _about_purchases(facts: Facts) -> dict[str, str]:
    found = {}
    for purchase, before in [*((p, "") for p in facts.purchases[:1]), (facts.own, "own_")]:
        if purchase is None:
            continue
        first, last = (month(purchase.dates[end], facts.moment) for end in (0, -1))
        found |= {"bought": purchase.name} if not before else {}
        if purchase.times == 1:
            found[f"{before}in"] = first
            continue
        found |= {f"{before}times": often(purchase.times), f"{before}since": first}
        found |= {f"{before}last": last} if last != first else {}
    return found


def _about_taste(facts: Facts) -> dict[str, str]:
    """Notes of a coffee, and whether it is darker than the first purchase."""
    notes = facts.attributes.get("notes", ())
    found = dict(zip(("note", "second"), notes, strict=False))
    mine = facts.purchases[0].attributes.get("roast", ()) if facts.purchases else ()
    roasts = [*facts.attributes.get("roast", ()), *mine]
    if len(roasts) == 2 and all(roast in ROASTS for roast in roasts) and roasts[0] != roasts[1]:
        found["cousin"] = "darker" if ROASTS.index(roasts[0]) > ROASTS.index(roasts[1]) else "lighter"
    return found


# --- Narratives to learn from ------------------------------------------------------------------------------------


def narrative(facts: Facts, style: str, rng: np.random.Generator) -> Document:
    """Two or three sentences that tell some of the facts, in one of STYLES: a form is drawn for each.

    ValueError for a style that is not there.
    """
    if style not in STYLES:
        raise ValueError(f"there is no style {style!r}: give one of {', '.join(STYLES)}")
    parts: Document = []
    for part in _plan(facts, rng):
        parts += sentence(facts, style, part, rng)
    return joined(parts)


def sentence(facts: Facts, style: str, part: str, rng: np.random.Generator) -> Document:
    """One sentence, of one of PARTS, in a form drawn from those that the facts can fill."""
    values = {name: words[rng.integers(len(words))] for name, words in told(facts).items()}
    products = named(facts)
    usable = [
        form
        for form in forms()[style][part]
        if any(_fits(each, {*values, *products}, facts) for each in written_out(form))
    ]
    ways = [each for each in written_out(usable[rng.integers(len(usable))]) if _fits(each, {*values, *products}, facts)]
    return _filled(f" {ways[rng.integers(len(ways))]}", values, products)


@cache
def written_out(form: str) -> tuple[str, ...]:
    """All ways to say a form: one of each [choice|in brackets]."""
    found = CHOICE.search(form)
    if not found:
        return (form,)
    ways = [form[: found.start()] + option + form[found.end() :] for option in found[1].split("|")]
    return tuple(each for way in ways for each in written_out(way))


def _plan(facts: Facts, rng: np.random.Generator) -> list[str]:
    """Which parts, in which order: a reason if there is a purchase, and the product after it or before."""
    if not facts.bought:
        return ["opening", "close"]
    return ["opening", "reason", "close"] if rng.random() < 0.3 else ["reason", "intro", "close"]


def _fits(form: str, known: set[str], facts: Facts) -> bool:
    """Whether the facts fill all places of a form, and prove its "often"."""
    often_too = "often" not in form.lower() or any(other.often for other in facts.companions)
    return often_too and set(SLOT.findall(form)) <= known


def _of_companion(other: Companion) -> dict[str, str]:
    return {"with": other.name, "shoppers": str(other.shoppers)} | ({"kind": other.kind} if other.kind else {})


def _filled(form: str, values: dict[str, str], products: dict[str, Facts | Purchase | Companion]) -> Document:
    """A form with its places filled: a product's name comes after its token."""
    parts: Document = []
    last = 0
    for place in SLOT.finditer(form):
        parts.append(form[last : place.start()])
        if product := products.get(place[1]):
            parts += [Product(product.code), f" {product.name}"]
        else:
            parts.append(f" {values[place[1]]}")
        last = place.end()
    return [*parts, form[last:]]


def joined(parts: Document) -> Document:
    """The same with neighbouring texts in one."""
    joined: Document = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part:
            joined.append(part)
    return joined


def plain(document: Document) -> str:
    """What a reader sees: the text, without the tokens."""
    return "".join(part for part in document if isinstance(part, str)).strip()
