"""From clean sales to receipts as a till writes them: prices, quantities, and the faults of a real log.

The rates follow UCI Online Retail (541,909 lines): 1.7% of lines on cancelled invoices, 1% exact duplicates, 0.3%
without a description, 0.5% that are no product (postage, fees), and a few that nobody can explain.
"""

import numpy as np
import pandas as pd

from recbook.cleaning.schema import RAW_COLUMNS

FEES = [("POST", "POSTAGE", 18.0), ("DOT", "DOTCOM POSTAGE", 45.2), ("C2", "CARRIAGE", 50.0), ("M", "Manual", 1.25),
        ("D", "Discount", 9.5), ("S", "SAMPLES", 14.9), ("BANK CHARGES", "Bank Charges", 15.0),
        ("AMAZONFEE", "AMAZON FEE", 120.0)]  # fmt: skip
CORRECTIONS = ["damaged", "?", "lost in the stockroom", "check", "wrongly coded", "smashed", None, None, None, None]


def messy_receipts(sales: pd.DataFrame, products: pd.DataFrame, lines: int, rng: np.random.Generator) -> pd.DataFrame:
    """Raw receipts in the eight columns, in time order, from `sales` (invoice, customer, country, date, product).

    `products` gives code, description, price and department; `lines` scales the number of stray lines.
    """
    sold = _sold(sales, products, rng)
    parts = [
        sold,
        _cancelled(sold, rng),
        sold.iloc[np.sort(rng.choice(len(sold), round(0.01 * len(sold)), replace=False))],  # scanned twice
        _corrections(sold, round(0.0045 * lines), rng),
        _fees(sold, round(0.0055 * lines), rng),
        _typing_errors(sold, rng),
    ]
    table = pd.concat(parts, ignore_index=True)
    return table.sort_values(["InvoiceDate", "InvoiceNo"], kind="stable", ignore_index=True)[RAW_COLUMNS]


def _sold(sales: pd.DataFrame, products: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The sales as receipt lines."""
    item = sales["product"].to_numpy()
    price = products["price"].to_numpy()
    quantity = _quantities(price[item], rng)
    bulk = np.where(quantity >= 24, 0.85, np.where(quantity >= 12, 0.92, 1.0))  # cheaper by the dozen
    dearer = rng.random(len(products)) < 0.2  # one product in five costs more from the summer on
    raised = dearer[item] & (sales["date"] >= "2011-07-01").to_numpy()
    code, description = products.index.to_numpy()[item], _descriptions(products, item, sales["date"], rng)
    # Sales without a customer come from another till, which writes some codes small, as in the real log.
    small = sales["customer"].isna().to_numpy() & (rng.random(len(code)) < 0.05)
    code = np.where(small, pd.Series(code).str.lower(), code)
    gift = rng.random(len(item)) < 0.0002
    unit_price = np.round(price[item] * bulk * np.where(raised, 1.08, 1.0) * ~gift, 2)
    return pd.DataFrame(
        {
            "InvoiceNo": (536_365 + 7 * sales["invoice"].to_numpy()).astype(str),
            "StockCode": code,
            "Description": description,
            "Quantity": quantity,
            "InvoiceDate": sales["date"].to_numpy(),
            "UnitPrice": unit_price,
            "CustomerID": sales["customer"].array,
            "Country": sales["country"].to_numpy(),
        }
    )


def _quantities(price: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Units per line: one of an expensive thing, dozens of a cheap one."""
    usual = np.array([1, 2, 3, 4, 6, 12, 24, 48])
    want = 90 * rng.random(len(price)) ** 1.5 / (1 + price)
    return usual[np.searchsorted(usual[1:], want)].astype(np.int64)


def _descriptions(products: pd.DataFrame, item: np.ndarray, date: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """The description as typed: most as in the catalogue, some products renamed or shouted during the year."""
    text = products["description"].to_numpy()[item].astype(object)
    other = np.where(rng.random(len(products)) < 0.5, products["name"].str.upper(), products["description"] + " ")
    changes = np.where(rng.random(len(products)) < 0.06, rng.integers(60, 330, len(products)), 9999)  # day of the year
    day = (date - date.min()).dt.days.to_numpy()
    return np.where(day < changes[item], text, other.astype(object)[item])


def _cancelled(sold: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Cancellations days after the sale: a third undo the line, others return part of it or fit no one sale."""
    lines = sold.iloc[np.sort(rng.choice(len(sold), round(0.0155 * len(sold)), replace=False))].copy()
    lines["InvoiceNo"] = "C" + (lines["InvoiceNo"].astype(int) + 3).astype(str)
    units, kind = lines["Quantity"].to_numpy(), rng.random(len(lines))
    other = np.where((units > 1) & (kind < 0.9), units // 2, units + 1)
    lines["Quantity"] = -np.where(kind < 0.33, units, other)
    date = lines["InvoiceDate"] + pd.to_timedelta(1 + rng.integers(12, size=len(lines)), unit="D")
    saturday = (date.dt.day_of_week == 5).to_numpy()
    lines["InvoiceDate"] = (date + pd.to_timedelta(saturday.astype(int), unit="D")).clip(
        upper=sold["InvoiceDate"].max()
    )
    return lines


def _corrections(sold: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Stock corrections: no customer, no price, a negative number of units, a note or nothing for a description."""
    lines = sold.iloc[np.sort(rng.choice(len(sold), n, replace=False))].copy()
    lines["InvoiceNo"] = (lines["InvoiceNo"].astype(int) + 1).astype(str)
    lines["Description"] = np.array(CORRECTIONS, dtype=object)[rng.integers(len(CORRECTIONS), size=n)]
    lines["Quantity"] = -rng.integers(1, 60, n) * np.where(rng.random(n) < 0.8, 1, -1)
    lines["UnitPrice"] = 0.0
    lines["CustomerID"] = pd.array([pd.NA] * n, dtype="Int64")
    lines["Country"] = "United Kingdom"
    return lines


def _fees(sold: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Lines that are no product: postage, fees, samples; and one correction of a bad debt."""
    lines = sold.iloc[np.sort(rng.choice(len(sold), n, replace=False))].copy()
    which = np.minimum((rng.random(n) ** 2 * len(FEES)).astype(int), len(FEES) - 1)
    codes, names, prices = (np.array(column, dtype=object) for column in zip(*FEES, strict=True))
    lines = lines.assign(
        StockCode=codes[which], Description=names[which], Quantity=1, UnitPrice=prices[which].astype(float)
    )
    debt = lines.iloc[[n // 2]].assign(InvoiceNo="A563185", StockCode="B", Description="Adjust bad debt")
    debt = debt.assign(UnitPrice=-11062.06, CustomerID=pd.array([pd.NA], dtype="Int64"))
    return pd.concat([lines, debt])


def _typing_errors(sold: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """An order of tens of thousands of units, keyed in by mistake and cancelled minutes later."""
    line = sold[sold["CustomerID"].notna()].iloc[[rng.integers(len(sold) // 2)]]
    typed = line.assign(Quantity=74_215, InvoiceNo=(line["InvoiceNo"].astype(int) + 2).astype(str))
    undone = typed.assign(Quantity=-74_215, InvoiceNo="C" + (line["InvoiceNo"].astype(int) + 4).astype(str))
    return pd.concat([typed, undone.assign(InvoiceDate=undone["InvoiceDate"] + pd.Timedelta(minutes=16))])
