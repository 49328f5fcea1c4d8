"""An instruction set: the request of a shopper, the products that a search found, the answer of a good assistant.

    <|request|> Do you have a cream dress for the office?<|product|><|21001A|> midi dress in cream silk, for the office,
    £39.95;… Close:<|20490B|> midi dress in navy linen, £35.50;…<|answer|><|21001A|> midi dress in cream silk: cream,
    for the office, £39.95.… Note: silk drapes softly. Or:<|20490B|> midi dress in navy linen: £35.50.

The search lists first the products that have all that was asked for, then those that come close. The answer names all
of the former (two to four) with reasons, adds a note, and offers the first of the latter. Two styles tell the same
facts. After the data set `neuralwork/fashion-style-instruct`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.cleaning import receipts as rc
from recbook.tokens.documents import Control, Document, Product, format_pounds, sentence_case

ASKED_ATTRIBUTES = ("colour", "kind", "occasion")  # what a request can ask for
STYLES = ("terse", "warm")
FEWEST_PICKS, MOST_PICKS = 2, 4  # products that meet a request, at least and at most
CLOSE_PRODUCTS = 2  # products that come close to a request
AFTER = r",| in | with | for "  # the kind of a product stands before, its material and purpose after
COMMON_KIND = 5  # products that must share the last word of a description before it counts as a kind


class Instruction(NamedTuple):
    """A request, the attributes that it asks for, and the codes of the products that a search found."""

    request: str
    asked: dict[str, str]  # the value of each of ASKED_ATTRIBUTES that is asked for, such as colour: cream
    picks: tuple[str, ...]  # products with all of these attributes
    close: tuple[str, ...]  # products without some of them, those that share most first

    @property
    def found(self) -> tuple[str, ...]:
        """All products that the search found."""
        return self.picks + self.close


@dataclass(frozen=True)
class Wording:
    """Ways to ask: requests with slots for the product and the occasion, and remarks that may follow."""

    requests: tuple[str, ...]
    remarks: tuple[str, ...]


@lru_cache(maxsize=1)
def phrases() -> dict:
    """The phrases that requests and answers are made of, from phrases.json."""
    return json.loads(files("recbook.lora").joinpath("phrases.json").read_text(encoding="utf-8"))


def wording(part: str) -> Wording:
    """The ways to ask of a part: `"learned"`, or `"held_out"`, which shares no request with it.

    ValueError for another part.
    """
    if part not in phrases()["requests"]:
        raise ValueError(f"there is no part {part!r}: give one of {', '.join(phrases()['requests'])}")
    return Wording(*(tuple(phrases()[name][part]) for name in ("requests", "remarks")))


# --- The goods ---------------------------------------------------------------------------------------------------


def goods_table(
    receipts: pd.DataFrame, truth: pd.DataFrame | None = None, unsold: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The products by code: `name`, `price`, and the attributes `colour`, `kind`, `occasion`, "" where unknown.

    `truth` is the true catalogue of the embedded shop (`Shop.products`). Without it the attributes are words of the
    descriptions: a colour, a last word that several products share (before a comma or words such as "in" and "with"), a
    word that tells an occasion. `unsold`: products beside those of the receipts, by code with `description` and
    `price`, where there is no `truth`.
    """
    table = pd.concat([rc.catalogue(receipts)[["description", "price"]], unsold]).sort_index()
    if truth is None:
        return _attributes(table.assign(name=table["description"].map(sentence_case)))
    truth = truth.loc[table.index]
    kinds = _heads(truth["kind"])
    colours = truth["colour"].str.split().str[-1].fillna("")
    return pd.DataFrame({"name": truth["name"], "price": table["price"], "colour": colours, "kind": kinds,
                         "occasion": truth["occasion"]})  # fmt: skip


def _heads(kinds: pd.Series) -> pd.Series:
    """The kind that people ask for: "maxi dress" and "short dress" are dresses, "pair of gloves" are gloves."""
    head = kinds.str.split(" of ").str[-1]
    last = head.str.split().str[-1]
    shared = last.groupby(last).transform(lambda of: kinds[of.index].nunique()) > 1
    return last.where(shared, head)


