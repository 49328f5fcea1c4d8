"""Receipts, from a messy file to clean lines, baskets, a catalogue and an audit that accounts for every row.

Cleaning is a list of rules, applied in order; each says which of the rows that are left it removes. So every row is
either kept or removed by exactly one rule, and the audit adds up by construction.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.cleaning.schema import ReceiptsError, check_receipts

PRODUCT_CODE = r"\d{5}[A-Za-z]{0,3}|DCGS\w+"  # 85123A, 22423; a gift shop's own DCGS0004; not POST, M, gift_0001_20
PRODUCT_CODE_OPTION = "(on the command line --product-code, in the chapters RECBOOK_PRODUCT_CODE)"
CLEAN_NAMES = {
    "InvoiceNo": "invoice",
    "StockCode": "code",
    "Description": "description",
    "Quantity": "quantity",
    "InvoiceDate": "date",
    "UnitPrice": "price",
    "CustomerID": "customer",
    "Country": "country",
}

SAME_BASKET = pd.Timedelta(hours=12)  # a line on the next day belongs to a basket whose last line is no older

Rule = Callable[[pd.DataFrame], pd.Series]  # rows -> which of them to remove


class Cleaned(NamedTuple):
    """What cleaning gives: `receipts` to work with, `removed` rows with the rule that took each, and the `audit`."""

    receipts: pd.DataFrame
    removed: pd.DataFrame
    audit: pd.DataFrame


def clean(raw: pd.DataFrame, product_code: str = PRODUCT_CODE, before: pd.Timestamp | None = None) -> Cleaned:
    """Clean receipts from raw ones, by `rules`, and account for every row.

    `receipts` has `invoice`, `code`, `description` (one per code: the most frequent), `quantity` (units), `date`,
    `price` (pounds per unit), `customer`, `country`, in time order; an `invoice` is one basket, and its `date` that of
    its first line (`with_baskets`). `removed` has the raw columns and `rule`. Both are indexed by the row in the file.
    `audit` has one row per rule and one for what is kept: `rows` adds up to the file,
    `share` is of the file, `left` is what goes on to the next rule, `alone` is what the rule would take if it were the
    first.

    Raises `ReceiptsError` if `raw` is not receipts or if nothing is left. Shops with other codes than five digits and a
    letter say how theirs look with `product_code`, a regular expression. Codes are written in capitals.

    With `before`, only what was known before that moment counts: a first rule, "not yet known", removes the later rows,
    so that no later cancellation undoes a sale and no later description names a product.
    """
    raw = check_receipts(raw)
    _check_pattern(product_code)
    left, removed, audit = raw, [], []
    later: dict[str, Rule] = {} if before is None else {"not yet known": lambda rows: rows["InvoiceDate"] >= before}
    for name, rule in (later | rules(product_code)).items():
        drop = rule(left)
        removed.append(left[drop].assign(rule=name))
        left = left[~drop]
        alone = drop if len(removed) == 1 else rule(raw)
        audit.append({"rule": name, "rows": int(drop.sum()), "left": len(left), "alone": int(alone.sum())})
    audit.append({"rule": "kept", "rows": len(left), "left": len(left), "alone": len(left)})
    table = pd.DataFrame(audit)
    table.insert(2, "share", table["rows"] / len(raw))
    if left.empty:
        takers = ", ".join(f"{row['rule']} {row['rows']:,}" for row in audit[:-1] if row["rows"])
        remedy = f"If your product codes look different, pass clean(…, product_code=r'…') {PRODUCT_CODE_OPTION}."
        raise ReceiptsError(f"no receipt is left of {len(raw):,} after cleaning. Removed: {takers}. {remedy}")
    return Cleaned(_finished(left), pd.concat(removed).sort_index(), table)


def _check_pattern(product_code: str) -> None:
    try:
        re.compile(product_code)
    except re.error as error:
        remedy = rf"Write one that a whole code matches, such as r'SKU-\d+' {PRODUCT_CODE_OPTION}."
        raise ReceiptsError(f"product_code {product_code!r} is not a regular expression: {error}. {remedy}") from error


def rules(product_code: str = PRODUCT_CODE) -> dict[str, Rule]:
    """The rules of cleaning in order: the name that the audit shows, and which rows of a raw frame it removes."""
    return {
        "no customer": lambda rows: rows["CustomerID"].isna(),
        "no description": lambda rows: rows["Description"].isna() | (rows["Description"].str.strip() == ""),
        "exact duplicate": lambda rows: rows.duplicated(),
        "sale later cancelled": lambda rows: _at(rows, match_cancellations(rows)["sale"]),
        "cancellation": lambda rows: _cancellation(rows),
        "quantity not positive": lambda rows: rows["Quantity"] <= 0,
        "price not positive": lambda rows: rows["UnitPrice"] <= 0,
        "not a product": lambda rows: ~rows["StockCode"].str.fullmatch(product_code),
    }


def match_cancellations(raw: pd.DataFrame) -> pd.DataFrame:
    """Pairs of row numbers, `cancellation` and the `sale` that it undoes.

    A line of a C-invoice undoes the latest earlier sale, not yet undone, of the same customer, product and quantity.
    A cancellation without such a sale undoes nothing: it returns a part (the shopper still bought the product), or a
    sale from before the file begins. Sales and cancellations match as brackets do: within a customer, product and
    quantity a sale opens, a cancellation closes, and a cancellation belongs to the last sale that opened at its depth.
    """
    undoes = _cancellation(raw)
    events = raw[raw["CustomerID"].notna() & ((raw["Quantity"] < 0) == undoes) & (raw["Quantity"] != 0)]
    events = events.sort_values("InvoiceDate", kind="stable")
    closes = undoes[events.index]
    same = [events["CustomerID"], events["StockCode"].str.upper(), events["Quantity"].abs()]
    key = events.groupby(same, sort=False).ngroup()
    depth = pd.Series(np.where(closes, -1, 1), index=events.index).groupby(key).cumsum() + closes
    opener = pd.Series(events.index, index=events.index).groupby([key, depth]).shift()
    pairs = opener[closes].dropna().astype("int64").sort_index()
    return pd.DataFrame({"cancellation": pairs.index, "sale": pairs.to_numpy()})


def _cancellation(rows: pd.DataFrame) -> pd.Series:
    return rows["InvoiceNo"].str.startswith(("C", "c"))


def _at(rows: pd.DataFrame, labels: pd.Series) -> pd.Series:
    """True at the rows with these labels."""
    return pd.Series(rows.index.isin(labels), index=rows.index)


def _finished(kept: pd.DataFrame) -> pd.DataFrame:
    """Kept raw rows under the names and types of clean receipts, in time order, with one description per code."""
    receipts = with_baskets(kept.rename(columns=CLEAN_NAMES))
    receipts["code"] = receipts["code"].str.upper()  # some tills write 85123a for 85123A
    receipts["customer"] = receipts["customer"].astype("int64")
    receipts["country"] = receipts["country"].fillna("Unspecified")
    receipts["description"] = receipts["code"].map(_most_frequent(receipts["code"], receipts["description"]))
    return receipts


def with_baskets(receipts: pd.DataFrame) -> pd.DataFrame:
    """The lines in time order, each `invoice` one basket, each `date` that of the basket's first line.

    A basket is what one customer buys on one invoice on one day; a line after midnight belongs to it within
    `SAME_BASKET` of the line before. Baskets come one after the other, in the order of their first lines. Tills start
    their numbers anew: of the baskets that share a number, the second in time is named `536365#2`. So all that groups
    by invoice means baskets, and all that cuts by date cuts between them.
    """
    lines = receipts.sort_values("date", kind="stable")
    number = lines.groupby(["customer", "invoice"], sort=False).ngroup()
    gap, nights = (column.groupby(number).diff() for column in (lines["date"], lines["date"].dt.normalize()))
    part = ((gap > SAME_BASKET) & (nights > pd.Timedelta(0))).groupby(number).cumsum()  # how often it began anew
    basket = lines.groupby([number, part], sort=False).ngroup()  # numbered in time order
    names = lines["invoice"].groupby(basket).first()
    place = names.groupby(names).cumcount() + 1  # among the baskets with this number
    if place.max() > 1:
        mark = "#"
        while names.str.contains(mark, regex=False).any():  # or two baskets might get one name
            mark += "#"
        names = names.where(place == 1, names + mark + place.astype(str))
        lines["invoice"] = names.loc[basket].to_numpy()
    lines["date"] = lines["date"].groupby(basket).transform("first")
    return lines.iloc[np.argsort(basket.to_numpy(), kind="stable")]


def _most_frequent(codes: pd.Series, texts: pd.Series) -> pd.Series:
    """Each code's most frequent text, single-spaced; of equally frequent ones the first in the alphabet."""
    texts = texts.map({text: " ".join(text.split()) for text in texts.unique()})
    counts = pd.DataFrame({"code": codes, "text": texts}).value_counts().rename("lines").reset_index()
    counts = counts.sort_values(["lines", "text"], ascending=[False, True], kind="stable")
    return counts.drop_duplicates("code").set_index("code")["text"]


