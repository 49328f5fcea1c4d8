"""The embedded shop: a seeded simulator of a shop with a true catalogue, shoppers with tastes, and messy receipts.

A shopper has a taste (a vector), favourite departments, a budget and a habit of buying again. A basket is drawn product
by product: some from what the shopper bought before, the rest from the whole catalogue by popularity at that time of
year, taste, price, and what completes the products already in the basket. Then the receipts get the faults of a real
log (`shop_noise`): no customer, cancellations, duplicates, postage, descriptions that change. `Shop` keeps the truth.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recbook.cleaning import shop_noise, shop_products

START, END = pd.Timestamp("2010-12-01"), pd.Timestamp("2011-12-09 12:50")
# Relative numbers of invoices per month, December to December, after the real log (the last month has nine days).
SALES_BY_MONTH = np.array([1.25, 0.95, 1.0, 1.2, 1.05, 1.3, 1.15, 1.05, 1.0, 1.35, 1.4, 1.75, 1.75])
SALES_BY_HOUR = np.array([0, 0, 0, 0, 0, 0, 0, 1, 9, 34, 49, 58, 79, 72, 67, 77, 54, 28, 8, 4, 1, 0, 0, 0])
COUNTRIES = [
    "United Kingdom",
    "Germany",
    "France",
    "EIRE",
    "Spain",
    "Netherlands",
    "Belgium",
    "Switzerland",
    "Portugal",
]
TASTE = 10  # dimensions of the hidden taste
MEMORY = 90.0  # days after which a purchase weighs 1/e in what is bought again
LINES_PER_SHOPPER = 116  # a customer of the real log has 124
GUESTS = 0.335  # lines without a customer, to those with one
SINGLES = 0.06  # share of visits for one thing only
GUEST_SIZE = 1.9  # how much larger a basket without a customer is: it is many small orders in one
ACTIONS = ("ignored", "viewed", "added", "purchased")


@dataclass(frozen=True)
class Shop:
    """One simulated shop: what a real shop has (`receipts`), and the truth behind it.

    receipts: raw receipts in the eight columns, as `recbook.cleaning.load.load_receipts` returns them.
    products: the true catalogue, indexed by code: the columns of `shop_products.true_catalogue`, `launched` (date) and
        `quality` (log scale).
    shoppers: indexed by customer number: country, department (the favourite), budget (pounds per product), loyalty
        (share of a basket bought again), basket_size (products), invoices (visits intended), joined (date).
    affinity: float32 (shoppers, products), how much each shopper likes each product, on a log scale.
    season: float32 (13 months, products), what the time of year adds on the same scale.
    """

    receipts: pd.DataFrame
    products: pd.DataFrame
    shoppers: pd.DataFrame
    affinity: np.ndarray
    season: np.ndarray

    def appeal(self, customer: int, codes: list[str], when: pd.Timestamp) -> np.ndarray:
        """How much `customer` is drawn to each of `codes` at `when`: float (codes,), on a log scale.

        Taste, season and the product's own pull together, as when baskets are drawn. Over all shoppers and products
        the mean is about 0.
        """
        if customer not in self.shoppers.index:
            raise KeyError(f"customer {customer} is not of this shop; its customers are in Shop.shoppers.index")
        unknown = sorted(set(codes) - set(self.products.index))
        if unknown:
            raise KeyError(f"not codes of this shop's products: {unknown[:5]}; the codes are in Shop.products.index")
        columns = self.products.index.get_indexer(codes)
        row = self.shoppers.index.get_loc(customer)
        quality = self.products["quality"].to_numpy()[columns]
        return self.affinity[row, columns] + self.season[_month(when), columns] + quality

    def respond(
        self, customer: int, slate: list[str], rng: np.random.Generator, when: pd.Timestamp = END
    ) -> pd.DataFrame:
        """What `customer` does with a slate, one row per product: code, position, chance (of a view if seen), action.

        The shopper reads from the top and sees position i with chance 1 / (1 + 0.3 i) (position bias), views what
        appeals, adds about two in five of those and purchases two in three of what is added, more of what appeals more.
        action is one of ACTIONS; each product gets the furthest action that it reached.
        """
        chance = 1 / (1 + np.exp(1.2 - 0.8 * self.appeal(customer, slate, when)))
        seen = rng.random(len(slate)) < 1 / (1 + 0.3 * np.arange(len(slate)))
        viewed = seen & (rng.random(len(slate)) < chance)
        added = viewed & (rng.random(len(slate)) < 0.2 + 0.3 * chance)
        purchased = added & (rng.random(len(slate)) < 0.35 + 0.4 * chance)
        steps = viewed.astype(int) + added + purchased
        action = np.array(ACTIONS)[steps]
        return pd.DataFrame({"code": slate, "position": np.arange(len(slate)), "chance": chance, "action": action})


def simulate(seed: int = 0, lines: int = 60_000) -> Shop:
    """A shop with about `lines` lines of messy receipts, the same for the same seed; its catalogue has 900 products.

    Shoppers and invoices grow with `lines`; at the default there are about 500 shoppers. Takes about a second.
    """
    if lines < 2_000:
        raise ValueError(f"lines={lines}: a shop needs at least 2,000 lines to have shoppers who come back")
    rng = np.random.default_rng(seed)
    products = shop_products.true_catalogue(rng)
    products["launched"] = _launches(len(products), rng)
    products["quality"] = np.round(1.05 * rng.standard_normal(len(products)), 4)
    shoppers = _shoppers(lines, rng)
    affinity = _affinity(products, shoppers, rng)
    season = _season(products, rng)
    invoices = _invoices(shoppers, rng)
    sales = _sales(products, shoppers, affinity, season, invoices, rng)
    return Shop(shop_noise.messy_receipts(sales, products, lines, rng), products, shoppers, affinity, season)


def _launches(n: int, rng: np.random.Generator) -> pd.DatetimeIndex:
    """Three products in four are there from the start; the others arrive through the year."""
    day = np.where(rng.random(n) < 0.75, 0, rng.integers(20, 345, n))
    return START + pd.to_timedelta(day, unit="D")


def _shoppers(lines: int, rng: np.random.Generator) -> pd.DataFrame:
    """The shoppers: country, department, budget, loyalty and visits, such that they make about `lines` lines in all."""
    n = max(16, round(lines / LINES_PER_SHOPPER))
    abroad = rng.random(n) < 0.09
    country = np.where(abroad, np.array(COUNTRIES)[1 + (rng.random(n) ** 2 * 8).astype(int)], COUNTRIES[0])
    department = np.array(["homeware", "clothing", "coffee"])[np.searchsorted([0.66, 0.86], rng.random(n))]
    # A long tail of visits: a third come once, half at most twice, a few dozens of times.
    uniform = rng.random(n)
    visits = 1 + np.minimum(60, 4.6 * (uniform ** (-1 / 2.2) - 1)).astype(int)
    size = np.exp(0.6 * rng.standard_normal(n))
    size *= 0.66 * lines / (size * visits).sum()  # the rest: guests, variation between baskets, and the noise
    return pd.DataFrame(
        {
            "country": country,
            "department": department,
            "budget": np.round(np.exp(1.6 + 0.5 * rng.standard_normal(n) + 0.9 * (department == "clothing")), 2),
            "loyalty": np.round(0.12 + 0.55 * rng.random(n), 3),
            "basket_size": np.round(size, 2),
            "invoices": visits,
            "joined": START + pd.to_timedelta(np.floor(373 * rng.random(n) ** 2.5), unit="D"),
        },
        index=pd.Index(12_346 + np.sort(rng.permutation(6_000)[:n] if n <= 6_000 else np.arange(n)), name="customer"),
    )


def _affinity(products: pd.DataFrame, shoppers: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Log-scale liking (shoppers, products): a hidden taste, in part told by attributes; department; price to budget.

    A product's place in taste space is its kind's, its theme's and its colour's, and a part that no text tells.
    """
    attributes = {"group": 0.8, "kind": 0.7, "theme": 0.9, "colour": 0.3}
    place = sum(
        weight * rng.standard_normal((products[name].nunique(), TASTE))[pd.factorize(products[name])[0]]
        for name, weight in attributes.items()
    )
    place = place + 0.45 * rng.standard_normal((len(products), TASTE))
    taste = rng.standard_normal((len(shoppers), TASTE))
    liking = 1.5 * taste @ place.T / np.sqrt(TASTE)  # (shoppers, TASTE) @ (TASTE, products)
    home = shoppers["department"].to_numpy()[:, None] == products["department"].to_numpy()
    dear = np.abs(np.log(products["price"].to_numpy() / shoppers["budget"].to_numpy()[:, None]))
    whole = liking + 2.2 * home - 0.35 * dear
    return np.round(whole - whole.mean(), 3).astype(np.float32)


