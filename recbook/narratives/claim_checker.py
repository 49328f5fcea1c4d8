"""The claim checker: finds every claim of a text and checks it against the facts, exactly.

It reads any English text, not only what the shop's own narrator writes: with rules over plain words (`claim_patterns`),
product names and numbers (`entities`). It fails closed: a price, number, month, name or word that no rule can explain
by the facts counts as a false claim, and so does what no receipt can prove: praise such as "bestselling", "not",
"nobody", "most shoppers". So it flags some true texts whose words it does not know.

It reads a text clause by clause. Each clause has a subject: what *you* bought, what *others* bought, or the product. It
checks a claim about a purchase against the purchase that the clause names or describes, or that was named last. A
clause about the product may name another one only to compare, as in "it goes with your teapot".
"""

import re
from collections.abc import Iterator

import pandas as pd

from recbook.narratives import claim_patterns as patterns
from recbook.narratives.clauses import Claim, Clause
from recbook.narratives.entities import (
    COVERED,
    DATE_PATTERN,
    NUMBER_PATTERN,
    PERCENT_PATTERN,
    PRICE_PATTERN,
    Lexicon,
    Mention,
    cover_mentions,
    date_matches,
    list_opening,
    month_of,
    parse_number,
)
from recbook.narratives.fact_store import FactStore
from recbook.narratives.facts import CoPurchase, Facts, Purchase
from recbook.tokens.documents import format_pounds


class ClaimChecker:
    """`ClaimChecker(fact_store).claims(text, facts)`: every claim; `.false(text, facts)`: those that are not true."""

    def __init__(self, fact_store: FactStore):
        """A checker that knows the names and attributes of the fact store's products."""
        self.lexicon = Lexicon(fact_store.names, fact_store.attributes)

    def claims(self, text: str, facts: Facts) -> list[Claim]:
        """All claims of a text, in its order."""
        names, found, clause = self.lexicon.names(text), [], None
        for start, end in _clauses(cover_mentions(text, names)):
            named = [Mention(n.start - start, n.end - start, n.value) for n in names if start <= n.start < end]
            clause = CheckedClause(self.lexicon, facts, text[start:end], named, clause)
            found += [claim._replace(start=claim.start + start, end=claim.end + start) for claim in clause.claims()]
        return sorted(found)

    def false(self, text: str, facts: Facts) -> list[Claim]:
        """The claims that are not true of these facts."""
        return [claim for claim in self.claims(text, facts) if not claim.true]

    def starts(self, text: str) -> list[int]:
        """Where the sentences of a text begin; a full stop inside a price or a name does not end a sentence."""
        covered = cover_mentions(text, self.lexicon.names(text))
        return [0, *(place.end() for place in patterns.SENTENCE.finditer(covered))]


def _clauses(text: str) -> list[tuple[int, int]]:
    """Where the clauses of a covered text begin and end; separators belong to no clause."""
    parts = sorted(
        [*patterns.SENTENCE.finditer(text), *patterns.CLAUSE.finditer(text)], key=lambda place: place.start()
    )
    starts, ends = [0, *(part.end() for part in parts)], [*(part.start() for part in parts), len(text)]
    places: list[tuple[int, int]] = []
    for start, end in zip(starts, ends, strict=True):
        yours = patterns.YOU.search(text[start:end]) and not patterns.OTHERS.search(text[start:end])
        listed = patterns.LISTED.search(text, start + 1, end) if yours else None
        if listed and COVERED in text[start : listed.start()]:
            places += [(start, listed.start()), (listed.end(), end)]
        else:
            places.append((start, end))
    return [(a, b) for a, b in places if a < b and text[a:b].strip()]


