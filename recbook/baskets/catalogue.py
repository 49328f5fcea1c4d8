"""The catalogue: products by code or description, and histories as people type them, with dates or without."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baskets.log import DAY

NAMED_IN_ERRORS = 10  # unknown products that an error names at most


class BasketEntry(NamedTuple):
    """A basket as columns of the catalogue."""

    date: pd.Timestamp | None
    items: np.ndarray  # (products,) int64, distinct, in the order typed


TypedBasket = Sequence[str] | tuple[str | pd.Timestamp, Sequence[str]]  # products, or a date and products
Basket = TypedBasket | BasketEntry  # as typed, or as columns
History = Sequence[Basket]  # oldest first


class Catalogue:
    """The products that a model knows: `codes` and `texts`, (N,) str each, in the order of its columns."""

    def __init__(self, products: Mapping[str, str]):
        """From descriptions by code."""
        self.products = dict(products)
        self.codes = np.array(list(self.products), dtype=str)
        self.texts = np.array(list(self.products.values()), dtype=object)
        self.column = {code: column for column, code in enumerate(self.codes.tolist())}
        named = pd.Series(np.arange(len(self.codes)), index=[_plain(text) for text in self.texts])
        self.named = named[~named.index.duplicated(keep=False)].to_dict()  # a name that two products share is no key

    def columns(self, products: Iterable[str]) -> np.ndarray:
        """The column of each product, (products,) int64, by code or description, in the order given, repeats too.

        ValueError names those that are neither.
        """
        if isinstance(products, str):
            raise ValueError(f"{products!r} is one text where a list of products is wanted: write [{products!r}]")
        products = list(products)
        found = [self._column(product) for product in products]
        if None in found:
            raise ValueError(self._unknown([p for p, column in zip(products, found, strict=True) if column is None]))
        return np.array(found, dtype=np.int64)

    def _column(self, product: str) -> int | None:
        if product in self.column:
            return self.column[product]
        product = str(product).strip()
        return self.column.get(product, self.column.get(product.upper(), self.named.get(_plain(product))))

    def _unknown(self, products: list) -> str:
        names = [*self.column, *self.named]
        parts = []
        for product in products[:NAMED_IN_ERRORS]:
            close = get_close_matches(_plain(product), names, n=1, cutoff=0.8)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            alike = self.codes[[_plain(text) == _plain(product) for text in self.texts]].tolist()
            parts.append(repr(product) + (f" (several have this name: {', '.join(alike)})" if alike else hint))
        more = f" and {len(products) - NAMED_IN_ERRORS:,} more" if len(products) > NAMED_IN_ERRORS else ""
        return f"not in the catalogue of {len(self.codes):,} products, by code or description: {', '.join(parts)}{more}"

    def entries(self, history: History) -> list[BasketEntry]:
        """A history as columns; ValueError names every unknown product, or the basket that is not one."""
        if isinstance(history, str) or any(isinstance(b, str) or not isinstance(b, Iterable) for b in history):
            raise ValueError(
                "a history is a list of baskets, each a list of products: write [['85123A', '22423'], ['22632']]"
            )
        pairs = [basket if isinstance(basket, BasketEntry) else _dated(basket) for basket in history]
        typed = [str(product) for pair in pairs if not isinstance(pair, BasketEntry) for product in pair[1]]
        columns = iter(self.columns(typed).tolist())  # all at once: an error names every unknown product
        return [
            pair if isinstance(pair, BasketEntry) else BasketEntry(pair[0], _distinct(islice(columns, len(pair[1]))))
            for pair in pairs
        ]

    def dated(self, history: History, day: float, origin: pd.Timestamp, gap: float) -> list[tuple[float, np.ndarray]]:
        """Baskets as (days since `origin`, columns), to predict on `day`; without dates, one every `gap` days."""
        entries = self.entries(history)
        dates = [entry.date for entry in entries]
        if None in dates and any(dates):
            raise ValueError("some baskets have a date and some have none: give all of them one, or none")
        count = len(entries)
        undated = [day - gap * (count - place) for place in range(count)]
        days = undated if None in dates else [(date - origin) / DAY for date in dates]
        if np.isnan([day, *days]).any():
            raise ValueError(
                "a date is missing: give every basket one or none of them, and a day of asking or no `when`"
            )
        if days != sorted(days) or count and days[-1] > day:
            today = origin + pd.Timedelta(days=day)
            raise ValueError(f"baskets must be oldest first, none later than the day of asking, {today:%Y-%m-%d}")
        return [(when, entry.items) for when, entry in zip(days, entries, strict=True)]

    def bought(self, history: History) -> np.ndarray:
        """The distinct columns of a history, (products,) int64, in the order first bought."""
        items = [entry.items for entry in self.entries(history)]
        return pd.unique(np.concatenate(items)) if items else np.zeros(0, dtype=np.int64)

    def without(self, history: History, column: int) -> list[BasketEntry]:
        """The history as if this product had never been in it."""
        return [BasketEntry(date, items[items != column]) for date, items in self.entries(history)]


def _dated(basket: TypedBasket) -> tuple[pd.Timestamp | None, Sequence[str]]:
    """A basket as date and products: a pair whose second half is a list begins with a date."""
    if isinstance(basket, tuple) and len(basket) == 2 and not isinstance(basket[1], str):
        return pd.Timestamp(basket[0]).tz_localize(None), basket[1]  # the receipts' clock has no time zone
    return None, basket


def _distinct(columns: Iterable[int]) -> np.ndarray:
    return np.array(list(dict.fromkeys(columns)), dtype=np.int64)


def _plain(text: str) -> str:
    return " ".join(str(text).upper().split())
