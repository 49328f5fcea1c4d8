"""A constraint that keeps a text to the facts: a style's plain words, and the sheet's names, numbers and months."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

from recbook.narratives.facts import Facts
from recbook.narratives.templates import (
    NARRATIVE_STYLES,
    SENTENCE_KINDS,
    expand_choices,
    sentence_templates,
    slot_choices,
    slot_products,
)
from recbook.tokens.documents import Product, encode_document
from recbook.tokens.vocabulary import Vocabulary

PIECE_PATTERN = re.compile(
    r"\{\w+\}|'(?:[sdmt]|ll|ve|re)\b|[^\W\d_]+|[.!?,;:]"
)  # places, words, 've of "you've", marks


class NarrativeGrammar:
    """A constraint for `generate`: one phrase after the other, each of a kind that may follow the one before.

    Like `Trie`, but where a phrase is complete the next may begin, or the phrase may go on if a longer one
    does. The text is followed as it grows, so a step costs little.
    """

    def __init__(self, phrases: Mapping[str, Sequence[Sequence[int]]], follows: Mapping[str, Iterable[str]], end: int):
        """`phrases`: token sequences by kind. `following_pieces`: by kind, which kinds may come next; "" is the beginning, and
        where it may come the text may end, with the token `end`. Kinds that lead nowhere, since what must follow them
        has no phrases, are left out. ValueError if nothing can be said.
        """
        self.end, self.follows, self.roots = end, _leading_on(phrases, follows), {}
        for kind in self.follows:
            self.roots[kind] = {}
            for phrase in phrases.get(kind, ()):
                node = self.roots[kind]
                for token in phrase:
                    node = node.setdefault(int(token), {})
                node[None] = {}  # complete
        self._text, self._after = [], [self._next("")]  # (kind, node) where one may be after 0, 1, 2 … tokens

    def _next(self, kind: str) -> list[tuple[str, dict]]:
        kinds = self.follows[kind] | (self.follows[""] if "" in self.follows[kind] else set())
        return [(after, self.roots[after]) for after in sorted(kinds - {""})]

    def __call__(self, text: Sequence[int]) -> list[int]:
        """The tokens that may come after `text`; none if it is not made of the phrases."""
        same = next((n for n, (one, other) in enumerate(zip(self._text, text, strict=False)) if one != other), None)
        same = min(len(self._text), len(text)) if same is None else same
        del self._after[same + 1 :]
        for token in text[same:]:
            here = [(kind, node[token]) for kind, node in self._after[-1] if token in node]
            done = sorted({kind for kind, node in here if None in node})
            ends = [("", {self.end: {}})] * any("" in self.follows[kind] for kind in done)
            self._after.append(here + [place for kind in done for place in self._next(kind)] + ends)
        self._text = list(text)
        return sorted({token for _, node in self._after[-1] for token in node if token is not None})


def _leading_on(phrases: Mapping[str, Sequence], follows: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """What follows what, without the kinds from which the end cannot be reached."""
    left = {kind: set(kinds) for kind, kinds in follows.items() if kind == "" or phrases.get(kind)}
    ends = {kind for kind, kinds in left.items() if kind and "" in kinds}
    while more := {kind for kind, kinds in left.items() if kind and kind not in ends and kinds & ends}:
        ends |= more
    if not left.get("", set()) & ends:
        raise ValueError("nothing can be said: no kind that may come first leads to the end")
    return {kind: left[kind] & (ends | {""}) for kind in [*sorted(ends), ""]}


# --- What may be said --------------------------------------------------------------------------------------------


def narrative_grammar(facts: Facts, vocabulary: Vocabulary, style: str) -> NarrativeGrammar:
    """The constraint of one narrative: the style's plain words; in their places the facts' names, numbers, months."""
    phrases = {kind: [vocabulary.encode(kind)] for kind in following_pieces(style) if kind and not kind.startswith("{")}
    phrases |= {
        f"{{{name}}}": [vocabulary.encode(f" {words}") for words in said] for name, said in slot_choices(facts).items()
    }
    for name, product in slot_products(facts).items():
        phrases[f"{{{name}}}"] = [encode_document([Product(product.code), f" {product.name}"], vocabulary)]
    return NarrativeGrammar(phrases, following_pieces(style), vocabulary.control["<|end|>"])


@lru_cache(maxsize=len(NARRATIVE_STYLES))
def following_pieces(style: str) -> dict[str, frozenset[str]]:
    """Which words, marks and places follow which in the forms of a style; "" is before the first and after the last."""
    after = defaultdict(set)
    for form in (
        form
        for part in SENTENCE_KINDS
        for written in sentence_templates()[style][part]
        for form in expand_choices(written)
    ):
        pieces = ["", *(piece if piece[0] in "'{.!?,;:" else f" {piece}" for piece in PIECE_PATTERN.findall(form)), ""]
        for one, other in pairwise(pieces):
            after[one].add(other)
    return {kind: frozenset(kinds) for kind, kinds in after.items()}
