"""Two or three sentences that say why: written by the GPT from a sheet of facts, free, or so that they are true.

Truth has two stages. While the model writes, `Words` lets it choose freely among plain words, but names, numbers and
months can only be those of the sheet. That keeps out what was invented, not what was mixed up: a true price told
as another's. So the checker reads every finished text, and from the first false sentence on it is drawn again with
another seed; after TRIES, the plainest true sentence takes its place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baskets.model import BasketGPT
from recbook.generation.generate import generate
from recbook.generation.sampling import Sampling
from recbook.gpt.model import GPT
from recbook.lora.pairs import PromptAnswerPairs, encode_pairs
from recbook.narratives.claim_checker import ClaimChecker
from recbook.narratives.constraints import narrative_grammar
from recbook.narratives.fact_store import FactStore, HeldOutSplit
from recbook.narratives.facts import Facts, month_in_words, times_in_words
from recbook.narratives.templates import fact_prompt, write_template_narrative
from recbook.tokens.documents import Document, Product, encode_document, format_pounds
from recbook.tokens.vocabulary import Vocabulary

NARRATIVE_TOKENS = 90  # tokens that a narrative may have
MOST_TRIES = 6  # times that a text with a false sentence is drawn again from there
WRITTEN_AT_ONCE = 64  # texts that are written at once
NARRATIVE_SAMPLING = Sampling(temperature=0.8, top_p=0.95)


class Narrative(NamedTuple):
    """A text, and what it took."""

    text: str  # as a reader sees it
    ids: list[int]
    redrawn: int = 0  # times that it was drawn again from its first false sentence
    plainest: bool = False  # whether it ends in the plainest true sentence, since nothing else came out true


def narrative_pairs(
    made: Sequence[Facts], style: str, vocabulary: Vocabulary, positions: int, seed: int = 0
) -> PromptAnswerPairs:
    """Sheets and narratives written by the forms, to teach a style; those that do not fit are left out."""
    rng = np.random.default_rng(seed)
    both = encode_pairs(
        [fact_prompt(facts) for facts in made],
        [write_template_narrative(facts, style, rng) for facts in made],
        vocabulary,
    )
    return both.take(both.fitting(positions))


# --- Writing -----------------------------------------------------------------------------------------------------


def write_free(
    model: GPT,
    made: Sequence[Facts],
    vocabulary: Vocabulary,
    sampling: Sampling = NARRATIVE_SAMPLING,
    seed: int = 0,
    style: str = "",
) -> list[Narrative]:
    """A narrative for each of the facts, written freely; with a `style`, only of its plain words and of the facts.

    With a style, invented names, numbers and months are impossible; what is true may still be told of the wrong thing.
    """
    return [
        Narrative(_read(ids, vocabulary), ids)
        for ids in _drawn(model, made, [[]] * len(made), vocabulary, sampling, seed, style)
    ]


def write_checked(
    model: GPT,
    made: Sequence[Facts],
    vocabulary: Vocabulary,
    checker: ClaimChecker,
    style: str,
    sampling: Sampling = NARRATIVE_SAMPLING,
    seed: int = 0,
) -> list[Narrative]:
    """As `write_free` with a style; and from its first false sentence on, each text is drawn again until all is true.

    So is a text that is not whole (`first_false_sentence`). After TRIES the plainest true sentences follow what is true.
    """
    told = write_free(model, made, vocabulary, sampling, seed, style)
    for attempt in range(1, MOST_TRIES + 1):
        kept = {
            row: cut
            for row, each in enumerate(told)
            if (cut := first_false_sentence(each.text, made[row], checker)) is not None
        }
        if not kept:
            return told
        rows = list(kept)
        before = [_before(told[row].ids, kept[row], vocabulary) for row in rows]
        more = _drawn(
            model, [made[row] for row in rows], before, vocabulary, sampling, seed + 1_000_003 * attempt, style
        )
        for row, start, ids in zip(rows, before, more, strict=True):
            told[row] = Narrative(_read(start + ids, vocabulary), start + ids, attempt)
    return [_mended(each, facts, vocabulary, checker) for each, facts in zip(told, made, strict=True)]


def first_false_sentence(text: str, facts: Facts, checker: ClaimChecker) -> int | None:
    """Where a text must be drawn again: where the first sentence begins that says something false; None: it is good.

    If all is true but the text is not whole, that is where its last sentence begins, or 0 if the reason is missing.
    Whole is a text of two sentences or more that names the product, its price and the purchase that is the reason.
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


