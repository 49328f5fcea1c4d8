"""Fact prompts, and narratives written from templates to learn from: many ways to say the same facts, in two styles.

    <|shopper|><|84971C|> navy gingham teapot: twice since March, last in October;<|product|><|20511|> navy gingham
    milk jug: £4.25, for afternoon tea, same navy, same gingham;<|because|><|38011A|> pale blue tea cosy: tea cosy,
    14 shoppers, often;<|answer|> You've come back to the<|84971C|> navy gingham teapot twice since March. How about …

A product's token stands before its name; readers of the text do not see it. A sentence tells facts in the words of the
prompt, so that the model can copy them. The templates of the sentences are in stories.json ("forms").
"""

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

from recbook.lora.instructions import for_occasion
from recbook.narratives.facts import ROASTS, CoPurchase, Facts, Purchase, month_in_words, times_in_words
from recbook.tokens.documents import Control, Document, Product, format_pounds

NARRATIVE_STYLES = ("terse", "warm")
SENTENCE_KINDS = ("reason", "opening", "intro", "close")
SLOT_PATTERN = re.compile(r" ?\{(\w+)\}")
CHOICE_PATTERN = re.compile(r"\[([^]]*)\]")
NAMED_SLOTS = ("bought", "product", "with")  # the slots that name a product


class PromptLine(NamedTuple):
    """One line of a fact prompt: its heading, the product, and what is known of it, each in a few words."""

    heading: str  # a control token
    code: str
    name: str
    words: tuple[str, ...]


@lru_cache(maxsize=1)
def sentence_templates() -> dict[str, dict[str, list[str]]]:
    """The templates of sentences, by style and kind of sentence, from stories.json."""
    return json.loads(files("recbook.narratives").joinpath("stories.json").read_text(encoding="utf-8"))["forms"]


# --- The prompt --------------------------------------------------------------------------------------------------


def fact_prompt(facts: Facts) -> Document:
    """The prompt of one recommendation: all its facts, in the words in which sentences tell them."""
    return [*lines_as_document(prompt_lines(facts)), Control("<|answer|>")]


def prompt_lines(facts: Facts) -> list[PromptLine]:
    """The lines of the prompt."""
    lines = [PromptLine("<|shopper|>", p.code, p.name, tuple(_of_purchase(p, facts))) for p in facts.purchases]
    values = slot_values(facts)
    told = [values[name] for name in ("price", "purpose", "note", "second", "cousin") if name in values]
    told += [f"{word} {values[name]}" for name, word in LINE_PREFIXES.items() if name in values]
    told += [f"yours {when}" for when in _of_purchase(facts.own, facts)] if facts.own else []
    told += [f"same {value}" for value in _shared_to_tell(facts)]
    lines.append(PromptLine("<|product|>", facts.code, facts.name, tuple(told)))
    for other in facts.co_purchases:
        words = [*[other.kind] * bool(other.kind), f"{other.shoppers} shoppers", *["often"] * other.often]
        lines.append(PromptLine("<|because|>", other.code, other.name, tuple(words)))
    return lines


LINE_PREFIXES = {
    "was": "was",
    "rose": "from",
    "less": "less",
    "percent": "off",
    "season": "best in",
    "new": "new since",
}


def lines_as_document(lines: Sequence[PromptLine]) -> Document:
    """Lines as a document: of each the product's token, its name and the words."""
    parts: Document = []
    heading = ""
    for line in lines:
        parts += [Control(line.heading)] * (line.heading != heading)
        parts += [Product(line.code), f" {line.name}: {', '.join(line.words)};"]
        heading = line.heading
    return parts


def _of_purchase(purchase: Purchase, facts: Facts) -> list[str]:
    """When it was bought: twice since March, last in October."""
    first, last = (month_in_words(purchase.dates[place], facts.moment) for place in (0, -1))
    if purchase.times == 1:
        return [f"in {first}"]
    return [f"{times_in_words(purchase.times)} since {first}"] + [f"last in {last}"] * (last != first)


def _shared_to_tell(facts: Facts) -> list[str]:
    """The shared attributes that can be called "the same …"."""
    mine = facts.purchases[0].attributes if facts.purchases else {}
    wanted = [value for name in ("theme", "colour", "material") for value in mine.get(name, ())]
    return [value for value in wanted if value in facts.shared]


# --- Slots and their values --------------------------------------------------------------------------------------


def slot_values(facts: Facts) -> dict[str, str]:
    """The words for the slots of the templates; a slot is missing where the facts say nothing."""
    found = {"product": facts.name, "price": format_pounds(facts.price), "season": facts.season}
    found |= _about_the_price(facts) | _about_purchases(facts) | _about_taste(facts)
    if facts.new_since is not None:
        found["new"] = month_in_words(facts.new_since, facts.moment)
    if purposes := [for_occasion(value) for name in ("occasion", "season") for value in facts.attributes.get(name, ())]:
        found["purpose"] = purposes[0]
    return {name: value for name, value in found.items() if value}


