"""One clause of a text: who it is about, and what it claims, held against the facts."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from recbook import cues
from recbook.documents import pounds
from recbook.facts import Companion, Facts, Purchase
from recbook.mentions import DATE, NUMBER, PERCENT, PRICE, WORD, Found, Lexicon, cover, month_of, number, said_of, words

ROASTS = ("light roast", "medium roast", "dark roast")  # from light to dark
NOT_BOUGHT = "the facts know no such purchase"


class Claim(NamedTuple):
    """Something that a text says, at text[start:end], whether it is true, and why not."""

    start: int
    end: int
    text: str
    kind: str  # of KINDS
    true: bool
    why: str = ""


class Clause:
    """One clause: who it is about, and its claims, places counted from its beginning."""

    def __init__(self, lexicon: Lexicon, facts: Facts, text: str, names: list[Found], last: frozenset[str]):
        self.lexicon, self.facts, self.text, self.names, self.last = lexicon, facts, text, names, last
        self.covered = cover(text, names)
        self.others = cues.OTHERS.search(self.covered)
        self.you = None if self.others else cues.YOU.search(self.covered)
        # What is said of nobody is said of the product, unless the clause names only another one.
        self.about_it = not self.you and not self.others and (not names or facts.code in self._codes())

    def claims(self) -> list[Claim]:
        """Its claims, under the reading of "it" and of descriptions that makes most of them true."""
        readings = ([*self._products(about), *self._rest(about)] for about in self._subjects())
        return min(readings, key=lambda reading: sum(not claim.true for claim in reading))

    def _subjects(self) -> list[Purchase | Companion | None]:
        """Which purchase, or companion, the clause may be about: the one named, or described, or "it" or "this one"."""
        known = self.facts.companions if self.others else self.facts.bought if self.you else ()
        named = self._codes() - ({self.facts.code} if self.others else set())
        if not named and self.you and cues.THIS.search(self.covered):
            named = {self.facts.code}
        elif not named and not self.lexicon.attributes(self.covered):
            named = self.last - ({self.facts.code} if self.others else set())
        return [each for each in known if each.code in named or not named] or [None]

    def _codes(self) -> set[str]:
        return {code for name in self.names for code in name.value}

    def _claim(self, place: Found | re.Match, kind: str, true: bool, why: str) -> Claim:
        start, end = (place.start, place.end) if isinstance(place, Found) else place.span()
        return Claim(start, end, self.text[start:end], kind, bool(true), "" if true else why)

    # --- Products and company ------------------------------------------------------------------------------------

    def _products(self, about: Purchase | Companion | None) -> Iterator[Claim]:
        """What the clause says of products by naming them, and of those who bought two."""
        known = {self.facts.code, *(p.code for p in self.facts.bought), *(c.code for c in self.facts.companions)}
        bought, object_ = {purchase.code for purchase in self.facts.bought}, self._object() if self.you else None
        for name in self.names:
            if not name.value & known:
                yield self._claim(name, "product", False, "no product of these facts")
            elif cues.INTRODUCED.search(self.covered[: name.start]) and not self.you:
                yield self._claim(name, "product", self.facts.code in name.value, "not the product that is recommended")
            else:
                yield self._claim(name, "product", name != object_ or name.value & bought, NOT_BOUGHT)
        if self.others:
            named = [name for name in self.names if self.facts.code not in name.value]
            true = isinstance(about, Companion) and self._together(about, named)
            yield self._claim(
                named[-1] if named else self.others, "co-purchase", true, "no others are known to have bought both"
            )

    def _together(self, about: Companion, named: list[Found]) -> bool:
        companions = {each.code for each in self.facts.companions}
        often = about.often or not cues.FREQUENT.search(self.covered)
        return often and all(name.value & companions for name in named)

    def _object(self) -> Found | None:
        """The product that the verb of a purchase is about: the first named after it, or the last before."""
        verb = re.search(cues.VERB, self.covered, re.IGNORECASE)
        place = verb.end() if verb else 0
        after, before = [n for n in self.names if n.start >= place], [n for n in self.names if n.start < place]
        return after[0] if after else before[-1] if before else None

    # --- Numbers, dates, words -----------------------------------------------------------------------------------

    def _rest(self, about: Purchase | Companion | None) -> list[Claim]:
        """Prices, dates, unprovable praise, counts, trends, attributes, and what is left: each place once."""
        text, found = self.covered, []
        readers = [self._prices, self._percents, self._dates, self._unprovable, self._counts, self._trends]
        for read in [*readers, self._attributes, self._strays]:
            new = list(read(text, about))
            found += new
            text = cover(text, [Found(claim.start, claim.end, None) for claim in new])
        return found

    def _prices(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for place in PRICE.finditer(text):
            amount = number(place[1] or place[2]) / (100 if place[3] in ("p", "pence") else 1)
            kind, true_amount, right = self._amount(text[: place.start()], text[place.end() :], about)
            true = right and true_amount is not None and pounds(amount) == pounds(true_amount)
            why = "nothing is known of it" if true_amount is None else f"the receipts say {pounds(true_amount)}"
            yield self._claim(place, kind, true, why if right else "the price did not move so")

    def _amount(self, before: str, after: str, about: Purchase | Companion | None) -> tuple[str, float | None, bool]:
        """What a price between these words is meant to be: its kind, the true one, whether the direction is right."""
        change = self.facts.change
        if (way := cues.way(before, after)) is not None:
            return "discount", abs(change) if change else None, change * way >= 0
        if cue := cues.WAS.search(before):
            return (
                "discount",
                self.facts.was,
                {"down from": change < 0, "up from": change > 0}.get(cue[1].lower(), True),
            )
        if cues.PAID.search(before) or (self.you and cues.EACH.search(before)):
            return "price", about.paid if isinstance(about, Purchase) else None, True
        return "price", self.facts.price if self.about_it or self.you or self.others else None, True

    def _percents(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for place in PERCENT.finditer(text):
            way, percent = cues.way(text[: place.start()], text[place.end() :]), self.facts.percent
            true = way is not None and percent * way > 0 and float(place[1]) == abs(percent)
            yield self._claim(place, "discount", true, f"the price changed by {percent} %")

    def _dates(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for place in DATE.finditer(text):
            before, facts = text[: place.start()], self.facts
            if place[2] == "May" and not before.strip() and re.match(r"\s+(?:we|I|you|it|this)\b", text[place.end() :]):
                continue  # "May we show you …"
            if not self.you and not self.others and cues.ARRIVED.search(before):
                new = facts.new_since is not None and self.about_it
                dates, why = [facts.new_since] * new, "not new since then"
            elif not self.you and cues.SEASON.search(text):
                bare = not (place[1] or place[3] or place[4] or place[5])
                true = bare and month_of(place) == facts.season and (self.about_it or bool(self.others))
                yield self._claim(place, "date", true, f"season: {facts.season}")
                continue
            else:
                dates, why = self._meant(before, about) if self.you else [], "not the date of the purchase"
            yield self._claim(place, "date", said_of(place, dates, facts.moment), why)

    def _meant(self, before: str, about: Purchase | None) -> list:
        """The dates that the words before a month speak of; none if they are not understood."""
        if not isinstance(about, Purchase):
            return []
        if cues.SINCE.search(before) or cues.FIRST.search(before):
            return [about.dates[0]]
        if cues.LAST.search(before):
            return [about.dates[-1]]
        return list(about.dates) if cues.ON.search(before) else []

    def _unprovable(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for place in cues.UNPROVABLE.finditer(text):
            yield self._claim(place, "other", False, "no receipt proves it")

    def _counts(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for place in NUMBER.finditer(text):
            before, after, word = self.covered[: place.start()], self.covered[place.end() :], place[0].lower()
            unit, buyers, held = cues.TIMES.match(after), cues.BUYERS.match(after), None
            times = unit or word in ("once", "twice", "thrice")
            if not times and not buyers and (word == "one" or (word == "two" and cues.BOTH.search(before))):
                continue  # "this one", "the two": no count
            if times and self.you:
                held = self._held(about, after)
            elif buyers and self.others and isinstance(about, Companion):
                held = about.shoppers
            end = place.end() + (unit.end() if unit else 0)
            why = "nothing explains this number" if held is None else f"the receipts say {held}"
            yield self._claim(Found(place.start(), end, None), "count", held == number(word), why)

    def _held(self, about: Purchase | None, after: str) -> int | None:
        """How many baskets held the purchase: in the month that follows the number, or at all."""
        if not isinstance(about, Purchase):
            return None
        month = cues.IN_MONTH.match(after)
        named = DATE.match(after, month.end()) if month else None
        return sum(said_of(named, [date], self.facts.moment) for date in about.dates) if named else about.times

    def _trends(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for way, pattern in ((-1, cues.FALLS), (1, cues.RISES)):
            for place in pattern.finditer(text):
                half = self.facts.percent == -50 or not place[0].lower().startswith("half")
                yield self._claim(place, "discount", self.facts.change * way > 0 and half, "the price did not move so")

    def _attributes(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        for place in self.lexicon.attributes(text):
            subjects, every = self._described(text[: place.start], about)
            fits = [self.lexicon.fits(place.value, code) for code in subjects]
            true = bool(fits) and (all(fits) if every else any(fits))
            yield self._claim(place, "attribute", true, "not so, or not known")
        for place in cues.DARKER.finditer(text):
            true = self._is_darker() == place[1].lower()
            yield self._claim(place, "attribute", true, "the roasts are not known to differ so")

    def _described(self, before: str, about: Purchase | Companion | None) -> tuple[list[str], bool]:
        """Which products an attribute after these words describes, and whether all of them or one."""
        code, them = self.facts.code, [about.code] if about else []
        if self.you or (self.others and cues.THEIRS.search(before)):
            return them, True
        if self.others:
            return [code, *them], False
        if cues.SAME.search(before):
            return [code, *self._cited()], True
        if cues.YOURS.search(before):
            return [each.code for each in self.facts.bought], False
        return [code] if self.about_it else sorted(self._codes()), self.about_it

    def _cited(self) -> list[str]:
        """The purchase that "the same" compares with: the last one named, else the first of the facts."""
        last = [each.code for each in self.facts.purchases if each.code in self.last | self._codes()]
        return last[:1] or [each.code for each in self.facts.purchases[:1]] or [""]

    def _is_darker(self) -> str | None:
        roasts = [self.lexicon.phrases.get(code, set()) & set(ROASTS) for code in (self.facts.code, *self._cited())]
        if not all(roasts):
            return None
        mine, theirs = (ROASTS.index(min(roast)) for roast in roasts)
        return "darker" if mine > theirs else "lighter" if mine < theirs else None

    def _strays(self, text: str, about: Purchase | Companion | None) -> Iterator[Claim]:
        """Figures that no rule explained, and names that nobody knows."""
        for place in re.finditer(r"\d+|[£$€%]", text):
            yield self._claim(place, "count", False, "nothing explains this number")
        for place in WORD.finditer(text):
            opens = cues.OPENS.search(text[: place.start()])
            if place[0][0].isupper() and place[0] != "I" and not opens and place[0].lower() not in words()["plain"]:
                yield self._claim(place, "product", False, "a name that the facts do not know")
