"""The constrained-decoding grammar of a narrative: a style's plain words, and the facts' names, numbers and months."""

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

# Slots, the 've of "you've", words, punctuation marks.
PIECE_PATTERN = re.compile(r"\{\w+\}|'(?:[sdmt]|ll|ve|re)\b|[^\W\d_]+|[.!?,;:]")
Node = dict[int | None, "Node"]  # what may follow, by token; None: the phrase is complete


class NarrativeGrammar:
    """A finite automaton as a constraint for `generate`: phrase after phrase, each of a kind that may follow the last.

    Like `Trie`, but where a phrase is complete the next one may begin, or a longer phrase may go on. It follows the
    text as it grows, so a step costs little.
    """

    def __init__(self, phrases: Mapping[str, Sequence[Sequence[int]]], follows: Mapping[str, Iterable[str]], end: int):
        """`phrases`: token sequences by kind. `follows`: the kinds that may come after each kind.

        "" is the beginning; where "" may follow, the text may end, with the token `end`. Kinds from which the end
        cannot be reached, because what must follow them has no phrases, are left out. ValueError if no text is left.
        """
        self.end, self.follows = end, _without_dead_ends(phrases, follows)
        self.roots: dict[str, Node] = {}
        for kind in self.follows:
            self.roots[kind] = {}
            for phrase in phrases.get(kind, ()):
                node = self.roots[kind]
                for token in phrase:
                    node = node.setdefault(int(token), {})
                node[None] = {}  # complete
        self._text: list[int] = []
        self._after = [self._next("")]  # the states, (kind, node), after 0, 1, 2 … tokens

    def _next(self, kind: str) -> list[tuple[str, Node]]:
        kinds = self.follows[kind] | (self.follows[""] if "" in self.follows[kind] else set())
        return [(after, self.roots[after]) for after in sorted(kinds - {""})]

    def __call__(self, text: Sequence[int]) -> list[int]:
        """The tokens that may come after `text`; none if the phrases do not make up the text."""
        same = next((n for n, (one, other) in enumerate(zip(self._text, text, strict=False)) if one != other), None)
        same = min(len(self._text), len(text)) if same is None else same
        del self._after[same + 1 :]
        for token in text[same:]:
            here = [(kind, node[token]) for kind, node in self._after[-1] if token in node]
            done = sorted({kind for kind, node in here if None in node})
            ends: list[tuple[str, Node]] = [("", {self.end: {}})] * any("" in self.follows[kind] for kind in done)
            self._after.append(here + [place for kind in done for place in self._next(kind)] + ends)
        self._text = list(text)
        return sorted({token for _, node in self._after[-1] for token in node if token is not None})


def _without_dead_ends(phrases: Mapping[str, Sequence], follows: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """The kinds that may follow each kind, without those from which the end cannot be reached."""
    left = {kind: set(kinds) for kind, kinds in follows.items() if kind == "" or phrases.get(kind)}
    ends = {kind for kind, kinds in left.items() if kind and "" in kinds}
    while more := {kind for kind, kinds in left.items() if kind and kind not in ends and kinds & ends}:
        ends |= more
    if not left.get("", set()) & ends:
        raise ValueError("nothing can be said: no kind that may come first leads to the end")
    return {kind: left[kind] & (ends | {""}) for kind in [*sorted(ends), ""]}


# --- The grammar of one narrative ---------------------------------------------------------------------------------


def narrative_grammar(facts: Facts, vocabulary: Vocabulary, style: str) -> NarrativeGrammar:
    """The grammar of one narrative: the style's plain words, and in its slots the facts' names, numbers, months."""
    phrases = {kind: [vocabulary.encode(kind)] for kind in following_pieces(style) if kind and not kind.startswith("{")}
    phrases |= {
        f"{{{name}}}": [vocabulary.encode(f" {words}") for words in choices]
        for name, choices in slot_choices(facts).items()
    }
    for name, product in slot_products(facts).items():
        phrases[f"{{{name}}}"] = [encode_document([Product(product.code), f" {product.name}"], vocabulary)]
    return NarrativeGrammar(phrases, following_pieces(style), vocabulary.control["<|end|>"])


@lru_cache(maxsize=len(NARRATIVE_STYLES))
def following_pieces(style: str) -> dict[str, frozenset[str]]:
    """The words, marks and slots that follow each in the templates of a style; "" is the beginning and the end."""
    after: dict[str, set[str]] = defaultdict(set)
    for variant in (
        variant
        for kind in SENTENCE_KINDS
        for template in sentence_templates()[style][kind]
        for variant in expand_choices(template)
    ):
        found = PIECE_PATTERN.findall(variant)
        pieces = ["", *(piece if piece[0] in "'{.!?,;:" else f" {piece}" for piece in found), ""]
        for one, other in pairwise(pieces):
            after[one].add(other)
    return {kind: frozenset(kinds) for kind, kinds in after.items()}
