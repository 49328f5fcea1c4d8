"""The pre-training corpus of the narrator's base: cards of products, a copy task on fact prompts, single sentences.

A small model must have learned to copy, and must have read the words, before an adapter can teach it a style. The facts
are invented anew for every prompt, so the model can only copy them from it; no sentence follows the prompt it tells.
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
    fact_store: FactStore,
    vocabulary: Vocabulary,
    numbers: tuple[int, int, int],
    seed: int = 0,
    among: Sequence[str] = (),
) -> list[list[int]]:
    """The corpus as token ids, one list per document: product cards, copy-task prompts, sentences `among` products.

    `numbers`: how often each card is repeated, how many prompts, how many sentences.
    """
    repeats, prompts, sentences = numbers
    cards = [card for _ in range(repeats) for card in product_cards(receipts, vocabulary)]
    others = [*copy_task_prompts(fact_store, prompts, seed), *single_sentences(fact_store, sentences, seed, among)]
    return cards + [encode_document(parts, vocabulary) for parts in others]


def copy_task_prompts(fact_store: FactStore, number: int, seed: int = 0) -> Iterator[Document]:
    """The copy task: `number` prompts of invented facts, each followed by all its facts, one by one, in random order.

    The products are real. Their facts are drawn at random, so that the model cannot memorize them.
    """
    rng = np.random.default_rng(seed)
    for _ in range(number):
        lines = prompt_lines(invented_facts(fact_store, rng))
        given = [(line, word) for line in lines for word in line.words]
        copied: Document = []
        for place in rng.permutation(len(given)):
            line, word = given[place]
            copied += [Product(line.code), f" {line.name} {word}." if rng.random() < 0.25 else f": {word}."]
        yield [*lines_as_document(lines), Control("<|answer|>"), *copied]


def single_sentences(
    fact_store: FactStore, number: int, seed: int = 0, among: Sequence[str] = ()
) -> Iterator[Document]:
    """`number` single sentences, of random styles and kinds, about invented facts, without a prompt.

    `among`: the products that they may be about (all, if none is given).
    """
    rng = np.random.default_rng(seed)
    for _ in range(number):
        style, kind = NARRATIVE_STYLES[rng.integers(2)], SENTENCE_KINDS[rng.integers(len(SENTENCE_KINDS))]
        yield join_texts(write_template_sentence(invented_facts(fact_store, rng, among), style, kind, rng))


def invented_facts(fact_store: FactStore, rng: np.random.Generator, among: Sequence[str] = ()) -> Facts:
    """Invented facts about products drawn at random (`among` these, if given): nothing is true but the names."""
    codes = rng.choice(list(among or fact_store.names), 3, replace=False).tolist()
    price = round(float(np.exp(rng.normal(1.4, 0.9))), 2) + 0.2
    kind = fact_store.attributes[codes[1]].get("kind", ("",))[0]
    other = CoPurchase(codes[1], fact_store.names[codes[1]], kind, int(rng.integers(5, 90)), bool(rng.random() < 0.6))
    mixed: dict[str, tuple[str, ...]] = {}
    for code in codes:  # an attribute or two that some other product has
        mixed |= {name: value for name, value in fact_store.attributes[code].items() if rng.random() < 0.7}
    return Facts(
        fact_store.moment, codes[2], fact_store.names[codes[2]], price,
        was=round(price * float(rng.uniform(0.7, 1.5)), 2) if rng.random() < 0.5 else None,
        new_since=_date(fact_store, rng) if rng.random() < 0.3 else None,
        season=MONTH_NAMES[rng.integers(12)] if rng.random() < 0.5 else None,
        attributes=mixed, purchases=(_purchase(fact_store, codes[0], rng),),
        co_purchases=(other,) * int(rng.random() < 0.8),
        own=_purchase(fact_store, codes[2], rng) if rng.random() < 0.1 else None,
    )  # fmt: skip


def _purchase(fact_store: FactStore, code: str, rng: np.random.Generator) -> Purchase:
    """A purchase of a real product, on invented dates."""
    times = int(rng.choice([1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, int(rng.integers(13, 40))]))
    dates = tuple(sorted(_date(fact_store, rng) for _ in range(times)))
    return Purchase(code, fact_store.names[code], dates, 1.0, fact_store.attributes[code])


def _date(fact_store: FactStore, rng: np.random.Generator) -> pd.Timestamp:
    return fact_store.moment - pd.Timedelta(days=int(rng.integers(1, 340)))
