"""What the storyteller's base reads before it is taught a style: sheets said again piece by piece, and torn sentences.

A small model must have learned to copy, and must have met the words, before an adapter can teach it to tell. The facts
are invented and differ every time, so that they can only be read off the sheet; no sentence stands beside its sheet.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from recbook.narratives.fact_store import FactStore
from recbook.narratives.facts import MONTH_NAMES, CoPurchase, Facts, Purchase
from recbook.narratives.templates import (
    NARRATIVE_STYLES,
    SENTENCE_KINDS,
    join_texts,
    lines_as_document,
    prompt_lines,
    write_template_sentence,
)
from recbook.tokens.documents import Control, Document, Product, encode_document, product_cards
from recbook.tokens.vocabulary import Vocabulary


def pretraining_corpus(
    receipts: pd.DataFrame,
    ledger: FactStore,
    vocabulary: Vocabulary,
    numbers: tuple[int, int, int],
    seed: int = 0,
    among: Sequence[str] = (),
) -> list[list[int]]:
    """All that a storyteller reads, as ids: cards of the receipts, so many times; recitals; sayings `among` products.

    `numbers`: of times, of recitals, of sayings.
    """
    times, recited, said = numbers
    read = [card for _ in range(times) for card in product_cards(receipts, vocabulary)]
    told = [*copy_task_prompts(ledger, recited, seed), *single_sentences(ledger, said, seed, among)]
    return read + [encode_document(parts, vocabulary) for parts in told]


def copy_task_prompts(ledger: FactStore, number: int, seed: int = 0) -> Iterator[Document]:
    """`number` sheets of invented facts, each followed by all that stands on it, piece by piece, in another order.

    The products are real. What is said of them is drawn at random, so that it cannot be known by heart.
    """
    rng = np.random.default_rng(seed)
    for _ in range(number):
        lines = prompt_lines(invented_facts(ledger, rng))
        told = [(line, word) for line in lines for word in line.words]
        again: Document = []
        for place in rng.permutation(len(told)):
            line, word = told[place]
            again += [Product(line.code), f" {line.name} {word}." if rng.random() < 0.25 else f": {word}."]
        yield [*lines_as_document(lines), Control("<|answer|>"), *again]


def single_sentences(ledger: FactStore, number: int, seed: int = 0, among: Sequence[str] = ()) -> Iterator[Document]:
    """`number` single sentences of every style and part about invented facts, with no sheet beside them.

    `among`: the products that they may be about (all, if none is given).
    """
    rng = np.random.default_rng(seed)
    for _ in range(number):
        style, part = NARRATIVE_STYLES[rng.integers(2)], SENTENCE_KINDS[rng.integers(len(SENTENCE_KINDS))]
        yield join_texts(write_template_sentence(invented_facts(ledger, rng, among), style, part, rng))


def invented_facts(ledger: FactStore, rng: np.random.Generator, among: Sequence[str] = ()) -> Facts:
    """Facts of the right form, about products drawn at random (of those), of which nothing is true but the names."""
    codes = rng.choice(list(among or ledger.names), 3, replace=False).tolist()
    price = round(float(np.exp(rng.normal(1.4, 0.9))), 2) + 0.2
    kind = ledger.attributes[codes[1]].get("kind", ("",))[0]
    other = CoPurchase(codes[1], ledger.names[codes[1]], kind, int(rng.integers(5, 90)), bool(rng.random() < 0.6))
    mixed = {}
    for code in codes:  # an attribute or two that some other product has
        mixed |= {name: value for name, value in ledger.attributes[code].items() if rng.random() < 0.7}
    return Facts(
        ledger.moment, codes[2], ledger.names[codes[2]], price,
        was=round(price * float(rng.uniform(0.7, 1.5)), 2) if rng.random() < 0.5 else None,
        new_since=_date(ledger, rng) if rng.random() < 0.3 else None,
        season=MONTH_NAMES[rng.integers(12)] if rng.random() < 0.5 else None,
        attributes=mixed, purchases=(_purchase(ledger, codes[0], rng),), companions=(other,) * int(rng.random() < 0.8),
        own=_purchase(ledger, codes[2], rng) if rng.random() < 0.1 else None,
    )  # fmt: skip


def _purchase(ledger: FactStore, code: str, rng: np.random.Generator) -> Purchase:
    """Of a real product, on invented dates."""
    times = int(rng.choice([1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, rng.integers(13, 40)]))
    dates = tuple(sorted(_date(ledger, rng) for _ in range(times)))
    return Purchase(code, ledger.names[code], dates, 1.0, ledger.attributes[code])


def _date(ledger: FactStore, rng: np.random.Generator) -> pd.Timestamp:
    return ledger.moment - pd.Timedelta(days=int(rng.integers(1, 340)))
