"""The fact store: counts of the receipts before a moment. `FactStore.facts(customer, code)`: what may be said.

What a loose word such as "often" or "new" means is defined here, as a number.
"""

import copy
from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.cleaning import receipts as rc
from recbook.lora.instructions import goods_table, phrases, split_goods
from recbook.narratives.entities import word_lists
from recbook.narratives.facts import CoPurchase, Facts, Purchase
from recbook.tokens.documents import sentence_case

OFTEN_SHARE = 0.2  # share of those who bought one that bought the other too: from here on it is "often"
FEWEST_SHOPPERS = 5  # other shoppers who bought both, at least, before their number is told
PRICE_BEFORE = pd.Timedelta(days=90)  # "before" is the price of the lines older than that
PRICE_CHANGE = 0.03  # share of a price: a smaller change is none
NEW_FOR = pd.Timedelta(days=120)  # a product first sold so lately is new
SEASON_SALES = 10  # invoices that a product's best month must have
SEASON_LINES = 20  # lines whose median is a price, as in `receipts.catalogue`
UNINFORMATIVE_VALUES = ("plain", "")  # values of attributes that are left out
GUEST = -1  # the customer number of a guest session: a shopper who is not in the receipts


class FactStore:
    """The receipts before a moment, counted: `facts(17850, "85123A")`.

    `names`, `attributes`: of every product, by code. `table`: a row a product, with its `price`.
    """

    def __init__(
        self,
        receipts: pd.DataFrame,
        moment: pd.Timestamp,
        truth: pd.DataFrame | None = None,
        unsold: pd.DataFrame | None = None,
    ):
        """From clean receipts, those from `moment` on left out; `truth` is the embedded shop's true catalogue.

        `unsold`: products that nobody bought yet, as `instructions.goods_table` takes them. ValueError if no receipts
        are left.
        """
        self.moment, self.lines = moment, receipts[receipts["date"] < moment].sort_values("date", kind="stable")
        if self.lines.empty:
            raise ValueError(f"there are no receipts before {moment:%Y-%m-%d}: give a later moment")
        listed = goods_table(self.lines, truth, unsold)
        if truth is None:
            self.attributes, names = _described_attributes(listed), listed["name"]
        else:
            true = truth.loc[listed.index]
            self.attributes, names = _true_attributes(true), _short_names(true)
        catalogue = rc.catalogue(self.lines)
        self.table = pd.DataFrame({"name": names, "price": listed["price"], "first_sold": catalogue["first_sold"]})
        self.table["before"] = _prices(self.lines[self.lines["date"] < moment - PRICE_BEFORE])
        self.table["season"] = _seasons(self.lines).reindex(self.table.index, fill_value="")
        self._rows = self.table.to_dict("index")
        self.names: dict[str, str] = {code: sentence_case(row["name"]) for code, row in self._rows.items()}
        self._values = {
            code: {value for group in values.values() for value in group} for code, values in self.attributes.items()
        }
        self._count()

    def _count(self) -> None:
        """Count who bought what, (customers, products), and collect each shopper's lines."""
        codes, customers = self.table.index, pd.Index(np.sort(self.lines["customer"].unique()))
        pairs = self.lines.drop_duplicates(["customer", "code"])
        where = (customers.get_indexer(pairs["customer"]), codes.get_indexer(pairs["code"]))
        self._held = sparse.csc_matrix((np.ones(len(pairs), np.int32), where), (len(customers), len(codes)))
        self._buyers = np.asarray(self._held.sum(axis=0)).ravel()  # (products,)
        lines = self.lines.groupby("customer")[["invoice", "code", "date", "price"]]
        self._lines = {int(customer): rows for customer, rows in lines}
        self._purchase_cache: dict[int, dict[str, tuple[list, float]]] = {}

    @property
    def customers(self) -> list[int]:
        """Every shopper, sorted."""
        return sorted(self._lines)

    def __contains__(self, customer: object) -> bool:
        """Whether a shopper bought something."""
        return customer in self._lines

    def guest(self, baskets: Sequence[tuple[pd.Timestamp, Sequence[str]]]) -> "FactStore":
        """The same fact store with a guest session: the shopper GUEST bought these baskets of codes at today's prices.

        A guest is not among the shoppers that are counted. KeyError for a product that the fact store does not know.
        """
        rows = [
            (basket, code, date, self._rows[code]["price"])
            for basket, (date, codes) in enumerate(baskets)
            for code in dict.fromkeys(codes)
        ]
        with_guest = copy.copy(self)
        lines = pd.DataFrame(rows, columns=["invoice", "code", "date", "price"]).sort_values("date", kind="stable")
        with_guest._lines, with_guest._purchase_cache = self._lines | {GUEST: lines}, {}
        return with_guest

    def bought(self, customer: int) -> list[str]:
        """The distinct products of a shopper, in the order first bought; KeyError for a shopper without receipts."""
        return list(self._purchases(customer))

    def facts(
        self, customer: int, code: str, reasons: Sequence[str] | None = None, among: Container[str] | None = None
    ) -> Facts:
        """What may be said when `code` is recommended to a shopper.

        The purchase named is the first of `reasons` (codes, best first; an empty list names none). Without `reasons` it
        is the purchase that has most in common with the product: attributes, then buyers. The co-purchase is the one
        whose buyers bought the product most often. Only purchases `among` these codes are named. ValueError for a
        reason that the shopper did not buy; KeyError for a product or a shopper that the receipts do not have.
        """
        if code not in self._rows:
            raise KeyError(f"no product {code!r} was sold before {self.moment:%Y-%m-%d}")
        mine = self.bought(customer)
        if not_bought := [reason for reason in reasons or () if reason not in mine]:
            raise ValueError(f"customer {customer} did not buy {', '.join(not_bought)}: a reason must be a purchase")
        mine = [known for known in mine if known != code and (among is None or known in among)]
        counted = customer != GUEST
        both, share = self._co_buyers(code, mine, counted, itself=counted and code in self._purchases(customer))
        if reasons is None:
            alike = np.array([len(self._values[known] & self._values[code]) for known in mine])
            reasons = [mine[place] for place in np.lexsort((-both, -alike))]
        chosen = [known for known in reasons if known in mine][:1]
        product, own = self._rows[code], self._purchase(customer, code) if code in self._purchases(customer) else None
        was = own.paid if own else product["before"]
        since = product["first_sold"]
        new = since > max(self.moment - NEW_FOR, self.lines["date"].iloc[0] + NEW_FOR)
        return Facts(
            self.moment, code, self.names[code], float(product["price"]),
            was=float(was) if abs(product["price"] - was) >= PRICE_CHANGE * was else None,  # NaN: nothing is known
            new_since=since if new else None, season=product["season"] or None, attributes=self.attributes[code],
            purchases=tuple(self._purchase(customer, known) for known in chosen), own=own,
            co_purchases=self._co_purchases(mine, both, share),
        )  # fmt: skip

    def _co_buyers(self, code: str, mine: list[str], counted: bool, itself: bool) -> tuple[np.ndarray, np.ndarray]:
        """Per purchase: how many others bought it and `code` too, and their share of the others who bought it.

        `counted`: this shopper is among the buyers; `itself`: the shopper bought `code` too, and so both.
        """
        columns, target = self.table.index.get_indexer(mine), self._held[:, [self.table.index.get_loc(code)]]
        both = (target.T @ self._held).toarray()[0, columns] - itself
        return both, both / np.maximum(self._buyers[columns] - counted, 1)

    def _co_purchases(self, mine: list[str], both: np.ndarray, share: np.ndarray) -> tuple[CoPurchase, ...]:
        """The purchase whose buyers bought the product most often, if enough of them did; or none."""
        enough = np.flatnonzero(both >= FEWEST_SHOPPERS)
        if not len(enough):
            return ()
        best = enough[np.argmax(share[enough])]
        kind = self.attributes[mine[best]].get("kind", ("",))[0]
        often = bool(share[best] >= OFTEN_SHARE)
        return (CoPurchase(mine[best], self.names[mine[best]], kind, int(both[best]), often),)

    def history(self, customer: int) -> list[tuple[pd.Timestamp, list[str]]]:
        """A shopper's baskets, oldest first, as `BasketGPT` takes them: dates and codes."""
        self._purchases(customer)  # KeyError for an unknown customer
        return rc.customer_baskets(self._lines[customer])

    def _purchases(self, customer: int) -> dict[str, tuple[list, float]]:
        """By code, in the order first bought: the dates of the baskets that held it, and what a unit cost last."""
        if customer not in self._lines:
            raise KeyError(f"customer {customer} bought nothing before {self.moment:%Y-%m-%d}")
        if customer not in self._purchase_cache:
            lines = self._lines[customer].drop_duplicates(["invoice", "code"], keep="last")
            places, paid = lines.groupby("code", sort=False).indices, lines["price"].to_numpy()
            dates = lines["date"].tolist()
            self._purchase_cache[customer] = {
                code: ([dates[place] for place in where], float(paid[where[-1]])) for code, where in places.items()
            }
        return self._purchase_cache[customer]

    def _purchase(self, customer: int, code: str) -> Purchase:
        dates, paid = self._purchases(customer)[code]
        return Purchase(code, self.names[code], tuple(dates), paid, self.attributes[code])


