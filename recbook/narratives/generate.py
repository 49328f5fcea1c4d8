"""Narratives, two or three sentences that say why: written by the GPT from a fact prompt, freely or checked.

Truth takes two stages. While the model writes, the `NarrativeGrammar` lets it choose freely among plain words, but
names, numbers and months can only be those of the facts. That excludes what is invented, not what is mixed up: the
price of one product told of another. So the checker reads every finished text. From the first false sentence on, the
text is sampled again with another seed; after MOST_TRIES the plainest true sentences take its place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baskets.model import BasketGPT, log_odds
from recbook.generation.generate import generate
from recbook.generation.sampling import Sampling
from recbook.gpt.model import GPT
from recbook.lora.pairs import PromptAnswerPairs, encode_pairs
from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.constraints import narrative_grammar
from recbook.narratives.fact_store import FactStore, FactSubset
from recbook.narratives.facts import Facts, month_in_words, times_in_words
from recbook.narratives.templates import fact_prompt, write_template_narrative
from recbook.tokens.documents import Document, Product, encode_document, format_pounds
from recbook.tokens.vocabulary import Vocabulary

NARRATIVE_TOKENS = 90  # tokens of a narrative, at most
MOST_TRIES = 6  # times that a text is sampled again from its first false sentence
WRITTEN_AT_ONCE = 64  # texts in a batch
NARRATIVE_SAMPLING = Sampling(temperature=0.8, top_p=0.95)


class Narrative(NamedTuple):
    """A text, and how it came about."""

    text: str  # as a reader sees it, without product tokens
    ids: list[int]
    redrawn: int = 0  # times that it was sampled again from its first false sentence
    plainest: bool = False  # whether it ends in the plainest true sentences, since no sample was true


def narrative_pairs(
    all_facts: Sequence[Facts], style: str, vocabulary: Vocabulary, positions: int, seed: int = 0
) -> PromptAnswerPairs:
    """Fact prompts and narratives written from templates, to teach a style; those that do not fit are left out."""
    rng = np.random.default_rng(seed)
    both = encode_pairs(
        [fact_prompt(facts) for facts in all_facts],
        [write_template_narrative(facts, style, rng) for facts in all_facts],
        vocabulary,
    )
    return both.take(both.fitting(positions))


# --- Writing -----------------------------------------------------------------------------------------------------


def write_free(
    model: GPT,
    all_facts: Sequence[Facts],
    vocabulary: Vocabulary,
    sampling: Sampling = NARRATIVE_SAMPLING,
    seed: int = 0,
    style: str = "",
) -> list[Narrative]:
    """A narrative for each of the facts, written freely; with a `style`, under the constraint of its grammar.

    With a style, invented names, numbers and months are impossible; true ones may still be told of the wrong thing.
    """
    return [
        Narrative(_visible_text(ids, vocabulary), ids)
        for ids in _sample(model, all_facts, [[]] * len(all_facts), vocabulary, sampling, seed, style)
    ]


def write_checked(
    model: GPT,
    all_facts: Sequence[Facts],
    vocabulary: Vocabulary,
    checker: ClaimChecker,
    style: str,
    sampling: Sampling = NARRATIVE_SAMPLING,
    seed: int = 0,
) -> list[Narrative]:
    """As `write_free` with a style; and from its first false sentence on, each text is sampled again until all is true.

    So is a text that is not whole (`first_false_sentence`). After MOST_TRIES the plainest true sentences follow what is
    true.
    """
    told = write_free(model, all_facts, vocabulary, sampling, seed, style)
    for attempt in range(1, MOST_TRIES + 1):
        kept = {
            row: cut
            for row, each in enumerate(told)
            if (cut := first_false_sentence(each.text, all_facts[row], checker)) is not None
        }
        if not kept:
            return told
        rows = list(kept)
        before = [_ids_before(told[row].ids, kept[row], vocabulary) for row in rows]
        more = _sample(
            model, [all_facts[row] for row in rows], before, vocabulary, sampling, seed + 1_000_003 * attempt, style
        )
        for row, start, ids in zip(rows, before, more, strict=True):
            told[row] = Narrative(_visible_text(start + ids, vocabulary), start + ids, attempt)
    return [_with_fallback(each, facts, vocabulary, checker) for each, facts in zip(told, all_facts, strict=True)]


def first_false_sentence(text: str, facts: Facts, checker: ClaimChecker) -> int | None:
    """Where a text must be sampled again: the start of the first sentence with a false claim; None if it is good.

    If all is true but the text is not whole, it is the start of the last sentence, or 0 if the reason is missing. A
    text is whole if it has two sentences or more and names the product, its price and the purchase that is the reason.
    """
    claims, starts = checker.claims(text, facts), checker.starts(text)
    if wrong := [claim.start for claim in claims if not claim.true]:
        return max(start for start in starts if start <= min(wrong))
    named = {claim.text.lower() for claim in claims if claim.kind == "product"}
    if facts.purchases and facts.purchases[0].name.lower() not in named:
        return 0
    whole = len(starts) > 1 and facts.name.lower() in named and any(claim.kind == "price" for claim in claims)
    return None if whole and text[-1] in ".!?" else starts[-1] if len(starts) > 1 else 0


def plainest_narrative(facts: Facts, text: str = "") -> Document:
    """The plainest true sentences that make a text whole: the reason, if the text does not name it, and the price."""
    parts: Document = []
    if facts.purchases and facts.purchases[0].name not in text:
        reason, first = facts.purchases[0], month_in_words(facts.purchases[0].dates[0], facts.moment)
        when = f"in {first}" if reason.times == 1 else f"{times_in_words(reason.times)} since {first}"
        parts = [" You bought the", Product(reason.code), f" {reason.name} {when}."]
    return [*parts, " The", Product(facts.code), f" {facts.name}: {format_pounds(facts.price)}."]


def _with_fallback(each: Narrative, facts: Facts, vocabulary: Vocabulary, checker: ClaimChecker) -> Narrative:
    cut = first_false_sentence(each.text, facts, checker)
    if cut is None:
        return each
    kept = _ids_before(each.ids, cut, vocabulary)
    ids = kept + encode_document(plainest_narrative(facts, _visible_text(kept, vocabulary)), vocabulary)
    return Narrative(_visible_text(ids, vocabulary), ids, MOST_TRIES, plainest=True)


def _sample(
    model: GPT,
    all_facts: Sequence[Facts],
    before: Sequence[list[int]],
    vocabulary: Vocabulary,
    sampling: Sampling,
    seed: int,
    style: str,
) -> list[list[int]]:
    """Continuations of the fact prompts and of what is kept of each text, in batches."""
    end, texts = vocabulary.control["<|end|>"], []
    prompts = [
        encode_document(fact_prompt(facts), vocabulary) + start for facts, start in zip(all_facts, before, strict=True)
    ]
    for first in range(0, len(prompts), WRITTEN_AT_ONCE):
        rows = slice(first, first + WRITTEN_AT_ONCE)
        room = min(NARRATIVE_TOKENS, model.config.context - max(map(len, prompts[rows])))
        constraints = [narrative_grammar(facts, vocabulary, style) for facts in all_facts[rows]] if style else None
        texts += generate(model, prompts[rows], room, sampling, stop=[end], seed=seed + first, constraint=constraints)
    return texts


def _visible_text(ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """The text of these tokens as a reader sees it, without product tokens."""
    return vocabulary.decode([token for token in ids if token < len(vocabulary.ranks)]).strip()


def _ids_before(ids: list[int], cut: int, vocabulary: Vocabulary) -> list[int]:
    """The first tokens: those whose visible text ends before place `cut`."""
    kept, texts = 0, [token if token < len(vocabulary.ranks) else None for token in ids]
    while kept < len(ids) and len(vocabulary.decode(t for t in texts[: kept + 1] if t is not None).lstrip()) < cut:
        kept += 1
    return ids[:kept]


# --- Reasons -----------------------------------------------------------------------------------------------------


class ExplainedRecommendation(NamedTuple):
    """A recommendation to a shopper; its reason is the purchase with the largest effect on the score."""

    customer: int
    facts: Facts
    effects: pd.Series  # by purchase: how much the log-odds of the product fall without it, largest first


def explain_recommendations(
    ranker: BasketGPT, fact_store: FactStore, subset: FactSubset, each: int
) -> list[ExplainedRecommendation]:
    """Per shopper of the subset, the `each` best products of the subset that are new to the shopper, with reasons.

    The reason is the purchase with the largest effect. Shoppers with fewer than two purchases that the ranker knows are
    left out: there would be no other purchase to compare the reason with.
    """
    found, known = [], set(ranker.catalogue.codes.tolist())
    among = [code for code in subset.products if code in known]
    for customer in subset.shoppers:
        mine = [code for code in fact_store.bought(customer) if code in known]
        new = [code for code in among if code not in fact_store.bought(customer)]
        if len(mine) < 2 or not new:
            continue
        odds = reason_effects(ranker, fact_store, customer)
        best = odds.loc["all", new].sort_values(ascending=False, kind="stable").index[:each]
        for code in best:
            effects = (odds.loc["all", code] - odds.loc[mine, code]).sort_values(ascending=False, kind="stable")
            found.append(
                ExplainedRecommendation(customer, fact_store.facts(customer, code, list(effects.index)), effects)
            )
    return found


def reason_effects(ranker: BasketGPT, fact_store: FactStore, customer: int) -> pd.DataFrame:
    """The log-odds of every product in this shopper's next basket, (1 + purchases, products).

    The row "all" is for the whole history; the others are without one purchase each, by its code. As in
    `BasketGPT.why`, for all products at once.
    """
    known = set(ranker.catalogue.codes.tolist())
    baskets = [(date, [code for code in codes if code in known]) for date, codes in fact_store.history(customer)]
    history = ranker.catalogue.entries([basket for basket in baskets if basket[1]])
    items = ranker.catalogue.bought(history)
    scores = ranker.score([history, *(ranker.catalogue.without(history, item) for item in items)], fact_store.moment)
    rows = ["all", *ranker.catalogue.codes[items]]
    return pd.DataFrame(log_odds(scores), index=rows, columns=ranker.catalogue.codes)


def faithfulness(effects: pd.Series, cited: str, rng: np.random.Generator) -> tuple[float, float]:
    """How much the score falls without the purchase `cited`, and without another one drawn at random, in nats.

    ValueError if there is no other purchase to compare with.
    """
    others = effects[effects.index != cited].to_numpy()
    if not len(others) or cited not in effects.index:
        raise ValueError(f"{cited} is not one of two purchases or more: there is nothing to compare")
    return float(effects[cited]), float(rng.choice(others))
