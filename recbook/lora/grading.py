"""Grading the answers of a shop's assistant by rules: the same answer always gets the same grades."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from recbook.lora.instructions import ASKED_ATTRIBUTES, FEWEST_PICKS, MOST_PICKS, Instruction, for_occasion
from recbook.tokens.documents import format_pounds
from recbook.tokens.vocabulary import Vocabulary

NOTE, OR = " Note: ", " Or:"


class Answer(NamedTuple):
    """An answer in its parts. A pick and the alternative are a product's code and the text after it."""

    picks: list[tuple[str, str]]
    note: str
    alternative: tuple[str, str]


def parse_answer(ids: Sequence[int], vocabulary: Vocabulary) -> Answer | None:
    """The parts of an answer, given its tokens without the end token, or None if it does not follow the format.

    The format: two to four products, each with its name, a colon and a reason; a note; one other product, likewise.
    """
    mentions = _mentions(ids, vocabulary)
    if mentions is None or not FEWEST_PICKS < len(mentions) <= MOST_PICKS + 1:
        return None
    if len({code for code, _ in mentions}) < len(mentions):
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
    controls = set(vocabulary.control.values())
    mentions: list[tuple[str, list[int]]] = []
    for token in ids:
        if token in controls or (token not in codes and not mentions):
            return None
        if token in codes:
            mentions.append((codes[token], []))
        else:
            mentions[-1][1].append(token)
    return [(code, vocabulary.decode(text)) for code, text in mentions]


def _is_reasoned(text: str) -> bool:
    name, colon, reason = text.partition(": ")
    return name.startswith(" ") and bool(colon) and len(reason) > 1 and reason[-1] in ".!"


def grade_answer(
    ids: Sequence[int], instruction: Instruction, table: pd.DataFrame, vocabulary: Vocabulary
) -> dict[str, bool]:
    """The grades of an answer, each True or False; an answer that does not follow the format fails in all.

    - `format`: it follows the format.
    - `grounded`: it names only products that the search found, by their names.
    - `prices`: it states the true price of each product, and no other.
    - `colour`, `kind`, `occasion`: the picks have the attribute that the request asks for (only if it asks for it).
    - `meets`: the picks have all attributes that the request asks for.
    - `reasons`: the reasons give the colour and occasion asked for, and no other occasion.
    - `complete`: it names all products that meet the request, in order.

    `table` is that of `goods_table`. The alternative need not meet the request.
    """
    asked, answer = instruction.asked, parse_answer(ids, vocabulary)
    if answer is None:
        return dict.fromkeys(["format", "grounded", "prices", *_in_order(asked), "meets", "reasons", "complete"], False)
    mentions = [*answer.picks, answer.alternative]
    known = all(code in instruction.found for code, _ in mentions)
    picks = [code for code, _ in answer.picks]
    met = {name: known and bool((table.loc[picks, name] == asked[name]).all()) for name in _in_order(asked)}
    prices = (_prices(text) == [format_pounds(table.loc[code, "price"])] for code, text in mentions)
    return {
        "format": True,
        "grounded": known and all(text.startswith(f" {table.loc[code, 'name']}: ") for code, text in mentions),
        "prices": known and not _prices(answer.note) and all(prices),
        **met,
        "meets": all(met.values()),
        "reasons": all(_gives(text.partition(": ")[2], asked) for _, text in answer.picks),
        "complete": picks == list(instruction.picks),
    }


def _in_order(asked: dict[str, str]) -> list[str]:
    return [name for name in ASKED_ATTRIBUTES if name in asked]


def _gives(reason: str, asked: dict[str, str]) -> bool:
    """Whether a reason gives the colour and the occasion asked for, and no occasion if none was asked for."""
    purpose = for_occasion(asked["occasion"]) in reason if "occasion" in asked else "for " not in reason
    return purpose and asked.get("colour", "") in reason


def _prices(text: str) -> list[str]:
    """The prices that a text states."""
    return [f"£{rest.rstrip('.!,')}" for rest in (word.partition("£")[2] for word in text.split()) if rest]