def _attributes(table: pd.DataFrame) -> pd.DataFrame:
    """The attributes that the names tell."""
    words = table["name"].str.lower().str.findall(r"[a-z]+")
    colours, themes = set(phrases()["colours"]), phrases()["themes"]
    last = table["name"].str.lower().str.split(AFTER, n=1, regex=True).str[0].str.findall(r"[a-z]+").str[-1].fillna("")
    common = last.groupby(last).transform("size") >= COMMON_KIND
    common &= ~last.isin({*colours, *themes}) & (last.str.len() > 2)
    return pd.DataFrame({
        "name": table["name"], "price": table["price"],
        "colour": words.map(lambda found: next((word for word in found if word in colours), "")),
        "kind": last.where(common, ""),
        "occasion": words.map(lambda found: next((themes[word] for word in found if word in themes), "")),
    })  # fmt: skip


def split_goods(table: pd.DataFrame, share: float, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split the goods into those to learn from and a `share` held out; variants (85123A, 85123B) stay together."""
    digits = table.index.str.extract(r"^(\d*)")[0]
    family = digits.where(digits != "", table.index.to_series().to_numpy())
    drawn = np.random.default_rng(seed).permutation(family.unique())
    held = family.isin(drawn[: round(share * len(drawn))]).to_numpy()
    return table[~held], table[held]


# --- Writing -----------------------------------------------------------------------------------------------------


def write_instructions(table: pd.DataFrame, number: int, wording: Wording, seed: int = 0) -> list[Instruction]:
    """`number` instructions about the goods in `table`; ValueError if no request would find two of them.

    The attributes asked for are drawn from all combinations that two products or more have.
    """
    rng, combinations = np.random.default_rng(seed), [dict(found) for found in _combinations(table)]
    if not combinations or len(table) < 2 * MOST_PICKS:
        raise ValueError(f"{len(table)} products are too few: no request finds two of them beside others")
    names = sorted({tuple(sorted(asked)) for asked in combinations})
    by_names = {these: [asked for asked in combinations if tuple(sorted(asked)) == these] for these in names}
    written: list[Instruction] = []
    while len(written) < number:
        choices = by_names[names[rng.integers(len(names))]]
        written.append(_instruction(table, choices[rng.integers(len(choices))], wording, rng))
    return written


def _combinations(table: pd.DataFrame) -> list[tuple[tuple[str, str], ...]]:
    """All values of one to three attributes that FEWEST_PICKS products or more have and CLOSE_PRODUCTS others lack."""
    found = []
    for names in (["kind"], ["colour"], ["occasion"], ["colour", "kind"], ["colour", "occasion"], ["kind", "occasion"],
                  list(ASKED_ATTRIBUTES)):  # fmt: skip
        counts = table[(table[names] != "").all(axis=1)].groupby(names).size()
        counts = counts[(counts >= FEWEST_PICKS) & (counts <= len(table) - CLOSE_PRODUCTS)]
        found += [tuple(zip(names, key if isinstance(key, tuple) else (key,), strict=True)) for key in counts.index]
    return found


def _instruction(table: pd.DataFrame, asked: dict[str, str], wording: Wording, rng: np.random.Generator) -> Instruction:
    shared, codes = _shared(table, asked), table.index.to_numpy()
    picks = rng.permutation(np.flatnonzero(shared == len(asked)))[: rng.integers(FEWEST_PICKS, MOST_PICKS + 1)]
    others = rng.permutation(np.flatnonzero(shared < len(asked)))
    close = others[np.argsort(-shared[others], kind="stable")[:CLOSE_PRODUCTS]]
    return Instruction(_request(asked, wording, rng), asked, tuple(codes[picks]), tuple(codes[close]))


def _shared(table: pd.DataFrame, asked: dict[str, str]) -> np.ndarray:
    """The number of attributes asked for that each product has, (products,)."""
    return sum((table[name] == value).to_numpy().astype(int) for name, value in asked.items())


def _request(asked: dict[str, str], wording: Wording, rng: np.random.Generator) -> str:
    thing = " ".join(asked[name] for name in ("colour", "kind") if name in asked)
    what = _article(thing) if "kind" in asked else f"something {thing}".rstrip()
    purpose = f" {for_occasion(asked['occasion'])}" if "occasion" in asked else ""
    request = wording.requests[rng.integers(len(wording.requests))].replace("{what}", what).replace("{for}", purpose)
    return request + wording.remarks[rng.integers(len(wording.remarks))]


def _article(thing: str) -> str:
    if (thing.endswith("s") and not thing.endswith("ss")) or thing.endswith(("coffee", "bunting", "paper")):
        return f"some {thing}"
    return f"an {thing}" if thing[0].lower() in "aeiou" else f"a {thing}"


def for_occasion(occasion: str) -> str:
    """The words for an occasion, such as "for the office" or "for Christmas"."""
    return f"for {phrases()['occasions'].get(occasion, occasion)}"


# --- As documents ------------------------------------------------------------------------------------------------


def prompt(request: str, picks: Sequence[str], close: Sequence[str], table: pd.DataFrame) -> Document:
    """The prompt: the request, and the products that the search found, with occasion and price."""
    products = [*found_products(picks, table), " Close:", *found_products(close, table)[1:]]
    return [Control("<|request|>"), f" {request}", *products, Control("<|answer|>")]


def found_products(codes: Sequence[str], table: pd.DataFrame) -> Document:
    """Products as a search lists them: name, occasion, price."""
    parts: Document = [Control("<|product|>")]
    for code in codes:
        product = table.loc[code]
        purpose = f", {for_occasion(product['occasion'])}" if product["occasion"] else ""
        parts += [Product(code), f" {product['name']}{purpose}, {format_pounds(product['price'])};"]
    return parts


def answer(instruction: Instruction, table: pd.DataFrame, style: str) -> Document:
    """The answer of a good assistant to `prompt`, in one of STYLES."""
    if style not in STYLES:
        raise ValueError(f"there is no style {style!r}: give one of {', '.join(STYLES)}")
    reason, closer = (_terse, _terse_closer) if style == "terse" else (_warm, _warm_closer)
    parts: Document = []
    for place, code in enumerate(instruction.picks):
        parts += [Product(code), f" {table.loc[code, 'name']}: {reason(table.loc[code], instruction.asked, place)}"]
    note = _note(table.loc[list(instruction.picks), "name"])
    parts[-1] = f"{parts[-1]} Note: {note}{'.' if style == 'terse' else ', what a joy!'} Or:"
    other = table.loc[instruction.close[0]]
    return [*parts, Product(instruction.close[0]), f" {other['name']}: {closer(other)}"]


def _facts(product: pd.Series, asked: dict[str, str]) -> dict[str, str]:
    """The attributes asked for that the product has, in words."""
    met = {name: value for name, value in asked.items() if product[name] == value}
    return met | ({"occasion": for_occasion(met["occasion"])} if "occasion" in met else {})


def _terse(product: pd.Series, asked: dict[str, str], place: int) -> str:
    facts = _facts(product, asked)
    known = [facts[name] for name in ("colour", "occasion") if name in facts]
    return ", ".join([*known, format_pounds(product["price"])]) + "."


def _warm(product: pd.Series, asked: dict[str, str], place: int) -> str:
    facts = _facts(product, asked)
    praise = ["a lovely", "a pretty", "a sweet", "a happy"][place]
    words = [praise, facts.get("colour", ""), "one", facts.get("occasion", "")]
    return f"{' '.join(word for word in words if word)}, only {format_pounds(product['price'])}!"


def _terse_closer(product: pd.Series) -> str:
    return f"{format_pounds(product['price'])}."


def _warm_closer(product: pd.Series) -> str:
    return f"a lovely change, only {format_pounds(product['price'])}!"


def _note(names: Sequence[str]) -> str:
    """The note on the first material that the names of the picks tell."""
    notes = phrases()["materials"]
    return next((notes[word] for name in names for word in name.lower().split() if word in notes), "all are in stock")