class CheckedClause(Clause):
    """A clause whose claims are checked; places are counted from its beginning."""

    def claims(self) -> list[Claim]:
        """Its claims, under the reading of "it" and of descriptions that makes the fewest of them false."""
        readings = ([*self._products(about), *self._other_claims(about)] for about in self._subjects())
        return min(readings, key=lambda reading: sum(not claim.true for claim in reading))

    # --- Numbers, dates, words -----------------------------------------------------------------------------------

    def _other_claims(self, about: Purchase | CoPurchase | None) -> list[Claim]:
        """Prices, percentages, dates, praise, counts, trends, attributes, unexplained words: each place once."""
        text, found = self.covered, []
        readers = [self._prices, self._percents, self._dates, self._unprovable, self._counts, self._trends]
        for read in [*readers, self._attributes, self._unexplained]:
            new = list(read(text, about))
            found += new
            text = cover_mentions(text, [Mention(claim.start, claim.end, None) for claim in new])
        return found

    def _prices(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for place in PRICE_PATTERN.finditer(text):
            amount = parse_number(place[1] or place[2]) / (100 if place[3] in ("p", "pence") else 1)
            before, after = text[: place.start()], text[place.end() :]
            kind, true_amount, right = self._amount(before, after, about)
            true = right and true_amount is not None and patterns.holds(before, _rounded(true_amount), _rounded(amount))
            why = "nothing is known of it" if true_amount is None else f"the receipts say {format_pounds(true_amount)}"
            yield self._claim(place, kind, true, why if right else "the price did not move so")

    def _amount(self, before: str, after: str, about: Purchase | CoPurchase | None) -> tuple[str, float | None, bool]:
        """What a price between these words means: its kind, the true amount, and whether the direction is right."""
        change = self.facts.change
        if (way := patterns.way(before, after)) is not None:
            return "discount", abs(change) if change else None, change * way >= 0
        if cue := patterns.WAS.search(before):
            return (
                "discount",
                self.facts.was,
                {"down from": change < 0, "up from": change > 0}.get(cue[1].lower(), True),
            )
        told = (self.you and patterns.EACH.search(before)) or (self.others and patterns.OTHERS_VERB.search(before))
        if patterns.PAID.search(before) or told or (self.you and self.facts.code not in self._codes()):
            return "price", about.paid if isinstance(about, Purchase) else None, True
        return "price", self.facts.price if self.about_it or self.you or self.others else None, True

    def _percents(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for place in PERCENT_PATTERN.finditer(text):
            way, percent = patterns.way(text[: place.start()], text[place.end() :]), self.facts.percent
            true = way is not None and percent * way > 0 and float(place[1]) == abs(percent)
            yield self._claim(place, "discount", true, f"the price changed by {percent} %")

    def _dates(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for place in DATE_PATTERN.finditer(text):
            before, facts = list_opening(text[: place.start()]), self.facts
            if place[2] == "May" and not before.strip() and re.match(r"\s+(?:we|I|you|it|this)\b", text[place.end() :]):
                continue  # "May we show you …"
            if not self.you and not self.others and patterns.ARRIVED.search(before):
                new = facts.new_since is not None and self.about_it
                dates, why = [facts.new_since] * new, "not new since then"
            elif not self.you and patterns.SEASON.search(text):
                bare = not (place[1] or place[3] or place[4] or place[5])
                true = bare and month_of(place) == facts.season and (self.about_it or bool(self.others))
                yield self._claim(place, "date", true, f"season: {facts.season}")
                continue
            else:
                dates, why = self._dates_meant(before, about), "not the date of the purchase"
            yield self._claim(place, "date", date_matches(place, dates, facts.moment), why)

    def _dates_meant(self, before: str, about: Purchase | CoPurchase | None) -> list[pd.Timestamp]:
        """The dates that the words before a month refer to; none if no rule understands them."""
        if isinstance(about, CoPurchase) and patterns.YOU_BOUGHT.search(before):
            about = next((each for each in self.facts.bought if each.code == about.code), None)
        if not isinstance(about, Purchase):
            return []
        if patterns.AGAIN_IN.search(before):
            return list(about.dates[1:])
        if patterns.SINCE.search(before) or patterns.FIRST.search(before):
            return [about.dates[0]]
        if patterns.LAST.search(before):
            return [about.dates[-1]]
        return list(about.dates) if patterns.ON.search(before) else []

    def _unprovable(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for place in patterns.UNPROVABLE.finditer(text):
            yield self._claim(place, "other", False, "no receipt proves it")
        if self.you or self.others:
            if isinstance(about, Purchase):
                for place in patterns.AGAIN.finditer(text):
                    true = place[0].lower() == "still" or about.times > 1
                    yield self._claim(place, "count", true, "bought only once")
        elif not DATE_PATTERN.search(self.covered):
            for place in patterns.NEW.finditer(text):
                yield self._claim(place, "date", self.about_it and self.facts.new_since is not None, "not new")

    def _counts(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for place in NUMBER_PATTERN.finditer(text):
            before, after, word = self.covered[: place.start()], self.covered[place.end() :], place[0].lower()
            unit, buyers, held = patterns.TIMES.match(after), patterns.BUYERS.match(after), None
            times = unit or word in ("once", "twice", "thrice")
            if not times and not buyers and (word == "one" or (word == "two" and patterns.BOTH.search(before))):
                continue  # "this one", "the two": no count
            if times and self.you:
                held = self._times_bought(about, after)
            elif buyers and self.others and isinstance(about, CoPurchase):
                held = about.shoppers
            end = place.end() + (unit.end() if unit else 0)
            why = "nothing explains this number" if held is None else f"the receipts say {held}"
            true = held is not None and patterns.holds(before, held, parse_number(word))
            yield self._claim(Mention(place.start(), end, None), "count", true, why)

    def _times_bought(self, about: Purchase | CoPurchase | None, after: str) -> int | None:
        """How many baskets held the purchase: in the month that follows the number, or in all."""
        if not isinstance(about, Purchase):
            return None
        month = patterns.IN_MONTH.match(after)
        named = DATE_PATTERN.match(after, month.end()) if month else None
        return sum(date_matches(named, [date], self.facts.moment) for date in about.dates) if named else about.times

    def _trends(self, text: str, about: Purchase | CoPurchase | None) -> Iterator[Claim]:
        for way, pattern in ((-1, patterns.FALLS), (1, patterns.RISES)):
            for place in pattern.finditer(text):
                half = self.facts.percent == -50 or not place[0].lower().startswith("half")
                yield self._claim(place, "discount", self.facts.change * way > 0 and half, "the price did not move so")


def _rounded(amount: float) -> float:
    """Pounds, rounded as texts write them."""
    return parse_number(format_pounds(amount)[1:])