def slot_choices(facts: Facts) -> dict[str, list[str]]:
    """By slot, all the words that may fill it; names of products are in `slot_products`."""
    found = {name: [words] for name, words in slot_values(facts).items() if name not in NAMED_SLOTS}
    if shared := _shared_to_tell(facts):
        found["shared"] = shared
    for other in facts.co_purchases:
        found |= {name: [words] for name, words in _of_co_purchase(other).items() if name not in NAMED_SLOTS}
    return found


def slot_products(facts: Facts) -> dict[str, Facts | Purchase | CoPurchase]:
    """By slot, the product that it names."""
    found = {
        "product": facts,
        "bought": next(iter(facts.purchases), None),
        "with": next(iter(facts.co_purchases), None),
    }
    return {slot: product for slot, product in found.items() if product is not None}


def _about_the_price(facts: Facts) -> dict[str, str]:
    if facts.was is None or not facts.change:
        return {}
    if facts.change > 0:
        return {"rose": format_pounds(facts.was)}
    return {"was": format_pounds(facts.was), "less": format_pounds(-facts.change), "percent": f"{-facts.percent}%"}


def _about_purchases(facts: Facts) -> dict[str, str]:
    found: dict[str, str] = {}
    for purchase, before in [*((p, "") for p in facts.purchases[:1]), (facts.own, "own_")]:
        if purchase is None:
            continue
        first, last = (month_in_words(purchase.dates[end], facts.moment) for end in (0, -1))
        found |= {"bought": purchase.name} if not before else {}
        if purchase.times == 1:
            found[f"{before}in"] = first
            continue
        found |= {f"{before}times": times_in_words(purchase.times), f"{before}since": first}
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


def write_template_narrative(facts: Facts, style: str, rng: np.random.Generator) -> Document:
    """Two or three sentences that tell some of the facts, in one of NARRATIVE_STYLES; each from a random template.

    ValueError for an unknown style.
    """
    if style not in NARRATIVE_STYLES:
        raise ValueError(f"there is no style {style!r}: give one of {', '.join(NARRATIVE_STYLES)}")
    parts: Document = []
    for kind in _plan(facts, rng):
        parts += write_template_sentence(facts, style, kind, rng)
    return join_texts(parts)


def write_template_sentence(facts: Facts, style: str, kind: str, rng: np.random.Generator) -> Document:
    """One sentence, of one of SENTENCE_KINDS, from a random one of the templates that the facts can fill."""
    values = {name: words[rng.integers(len(words))] for name, words in slot_choices(facts).items()}
    products = slot_products(facts)
    usable = [
        template
        for template in sentence_templates()[style][kind]
        if any(_fits(each, {*values, *products}, facts) for each in expand_choices(template))
    ]
    ways = [
        each for each in expand_choices(usable[rng.integers(len(usable))]) if _fits(each, {*values, *products}, facts)
    ]
    return _filled(f" {ways[rng.integers(len(ways))]}", values, products)


@cache
def expand_choices(template: str) -> tuple[str, ...]:
    """All variants of a template: one of each [choice|in brackets]."""
    found = CHOICE_PATTERN.search(template)
    if not found:
        return (template,)
    ways = [template[: found.start()] + option + template[found.end() :] for option in found[1].split("|")]
    return tuple(each for way in ways for each in expand_choices(way))


def _plan(facts: Facts, rng: np.random.Generator) -> list[str]:
    """The kinds of sentence, in order: a reason if there is a purchase, and the product after it or before it."""
    if not facts.bought:
        return ["opening", "close"]
    return ["opening", "reason", "close"] if rng.random() < 0.3 else ["reason", "intro", "close"]


def _fits(template: str, known: set[str], facts: Facts) -> bool:
    """Whether the facts fill all slots of a template, and prove its "often"."""
    often_too = "often" not in template.lower() or any(other.often for other in facts.co_purchases)
    return often_too and set(SLOT_PATTERN.findall(template)) <= known


def _of_co_purchase(other: CoPurchase) -> dict[str, str]:
    return {"with": other.name, "shoppers": str(other.shoppers)} | ({"kind": other.kind} if other.kind else {})


def _filled(template: str, values: dict[str, str], products: dict[str, Facts | Purchase | CoPurchase]) -> Document:
    """A template with its slots filled: a product's name comes after its token."""
    parts: Document = []
    last = 0
    for slot in SLOT_PATTERN.finditer(template):
        parts.append(template[last : slot.start()])
        if product := products.get(slot[1]):
            parts += [Product(product.code), f" {product.name}"]
        else:
            parts.append(f" {values[slot[1]]}")
        last = slot.end()
    return [*parts, template[last:]]


def join_texts(parts: Document) -> Document:
    """The same document with neighbouring texts joined."""
    joined: Document = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part:
            joined.append(part)
    return joined


def document_text(document: Document) -> str:
    """What a reader sees: the text, without the tokens."""
    return "".join(part for part in document if isinstance(part, str)).strip()