# --- From receipts and the true catalogue ------------------------------------------------------------------------


def _prices(lines: pd.DataFrame) -> pd.Series:
    """The median price of the last lines, by code, of products with five lines or more."""
    last = lines.groupby("code").tail(SEASON_LINES).groupby("code")["price"]
    return last.median().where(last.size() >= 5)


def _seasons(lines: pd.DataFrame) -> pd.Series:
    """The calendar month with most invoices of each product, "" where it has too few or two months have as many."""
    sold = lines.drop_duplicates(["invoice", "code"])
    counts = sold.groupby(["code", sold["date"].dt.month_name()]).size().unstack(fill_value=0)  # (products, months)
    best = counts.max(axis=1)
    clear = (best >= SEASON_SALES) & (counts.eq(best, axis=0).sum(axis=1) == 1)
    return counts.idxmax(axis=1).where(clear, "")


def _true_attributes(truth: pd.DataFrame) -> dict[str, dict[str, tuple[str, ...]]]:
    """Attributes by code; of coffee beans also the roast and the notes, which are in the kind and the name."""
    found = {}
    for product in truth.itertuples():
        values = {name: getattr(product, name) for name in ("colour", "material", "theme", "occasion", "season")}
        values = {name: (value,) for name, value in values.items() if value not in UNINFORMATIVE_VALUES} | {
            "kind": (product.kind,)
        }
        if product.group == "beans":
            roast, notes = product.kind.removesuffix(" coffee"), product.name.split(", ")[1]
            values |= {"kind": ("coffee",), "roast": (roast,), "notes": tuple(notes.split(" with "))}
        found[product.Index] = values
    return found


