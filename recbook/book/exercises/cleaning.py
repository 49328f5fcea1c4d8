"""Checks of Chapter 1: baskets, cancellations, names and repeats on receipts small enough to work out by hand."""

import numpy as np
import pandas as pd

from recbook.book.exercises import Exercise, Mistake


def _receipts(*rows: tuple) -> pd.DataFrame:
    """Clean receipts from (invoice, code, quantity, day, customer), with other columns filled in."""
    table = pd.DataFrame(rows, columns=["invoice", "code", "quantity", "day", "customer"])
    return pd.DataFrame(
        {
            "invoice": table["invoice"],
            "code": table["code"],
            "description": table["code"].map({"22423": "CAKE STAND", "85123A": "LIGHT HOLDER"}).fillna("MUG"),
            "quantity": table["quantity"],
            "date": pd.Timestamp("2011-01-01") + pd.to_timedelta(table["day"], unit="D"),
            "price": 2.5,
            "customer": table["customer"],
            "country": "France",
        }
    )


VISITS = _receipts(
    ("1", "22423", 1, 0, 7),
    ("1", "85123A", 6, 0, 7),
    ("1", "22423", 1, 0, 7),
    ("2", "85123A", 2, 1, 8),
    ("3", "22423", 3, 5, 7),
    ("3", "10002", 12, 5, 7),
    ("4", "85123A", 1, 6, 8),
    ("4", "85123A", 2, 6, 8),
    ("5", "21755", 1, 9, 7),
)
LOYAL = _receipts(("10", "21755", 1, 0, 5), ("9", "21755", 4, 2, 5), ("8", "21755", 2, 3, 5), ("8", "10002", 1, 3, 5))
MANY = _receipts(*[(str(n // 4), f"2{n * n % 13:04}", 1 + n % 3, n // 4, n // 4 % 3) for n in range(60)])


# ---- 1.2


def basket_sizes(receipts):
    """Distinct products per invoice."""
    return receipts.drop_duplicates(["invoice", "code"]).groupby("invoice").size()


def _lines(receipts):
    return receipts.groupby("invoice").size()


def _units(receipts):
    return receipts.groupby("invoice")["quantity"].sum()


# ---- 1.3


def undone(quantities):
    """Positions of the sales undone, by looking back from each cancellation."""
    gone = []
    for position, quantity in enumerate(quantities):
        earlier = [p for p in range(position) if quantity < 0 and quantities[p] == -quantity and p not in gone]
        gone += earlier[-1:]
    return sorted(gone)


def _first_sale(quantities):
    gone = []
    for position, quantity in enumerate(quantities):
        gone += [p for p in range(position) if quantity < 0 and quantities[p] == -quantity and p not in gone][:1]
    return sorted(gone)


def _later_sales_too(quantities):
    gone = []
    for quantity in quantities:
        gone += [p for p, other in enumerate(quantities) if quantity < 0 and other == -quantity and p not in gone][-1:]
    return sorted(gone)


def _same_sale_twice(quantities):
    gone = set()
    for position, quantity in enumerate(quantities):
        gone.update([p for p in range(position) if quantity < 0 and quantities[p] == -quantity][-1:])
    return sorted(gone)


# ---- 1.4


def _named(*rows: tuple) -> pd.DataFrame:
    """Receipts from (code, description, day)."""
    table = _receipts(*[(str(n), code, 1, day, 7) for n, (code, _, day) in enumerate(rows)])
    return table.assign(description=[text for _, text, _ in rows])


RENAMED = _named(
    ("22423", "STAND", 3),
    ("22423", "CAKE STAND", 9),
    ("22423", "STAND", 1),
    ("85123A", "T-LIGHT", 4),
    ("85123A", "LIGHT HOLDER", 4),
    ("85123A", "T-LIGHT", 2),
)
LATELY = _named(("21755", "LOVE", 1), ("21755", "LOVE", 2), ("21755", "LOVE BLOCK", 3))
# Long enough that a sort which is not stable exchanges lines of one day: up to 16 rows most sorts are stable by chance.
BUSY = _named(*[(f"1000{n % 4}", f"NAME {n}", n * 7 % 3) for n in range(64)])
SHUFFLED = _named(("10002", "GLOBE", 8), ("10002", "INFLATABLE GLOBE", 2), ("10002", "INFLATABLE GLOBE", 5))


def newest_names(receipts):
    """The description on each code's latest line, row by row."""
    newest = {}
    for row in receipts.itertuples():
        if row.code not in newest or row.date >= newest[row.code][0]:
            newest[row.code] = (row.date, row.description)
    return {code: description for code, (_, description) in newest.items()}


def _last_row(receipts):
    return receipts.groupby("code")["description"].last().to_dict()


def _most_frequent(receipts):
    return receipts.groupby("code")["description"].agg(lambda texts: texts.value_counts().index[0]).to_dict()


def _unstable(receipts):
    return _last_row(receipts.iloc[np.argsort(receipts["date"].to_numpy(), kind="quicksort")])


def _first_of_a_tie(receipts):
    return receipts.loc[receipts.groupby("code")["date"].idxmax()].set_index("code")["description"].to_dict()


# ---- 1.5


def repeat_share(receipts):
    """Share of repeats after the first basket, customer by customer."""
    repeats = total = 0
    for _, theirs in receipts.groupby("customer"):
        seen = set()
        for position, (_, basket) in enumerate(theirs.groupby("invoice", sort=False)):
            codes = set(basket["code"])
            if position:
                total += len(codes)
                repeats += len(codes & seen)
            seen |= codes
    return repeats / total


def _first_baskets_too(receipts):
    return receipts.drop_duplicates(["invoice", "code"]).duplicated(["customer", "code"]).mean()


def _own_repeats(receipts):
    first = receipts.groupby("customer")["invoice"].transform("first")
    return receipts.duplicated(["customer", "code"])[receipts["invoice"] != first].mean()


def _anybody(receipts):
    products = receipts.drop_duplicates(["invoice", "code"])
    first = products.groupby("customer")["invoice"].transform("first")
    return products.duplicated("code")[products["invoice"] != first].mean()


EXERCISES = [
    Exercise(
        "1.2",
        basket_sizes,
        [(VISITS,), (LOYAL,), (MANY,)],
        [
            Mistake(
                _lines, "That counts lines. A product can stand on two lines of one receipt: count distinct codes."
            ),
            Mistake(_units, "That counts units. How many of each were bought does not matter: count distinct codes."),
        ],
    ),
    Exercise(
        "1.3",
        undone,
        [([6, 6, -6, 2],), ([6, -6, -6],), ([-2, 2, 4],), ([3, 5, 3, -5, -3, -3],), ([1, 2, 1, -1, 1],), ([12, -2],)],
        [
            Mistake(_first_sale, "That undoes the first sale. The rule is: the latest earlier one not yet undone."),
            Mistake(
                _later_sales_too, "A cancellation cannot undo a sale that comes after it. Look only at earlier ones."
            ),
            Mistake(_same_sale_twice, "Two cancellations undo two sales. Remember which sales are undone already."),
        ],
    ),
    Exercise(
        "1.4",
        newest_names,
        [(RENAMED,), (SHUFFLED,), (LATELY,), (VISITS,), (BUSY,)],
        [
            Mistake(_last_row, "That takes the last row. The receipts may be in any order: sort by date first."),
            Mistake(_most_frequent, "That is the most frequent name. The newest one may be rarer."),
            Mistake(_first_of_a_tie, "Two lines of one minute: the later row wins. `idxmax` takes the earlier one."),
            Mistake(_unstable, "Your sort may exchange lines of one minute. Ask for `kind='stable'`."),
        ],
    ),
    Exercise(
        "1.5",
        repeat_share,
        [(VISITS,), (LOYAL,), (MANY,)],
        [
            Mistake(
                _first_baskets_too, "That counts first baskets too, in which nothing can be a repeat. Leave them out."
            ),
            Mistake(
                _own_repeats, "A product on two lines of one receipt is not its own repeat: count it once per basket."
            ),
            Mistake(_anybody, "That asks whether anybody bought it before. Ask it of the same customer."),
        ],
    ),
]
