"""One clause of a text: who it is about, and what it claims of products and attributes, checked against the facts."""

import re
from collections.abc import Iterator, Set
from typing import NamedTuple

from recbook.narratives import claim_patterns as patterns
from recbook.narratives.entities import (
    PLAIN_WORD_PATTERN,
    Lexicon,
    Mention,
    ProductName,
    cover_mentions,
    is_plain_english,
)
from recbook.narratives.facts import ROASTS, CoPurchase, Facts, Purchase

BOUGHT_THIS = re.compile(patterns.VERB + r":?\s+(?:this(?: one)?|it)\b(?=\W*$)", re.IGNORECASE)
NOT_BOUGHT = "the facts know no such purchase"


class Claim(NamedTuple):
    """A claim: what a text says at text[start:end], whether it is true, and why not."""

    start: int
    end: int
    text: str
    kind: str  # one of CLAIM_KINDS
    true: bool
    why: str = ""


class Clause:
    """One clause: who it is about, and its claims. Places are counted from its beginning."""

    def __init__(self, lexicon: Lexicon, facts: Facts, text: str, names: list[ProductName], before: "Clause | None"):
        """A clause, its names with their places in it, and the clause before it."""
        self.lexicon, self.facts, self.text, self.names = lexicon, facts, text, names
        self.covered = cover_mentions(text, names)
        self.last = before.topic if before else frozenset()
        self.others = patterns.OTHERS.search(self.covered)
        self.you = None if self.others else patterns.YOU.search(self.covered)
        if before and before.you and not self.others:  # "and the teapot once"
            self.you = self.you or patterns.LISTED.match(self.covered)
        # A clause about nobody is about the recommended product, unless it names another one.
        others = [name for name in names if facts.code not in name.value and not self._follows(patterns.COMPARED, name)]
        self.about_it = not self.you and not self.others and (facts.code in self._codes() or not others)
        self.about_it &= bool(names) or not before or not before.misnamed
        self.topic: frozenset[str] = names[-1].value if names else self.last
        self.misnamed: bool = not self.about_it and not self.you and not self.others

    def _follows(self, cue: re.Pattern, name: Mention) -> re.Match | None:
        return cue.search(self.covered[: name.start])

    def _subjects(self) -> list[Purchase | CoPurchase | None]:
        """The purchases or co-purchases that it may be about: named, described, or meant by "it" or "this one"."""
        known = self.facts.co_purchases if self.others else self.facts.bought if self.you else ()
        named: Set[str] = self._codes() - ({self.facts.code} if self.others else set())
        if not named and self.you and patterns.THIS.search(self.covered):
            named = {self.facts.code}
        elif not named and not self.lexicon.attributes(self.covered):
            named = self.last - ({self.facts.code} if self.others else set())
        return [each for each in known if each.code in named or not named] or [None]

    def _codes(self) -> set[str]:
        return {code for name in self.names for code in name.value}

    def _claim(self, place: Mention | re.Match, kind: str, true: bool, why: str) -> Claim:
        start, end = (place.start, place.end) if isinstance(place, Mention) else place.span()
        return Claim(start, end, self.text[start:end], kind, bool(true), "" if true else why)

    # --- Products and co-purchases -------------------------------------------------------------------------------

    def _products(self, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        """Claims that the clause makes by naming products, and by saying who bought both."""
        known = {self.facts.code, *(p.code for p in self.facts.bought), *(c.code for c in self.facts.co_purchases)}
        bought, object_ = {purchase.code for purchase in self.facts.bought}, self._object() if self.you else None
        for name in self.names:
            if not name.value & known:
                yield self._claim(name, "product", False, "no product of these facts")
            elif self.facts.code in name.value and self._follows(patterns.THAN, name) and not self.you:
                yield self._claim(name, "product", False, "it is compared with itself")
            elif not self.you and not self.others and not self._follows(patterns.COMPARED, name):
                yield self._claim(name, "product", self.facts.code in name.value, "not the product that is recommended")
            else:
                mine = name == object_ or self._follows(patterns.MINE, name)
                yield self._claim(name, "product", not mine or bool(name.value & bought), NOT_BOUGHT)
        if self.you and not self.names and (this := BOUGHT_THIS.search(self.covered)):
            yield self._claim(this, "product", isinstance(about, Purchase), NOT_BOUGHT)
        if self.others:
            named = [name for name in self.names if self.facts.code not in name.value]
            true = isinstance(about, CoPurchase) and self._together(about, named)
            true = true and bool(named or self.last - {self.facts.code} or self.lexicon.attributes(self.covered))
            yield self._claim(
                named[-1] if named else self.others, "co-purchase", true, "no others are known to have bought both"
            )

    def _together(self, about: CoPurchase, named: list[ProductName]) -> bool:
        co_purchases = {each.code for each in self.facts.co_purchases}
        often = bool(patterns.OTHERS_VERB.search(self.covered)) and (
            about.often or not patterns.FREQUENT.search(self.covered)
        )
        return often and all(name.value & co_purchases for name in named)

    def _object(self) -> Mention | None:
        """The product that the verb "bought" is about: the first one named after it, or the last before."""
        verb = re.search(patterns.VERB, self.covered, re.IGNORECASE)
        place = verb.end() if verb else 0
        after, before = [n for n in self.names if n.start >= place], [n for n in self.names if n.start < place]
        return after[0] if after else before[-1] if before else None

    # --- Attributes, and what is left ------------------------------------------------------------------------------

    def _attributes(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for place in self.lexicon.attributes(text):
            subjects, every = self._described(text[: place.start], about)
            fits = [self.lexicon.fits(place.value, code) for code in subjects]
            true = bool(fits) and (all(fits) if every else any(fits))
            yield self._claim(place, "attribute", true, "not so, or not known")
        for word in patterns.DARKER.finditer(text):
            true = self._is_darker() == word[1].lower()
            yield self._claim(word, "attribute", true, "the roasts are not known to differ so")

    def _described(self, before: str, about: Purchase | CoPurchase | None) -> tuple[list[str], bool]:
        """The products that an attribute after these words describes, and whether it must fit all of them or one."""
        code, them = self.facts.code, [about.code] if about else []
        if self.you or (self.others and patterns.THEIRS.search(before)):
            return them, True
        if self.others:
            return [code, *them], False
        if patterns.SAME.search(before):
            return [code, *self._referent()], True
        if patterns.YOURS.search(before):
            return [each.code for each in self.facts.bought], False
        return [code] if self.about_it else sorted(self._codes()), self.about_it

    def _referent(self) -> list[str]:
        """The purchase that "the same" refers to: the one described, or named last, else the first of the facts."""
        if yours := patterns.YOUR.search(self.covered):
            described = self.lexicon.attributes(yours[1])
            fitting = [p.code for p in self.facts.bought if all(self.lexicon.fits(w.value, p.code) for w in described)]
            if described:
                return fitting[:1] or [""]
        last = [each.code for each in self.facts.purchases if each.code in self.last | self._codes()]
        return last[:1] or [each.code for each in self.facts.purchases[:1]] or [""]

    def _is_darker(self) -> str | None:
        roasts = [self.lexicon.phrases.get(code, set()) & set(ROASTS) for code in (self.facts.code, *self._referent())]
        if not all(roasts):
            return None
        mine, theirs = (ROASTS.index(min(roast)) for roast in roasts)
        return "darker" if mine > theirs else "lighter" if mine < theirs else None

    def _unexplained(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        """Figures that no rule explained, and unknown words and names."""
        for place in re.finditer(r"\d+|[£$€%]", text):
            yield self._claim(place, "count", False, "nothing explains this number")
        for place in PLAIN_WORD_PATTERN.finditer(text):
            if is_plain_english(place[0]):
                continue
            if place[0].islower() or patterns.OPENS.search(text[: place.start()]):
                yield self._claim(place, "attribute", False, "a word that no fact explains")
            else:
                yield self._claim(place, "product", False, "a name that the facts do not know")
