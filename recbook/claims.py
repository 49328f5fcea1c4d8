"""The claim checker: finds every claim of a text and holds it against the facts, exactly.

It reads any English text, not only what the shop's own narrator writes: rules over plain words (`cues`), product names
and numbers (`mentions`). It fails closed: a price, number, month, name or attribute that no rule can explain by the
facts counts as a false claim, and so does praise that no receipt can prove, such as "bestselling".

A text is read clause by clause. Each has a subject: what *you* bought, what *others* bought, or the product. A claim
about a purchase is held against the purchase that the clause names, or describes, or that was named last.
"""

from recbook import cues
from recbook.clauses import Claim as Claim
from recbook.clauses import Clause
from recbook.cues import KINDS as KINDS
from recbook.facts import Facts
from recbook.ledger import Ledger
from recbook.mentions import Found, Lexicon, cover


class Checker:
    """`Checker(ledger).claims(text, facts)`: every claim; `.false(text, facts)`: those that are not true."""

    def __init__(self, ledger: Ledger):
        """A checker that knows the names and attributes of this shop's products."""
        self.lexicon = Lexicon(ledger.names, ledger.attributes)

    def claims(self, text: str, facts: Facts) -> list[Claim]:
        """All claims of a text, in its order."""
        names, found, last = self.lexicon.names(text), [], frozenset()
        for start, end in _clauses(cover(text, names)):
            named = [Found(n.start - start, n.end - start, n.value) for n in names if start <= n.start < end]
            clause = Clause(self.lexicon, facts, text[start:end], named, last)
            found += [claim._replace(start=claim.start + start, end=claim.end + start) for claim in clause.claims()]
            last = named[-1].value if named else last
        return sorted(found)

    def false(self, text: str, facts: Facts) -> list[Claim]:
        """The claims that are not true of these facts."""
        return [claim for claim in self.claims(text, facts) if not claim.true]

    def starts(self, text: str) -> list[int]:
        """Where the sentences of a text begin; a full stop inside a price or a name ends none."""
        covered = cover(text, self.lexicon.names(text))
        return [0, *(place.end() for place in cues.SENTENCE.finditer(covered))]


def _clauses(text: str) -> list[tuple[int, int]]:
    """Where the clauses of a covered text begin and end; what parts them belongs to none."""
    parts = sorted([*cues.SENTENCE.finditer(text), *cues.CLAUSE.finditer(text)], key=lambda place: place.start())
    starts, ends = [0, *(part.end() for part in parts)], [*(part.start() for part in parts), len(text)]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b and text[a:b].strip()]