def baskets(receipts: pd.DataFrame) -> pd.DataFrame:
    """One row per invoice, in time order: `invoice`, `customer`, `date`, `country`, `codes`, `total` (pounds).

    `codes` are the distinct products in the order of the receipt. An invoice counts at the time of its first line.
    """
    lines = receipts.sort_values("date", kind="stable")
    lines = lines.assign(total=lines["quantity"] * lines["price"])
    groups = lines.groupby("invoice", sort=False)
    table = groups.agg(customer=("customer", "first"), date=("date", "first"), country=("country", "first"))
    distinct = lines.drop_duplicates(["invoice", "code"])
    table["codes"] = distinct["code"].astype(object).groupby(distinct["invoice"], sort=False).agg(list)
    table["total"] = groups["total"].sum()
    return table.reset_index()


def catalogue(receipts: pd.DataFrame) -> pd.DataFrame:
    """One row per product, indexed by `code`, sorted: `description`, `price`, `invoices`, `customers`, `units`, dates.

    `price` is the median of the last 20 lines, in pounds: what it costs now; one typing error does not move it.
    """
    lines = receipts.sort_values("date", kind="stable")
    groups = lines.groupby("code", sort=True)
    latest = groups.tail(20).groupby("code")["price"].median()
    table = groups.agg(
        description=("description", "first"),
        invoices=("invoice", "nunique"),
        customers=("customer", "nunique"),
        units=("quantity", "sum"),
        first_sold=("date", "first"),
        last_sold=("date", "last"),
    )
    table.insert(1, "price", latest)
    return table


def histories(receipts: pd.DataFrame) -> dict[int, list[list[str]]]:
    """Each customer's baskets, oldest first: `{17850: [["85123A", "71053"], ["22632"]], …}`."""
    table = baskets(receipts)
    return {int(customer): list(codes) for customer, codes in table.groupby("customer")["codes"]}


def customer_baskets(lines: pd.DataFrame) -> list[tuple[pd.Timestamp, list[str]]]:
    """One customer's baskets, from their lines in time order: the date of each, and its distinct codes."""
    held: dict[str, dict[str, None]] = {}
    for invoice, code in zip(lines["invoice"].tolist(), lines["code"].tolist(), strict=True):
        held.setdefault(invoice, {})[code] = None
    dates = lines["date"][~lines["invoice"].duplicated()].tolist()
    return [(date, list(codes)) for date, codes in zip(dates, held.values(), strict=True)]


def descriptions(receipts: pd.DataFrame) -> dict[str, str]:
    """Each product's description: `{"85123A": "WHITE HANGING HEART T-LIGHT HOLDER", …}`, sorted by code."""
    table = receipts.drop_duplicates("code").sort_values("code")
    return dict(zip(table["code"].tolist(), table["description"].tolist(), strict=True))