def _mended(each: Narrative, facts: Facts, vocabulary: Vocabulary, checker: ClaimChecker) -> Narrative:
    cut = first_false_sentence(each.text, facts, checker)
    if cut is None:
        return each
    kept = _before(each.ids, cut, vocabulary)
    ids = kept + encode_document(plainest_narrative(facts, _read(kept, vocabulary)), vocabulary)
    return Narrative(_read(ids, vocabulary), ids, MOST_TRIES, plainest=True)


def _drawn(model, made, before, vocabulary, sampling, seed, style) -> list[list[int]]:
    """What follows the sheets and what is kept of each text, in batches."""
    end, texts = vocabulary.control["<|end|>"], []
    prompts = [
        encode_document(fact_prompt(facts), vocabulary) + start for facts, start in zip(made, before, strict=True)
    ]
    for first in range(0, len(prompts), WRITTEN_AT_ONCE):
        rows = slice(first, first + WRITTEN_AT_ONCE)
        room = min(NARRATIVE_TOKENS, model.config.context - max(map(len, prompts[rows])))
        constraints = [narrative_grammar(facts, vocabulary, style) for facts in made[rows]] if style else None
        texts += generate(model, prompts[rows], room, sampling, stop=[end], seed=seed + first, constraint=constraints)
    return texts


def _read(ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """What a reader sees of these tokens: the text, without products' tokens."""
    return vocabulary.decode([token for token in ids if token < len(vocabulary.ranks)]).strip()


def _before(ids: list[int], cut: int, vocabulary: Vocabulary) -> list[int]:
    """The tokens whose text comes before place `cut` of the text as read."""
    kept, texts = 0, [token if token < len(vocabulary.ranks) else None for token in ids]
    while kept < len(ids) and len(vocabulary.decode(t for t in texts[: kept + 1] if t is not None).lstrip()) < cut:
        kept += 1
    return ids[:kept]


# --- Reasons -----------------------------------------------------------------------------------------------------


class ExplainedRecommendation(NamedTuple):
    """A recommendation to a shopper, with the purchase that did most for it as its reason."""

    customer: int
    facts: Facts
    effects: pd.Series  # by purchase: how much the log-odds of the product fall without it, the most first


def explain_recommendations(
    ranker: BasketGPT, ledger: FactStore, cast: HeldOutSplit, each: int
) -> list[ExplainedRecommendation]:
    """For every shopper of the cast the `each` products of the cast that rank first of those new to them, with reasons.

    The reason is the purchase with the largest effect. Shoppers of whose purchases the ranker knows fewer than two are
    left out: there would be no other to compare the reason with.
    """
    found, known = [], set(ranker.catalogue.codes.tolist())
    among = [code for code in cast.products if code in known]
    for customer in cast.shoppers:
        mine = [code for code in ledger.bought(customer) if code in known]
        new = [code for code in among if code not in ledger.bought(customer)]
        if len(mine) < 2 or not new:
            continue
        odds = reason_effects(ranker, ledger, customer)
        best = odds.loc["all", new].sort_values(ascending=False, kind="stable").index[:each]
        for code in best:
            effects = (odds.loc["all", code] - odds.loc[mine, code]).sort_values(ascending=False, kind="stable")
            found.append(ExplainedRecommendation(customer, ledger.facts(customer, code, list(effects.index)), effects))
    return found


def reason_effects(ranker: BasketGPT, ledger: FactStore, customer: int) -> pd.DataFrame:
    """The log-odds of every product in this shopper's next basket, (1 + purchases, products): a row for the whole
    history, "all", and one without each of the purchases, by its code. As in `BasketGPT.why`, for all products at once.
    """
    known = set(ranker.catalogue.codes.tolist())
    baskets = [(date, [code for code in codes if code in known]) for date, codes in ledger.history(customer)]
    history = ranker.catalogue.entries([basket for basket in baskets if basket[1]])
    items = ranker.catalogue.bought(history)
    scores = ranker.ask([history, *(ranker.catalogue.without(history, item) for item in items)], ledger.moment)
    rows = ["all", *ranker.catalogue.codes[items]]
    return pd.DataFrame(scores - np.log1p(-np.exp(scores)), index=rows, columns=ranker.catalogue.codes)


def faithfulness(effects: pd.Series, cited: str, rng: np.random.Generator) -> tuple[float, float]:
    """How much the score falls without the purchase `cited`, and without another one drawn at random, in nats.

    ValueError if there is no other purchase to compare with.
    """
    others = effects[effects.index != cited].to_numpy()
    if not len(others) or cited not in effects.index:
        raise ValueError(f"{cited} is not one of two purchases or more: there is nothing to compare")
    return float(effects[cited]), float(rng.choice(others))
