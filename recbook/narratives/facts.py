"""Facts: what may be said of a shopper and a product at a moment; and the words for numbers and months.

A `Facts` is one recommendation: what the shopper bought that belongs to it, how often and when; what it costs now and
cost before; its attributes; who bought both; its season. `FactStore` counts them from receipts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

Attributes = Mapping[str, tuple[str, ...]]  # such as colour: ("sage green",)


class Purchase(NamedTuple):
    """A product that the shopper bought: when (a date per basket, oldest first), and what a unit cost the last time."""

    code: str
    name: str
    dates: tuple[pd.Timestamp, ...]
    paid: float  # pounds
    attributes: Attributes

    @property
    def times(self) -> int:
        """How many baskets held it."""
        return len(self.dates)


class CoPurchase(NamedTuple):
    """A purchase of this shopper that others bought beside the recommended product."""

    code: str
    name: str
    kind: str  # what it is, in a word or two: kettle; "" if that is not known
    shoppers: int  # others who bought both
    often: bool  # whether OFTEN_SHARE of those who bought this bought the recommended one too


@dataclass(frozen=True)
class Facts:
    """All that may be said when one product is recommended to one shopper."""

    moment: pd.Timestamp
    code: str
    name: str
    price: float  # pounds, now
    was: float | None = None  # pounds: what the shopper paid last, or what it cost before; None: the same, or not known
    new_since: pd.Timestamp | None = None  # first sold, of a new product
    season: str | None = None  # the month in which it sells most
    attributes: Attributes = field(default_factory=dict)
    purchases: tuple[Purchase, ...] = ()  # the reason for it
    own: Purchase | None = None  # of the product itself
    co_purchases: tuple[CoPurchase, ...] = ()  # what others bought it with

    @property
    def change(self) -> float:
        """Pounds by which the price rose; below 0 it fell, 0 if nothing is known."""
        return 0.0 if self.was is None else round(self.price - self.was, 2)

    @property
    def percent(self) -> int:
        """The change in whole per cent of what it was: -15."""
        return round(100 * self.change / self.was) if self.was else 0

    @property
    def bought(self) -> tuple[Purchase, ...]:
        """All purchases in these facts: the reasons, then the product itself."""
        return self.purchases + ((self.own,) if self.own else ())

    @property
    def shared(self) -> tuple[str, ...]:
        """Values of attributes that the product has in common with its first purchase."""
        mine = {value for values in self.attributes.values() for value in values}
        theirs = self.purchases[0].attributes.values() if self.purchases else ()
        return tuple(value for values in theirs for value in values if value in mine)


# --- Words -------------------------------------------------------------------------------------------------------

# In English, whatever the machine's language is.
MONTH_NAMES = [pd.Timestamp(2001, place, 1).month_name() for place in range(1, 13)]
ROASTS = ("light roast", "medium roast", "dark roast")  # from light to dark
NUMBER_WORDS = "no one two three four five six seven eight nine ten eleven twelve".split()


def times_in_words(times: int) -> str:
    """once, twice, three times, 13 times."""
    if times < 3:
        return ["never", "once", "twice"][times]
    return f"{NUMBER_WORDS[times] if times < len(NUMBER_WORDS) else times} times"


def month_in_words(date: pd.Timestamp, moment: pd.Timestamp) -> str:
    """March, or March 2010 if there has been another March since, or is one now."""
    lately = 12 * (moment.year - date.year) + moment.month - date.month < 12
    return date.month_name() if lately else f"{date.month_name()} {date.year}"
