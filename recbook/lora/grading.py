"""Judging the answers of a shop's assistant, by rules that read them: no opinion, the same verdict every time."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from recbook.lora.instructions import ASKED_ATTRIBUTES, FEWEST_PICKS, MOST_PICKS, Instruction, for_occasion
from recbook.tokens.documents import format_pounds
from recbook.tokens.vocabulary import Vocabulary

NOTE, OR = " Note: ", " Or:"


class Answer(NamedTuple):
    """An answer in its parts; a mention is a product's code and what is written after it, up to the next part."""

    picks: list[tuple[str, str]]
    note: str
    alternative: tuple[str, str]


def parse_answer(ids: Sequence[int], vocabulary: Vocabulary) -> Answer | None:
    """The parts of an answer's tokens (without what ends it), or None if it does not follow the format.

    The format: two to four products, each with its name, a colon and a reason; a note; one other product, likewise.
    """
    mentions = _mentions(ids, vocabulary)
    if (
        mentions is None
        or not FEWEST_PICKS < len(mentions) <= MOST_PICKS + 1
        or len({code for code, _ in mentions}) < len(mentions)
    ):
        return None
    *picks, (last, closing), alternative = mentions
    reason, noted, note = closing.partition(NOTE)
    if not noted or not note.endswith(OR):
        return None
    answer = Answer([*picks, (last, reason)], note.removesuffix(OR), alternative)
    whole = all(_is_reasoned(text) for _, text in [*answer.picks, alternative])
    return answer if whole and answer.note else None


def _mentions(ids: Sequence[int], vocabulary: Vocabulary) -> list[tuple[str, str]] | None:
    """Every product named, with the text up to the next; None if there is text before the first, or control tokens."""
    codes = {token: code for code, token in vocabulary.product.items()}
    controls, mentions, texts = set(vocabulary.control.values()), [], []
    for token in ids:
        if token in controls or (token not in codes and not mentions):
            return None
        if token in codes:
            mentions.append(codes[token])
            texts.append([])
        else:
            texts[-1].append(token)
    return [(code, vocabulary.decode(text)) for code, text in zip(mentions, texts, strict=True)]


def _is_reasoned(text: str) -> bool:
    name, colon, reason = text.partition(": ")
    return name.startswith(" ") and bool(colon) and len(reason) > 1 and reason[-1] in ".!"


def grade_answer(
    ids: Sequence[int], instruction: Instruction, table: pd.DataFrame, vocabulary: Vocabulary
) -> dict[str, bool]:
    """Whether an answer follows the `format`; names only products that were found, by their names (`grounded`); states
    the true price of each, and no other (`prices`); meets the `colour`, `kind`, `occasion` asked for (each only if it
    was asked for), all that is asked (`meets`); gives as `reasons` of its picks the colour and occasion that were asked
    for, and no other occasion; and names all that meet the request, in order (`complete`). One that does not follow the
    format passes in nothing.

    table: `instructions.goods_table`. What is asked is demanded of the picks, not of the alternative.
    """
    asked, answer = instruction.asked, parse_answer(ids, vocabulary)
    if answer is None:
        return dict.fromkeys(["format", "grounded", "prices", *_in_order(asked), "meets", "reasons", "complete"], False)
    mentions = [*answer.picks, answer.alternative]
    known = all(code in instruction.found for code, _ in mentions)
    picks = [code for code, _ in answer.picks]
    met = {name: known and bool((table.loc[picks, name] == asked[name]).all()) for name in _in_order(asked)}
    return {
        "format": True,
        "grounded": known and all(text.startswith(f" {table.loc[code, 'name']}: ") for code, text in mentions),
        "prices": known
        and not _prices(answer.note)
        and all(_prices(text) == [format_pounds(table.loc[code, "price"])] for code, text in mentions),
        **met,
        "meets": all(met.values()),
        "reasons": all(_gives(text.partition(": ")[2], asked) for _, text in answer.picks),
        "complete": picks == list(instruction.picks),
    }


def _in_order(asked: dict[str, str]) -> list[str]:
    return [name for name in ASKED_ATTRIBUTES if name in asked]


def _gives(reason: str, asked: dict[str, str]) -> bool:
    """Whether a reason says the colour and the occasion asked for, and no occasion if none was."""
    purpose = for_occasion(asked["occasion"]) in reason if "occasion" in asked else "for " not in reason
    return purpose and asked.get("colour", "") in reason


def _prices(text: str) -> list[str]:
    """The prices that a text states."""
    return [f"£{rest.rstrip('.!,')}" for rest in (word.partition("£")[2] for word in text.split()) if rest]