def _short_names(truth: pd.DataFrame) -> pd.Series:
    """The names; of coffee beans what a shopper would say: Kenya light roast."""
    beans = truth["theme"] + " " + truth["kind"].str.removesuffix(" coffee")
    return truth["name"].where(truth["group"] != "beans", beans)


def _described_attributes(table: pd.DataFrame) -> dict[str, dict[str, tuple[str, ...]]]:
    """Attributes by code: what `instructions.goods_table` found in the descriptions, and the materials that they name.

    A last word that is a plain word ("welcome home") is no kind of product: "your home" would be misunderstood.
    """
    materials, plain = phrases()["materials"], set(word_lists()["plain"])
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for product in table.itertuples():
        values = {name: (getattr(product, name),) for name in ("colour", "kind", "occasion") if getattr(product, name)}
        named = tuple(word for word in materials if word in product.name.lower().split())
        values |= {"material": named} if named else {}
        found[product.Index] = {
            name: value for name, value in values.items() if name != "kind" or value[0] not in plain
        }
    return found


# --- Train and held out --------------------------------------------------------------------------------------------


class FactSubset(NamedTuple):
    """The shoppers and the products on one side of the train/held-out split."""

    shoppers: list[int]
    products: list[str]


def split_facts(fact_store: FactStore, share: float, seed: int = 0) -> tuple[FactSubset, FactSubset]:
    """Split shoppers and products: those to train on, and a `share` of each that is held out."""
    drawn = np.random.default_rng(seed).permutation(fact_store.customers).tolist()
    held_out = set(drawn[: round(share * len(drawn))])
    train_goods, held_out_goods = split_goods(fact_store.table, share, seed)
    shoppers = [customer for customer in fact_store.customers if customer not in held_out]
    train = FactSubset(shoppers, train_goods.index.tolist())
    return train, FactSubset(sorted(held_out), held_out_goods.index.tolist())


def draw_facts(fact_store: FactStore, subset: FactSubset, number: int, seed: int = 0) -> list[Facts]:
    """Facts of `number` random pairs of a shopper and a product of the subset; they name no product outside it."""
    rng, among = np.random.default_rng(seed), frozenset(subset.products)
    pairs = zip(rng.choice(subset.shoppers, number), rng.choice(subset.products, number), strict=True)
    return [fact_store.facts(int(customer), str(code), among=among) for customer, code in pairs]