def _season(products: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """What each month adds to a product's appeal, (13, products): its season, and a fashion that wanders."""
    peak = {"winter": [0.5, 0.3, 0, -0.3, -0.5, -0.5, -0.5, -0.5, -0.2, 0.1, 0.4, 0.5, 0.5],
            "summer": [-0.5, -0.5, -0.1, 0.3, 0.5, 0.6, 0.5, 0.4, 0.1, -0.2, -0.5, -0.6, -0.6],
            "Christmas": [1.0, -2.5, -3, -3, -3, -3, -2.5, -2, -0.8, 0.2, 0.8, 1.2, 1.1], "": [0] * 13}  # fmt: skip
    months = np.array([peak[season] for season in products["season"]]).T
    fashion = np.cumsum(0.13 * rng.standard_normal((13, len(products))), axis=0)
    return np.round(months + fashion - fashion.mean(axis=0), 3).astype(np.float32)


def _invoices(shoppers: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Every visit in time order: `shopper` (row number, whose taste buys), `guest` (no customer number), `date`."""
    visits = np.repeat(np.arange(len(shoppers)), shoppers["invoices"])
    joined = (shoppers["joined"] - START).dt.days.to_numpy()[visits]
    first = np.r_[True, visits[1:] != visits[:-1]]
    calendar = _calendar()
    day = np.searchsorted(calendar, calendar[joined] + (calendar[-1] - calendar[joined]) * rng.random(len(visits)))
    day = np.where(first, np.searchsorted(calendar, calendar[joined]), day)  # nobody joins on a closed day
    sizes = shoppers["basket_size"].to_numpy()
    guests = round(GUESTS * sizes[visits].sum() / (GUEST_SIZE * sizes.mean()))
    visits = np.r_[visits, rng.integers(len(shoppers), size=guests)]
    day = np.r_[day, np.searchsorted(calendar, calendar[-1] * rng.random(guests))]
    day = day + (_weekday(day) == 5)  # closed on Saturdays
    hours = np.cumsum(SALES_BY_HOUR) / SALES_BY_HOUR.sum()
    minute = 60 * np.searchsorted(hours, rng.random(len(day))) + rng.integers(60, size=len(day))
    date = START + pd.to_timedelta(day, unit="D") + pd.to_timedelta(minute, unit="min")
    table = pd.DataFrame({"shopper": visits, "guest": np.arange(len(visits)) >= len(visits) - guests, "date": date})
    return table[table["date"] <= END].sort_values("date", kind="stable", ignore_index=True)


def _calendar() -> np.ndarray:
    """Cumulative number of visits expected by the end of each day, in relative terms."""
    days = pd.date_range(START, END, freq="D")
    rate = SALES_BY_MONTH[(days.year - 2010) * 12 + days.month - 12] * (days.day_of_week != 5)
    closed = ((days.month == 12) & (days.day > 23)) | ((days.month == 1) & (days.day < 4))
    return np.cumsum(np.where(closed, 0.0, rate))


def _weekday(day: np.ndarray) -> np.ndarray:
    return (START.day_of_week + day) % 7


def _month(date: pd.Timestamp) -> int:
    """The row of `Shop.season` for a date; dates outside the simulated year take its first or last month."""
    return int(np.clip((date.year - 2010) * 12 + date.month - 12, 0, 12))


def _sales(
    products: pd.DataFrame,
    shoppers: pd.DataFrame,
    affinity: np.ndarray,
    season: np.ndarray,
    invoices: pd.DataFrame,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Every basket, drawn in time order: one row per line.

    The columns are `invoice` (its number), `customer` (missing for guests), `country`, `date`, `product` (row number).
    """
    completes = _links(products)
    launched = (products["launched"] - START).dt.days.to_numpy()
    past = np.zeros(affinity.shape)  # decayed counts of what each shopper bought
    last = np.zeros(len(shoppers))
    sizes, loyalty = shoppers["basket_size"].to_numpy(), shoppers["loyalty"].to_numpy()
    quality = products["quality"].to_numpy()
    baskets = []
    for row in invoices.itertuples():
        day = (row.date - START).days
        age = day - launched
        level = quality + season[_month(row.date)] + 0.4 * np.exp(-np.maximum(age, 0) / 30) * (launched > 0)
        level = np.where(age >= 0, level, -np.inf)
        usual = sizes[row.shopper] * (GUEST_SIZE if row.guest else 1)
        size = max(1, round(usual * np.exp(0.55 * rng.standard_normal())))
        memory = past[row.shopper] * (not row.guest) * np.exp(-(day - last[row.shopper]) / MEMORY)
        size = 1 if rng.random() < SINGLES and not row.guest else min(size, 200)
        basket = _basket(size, loyalty[row.shopper], memory, level, affinity[row.shopper], completes, rng)
        if not row.guest:
            memory[basket] += 1
            past[row.shopper], last[row.shopper] = memory, day
        baskets.append(basket)
    lengths = [len(basket) for basket in baskets]
    visit = invoices.loc[np.repeat(np.arange(len(invoices)), lengths)].reset_index(names="number")
    customer = pd.array(shoppers.index.to_numpy()[visit["shopper"]], dtype="Int64")
    customer[visit["guest"].to_numpy()] = pd.NA
    country = shoppers["country"].to_numpy()[visit["shopper"]]
    return pd.DataFrame(
        {"invoice": visit["number"], "customer": customer, "country": country, "date": visit["date"],
         "product": np.concatenate(baskets)}
    )  # fmt: skip


def _basket(
    size: int,
    loyalty: float,
    memory: np.ndarray,
    level: np.ndarray,
    liking: np.ndarray,
    completes: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Row numbers of the products in one basket: some bought again, then some new, then what completes those."""
    with np.errstate(divide="ignore"):
        again = np.log(memory) + 0.7 * level + 0.2 * liking
    known = np.flatnonzero(memory > 0)
    repeats = min((rng.random(size) < loyalty).sum(), len(known))
    chosen = gumbel_top_k(again, repeats, rng)
    fresh = level + liking
    fresh[known] = -np.inf
    half = gumbel_top_k(fresh, (size - repeats + 1) // 2, rng)
    fresh[half] = -np.inf
    fresh = fresh + 1.5 * (completes[half].sum(axis=0) > 0)
    rest = gumbel_top_k(fresh, size - repeats - len(half), rng)
    return rng.permutation(np.r_[chosen, half, rest])


def gumbel_top_k(log_weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` positions, drawn without replacement with chances in proportion to exp(log_weights), or all that have one."""
    n = min(n, int(np.isfinite(log_weights).sum()))
    noise = -np.log(-np.log(rng.random(len(log_weights))))
    keys = log_weights + noise
    top = np.argpartition(-keys, n - 1)[:n] if n else np.empty(0, int)
    return top[np.argsort(-keys[top])]


def _links(products: pd.DataFrame) -> np.ndarray:
    """Which product completes which: bool (products, products)."""
    links = np.zeros((len(products), len(products)), bool)
    for row, codes in enumerate(products["completes"]):
        links[row, products.index.get_indexer(codes)] = True
    return links
