"""What the boosted ranker is told about a shopper and a product, from receipts before one moment and nothing later.

`lines` is a frame of receipt lines, one a product and invoice: `shopper`, `product`, `invoice` (numbers from 0), `day`
(of the invoice; 0 at the cut that is judged, so negative) and `units`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

MIN_SHOPPERS = 5  # as for the catalogue that is judged: a product that fewer have bought is no candidate
LAST_DAYS = (7, 28, 90, 1000)  # windows of popularity; the last one is everything


@dataclass(frozen=True)
class Moment:
    """Everything that is known before `now`; tables() puts it together for some shoppers."""

    pairs: list[sparse.csr_matrix]  # each (shoppers, products): of what a shopper bought before, zero elsewhere
    products: np.ndarray  # (products, features)
    shoppers: np.ndarray  # (shoppers, features)
    linear: list[tuple[sparse.csr_matrix, np.ndarray]]  # scores: a (shoppers, products) times a (products, products)
    trend: np.ndarray  # (products,) root of the popularity of the last 28 days, mean one
    sold: np.ndarray  # (products,) bool: enough shoppers bought it


def moment(lines: pd.DataFrame, now: float, shape: tuple[int, int], descriptions: np.ndarray) -> Moment:
    """What is known of every shopper and product, `shape` of them, from the lines before the day `now`."""
    past = lines[lines["day"] < now].assign(age=lambda rows: now - rows["day"])
    invoices = past.groupby("invoice").agg(shopper=("shopper", "first"), age=("age", "first"), size=("product", "size"))
    invoices = invoices.sort_values(["shopper", "age"], ascending=[True, False], kind="stable")
    order = invoices.groupby("shopper").cumcount()
    baskets = invoices.groupby("shopper").size().reindex(range(shape[0]), fill_value=0)
    past["since"] = past["shopper"].map(baskets) - 1 - past["invoice"].map(order)  # baskets after this one
    known = pair_features(past, baskets)
    matrices = {name: _matrix(known, values, shape) for name, values in known.items()}
    products = product_features(past, known, shape[1])
    sold = products[:, 0] >= np.log1p(MIN_SHOPPERS) - 1e-6
    recent = np.expm1(products[:, 2])
    trend = np.sqrt(recent / max(recent.mean(), 1e-9)).astype(np.float32)
    linear = linear_scores(matrices, descriptions)
    return Moment(list(matrices.values()), products, shopper_features(invoices, known, shape[0]), linear, trend, sold)


def pair_features(past: pd.DataFrame, baskets: pd.Series) -> pd.DataFrame:
    """Rows (shopper, product) of what each bought: counts, decayed counts, how long ago, how regularly, how many."""
    decayed = {f"decay{days}": 0.5 ** (past["age"] / days) for days in (15, 45, 120)}
    groups = past.assign(**decayed).groupby(["shopper", "product"])
    table = groups[list(decayed)].sum()
    count, last, first = groups.size(), groups["age"].min(), groups["age"].max()
    of_shopper = baskets.reindex(table.index.get_level_values("shopper")).to_numpy()
    since = groups["since"].min()
    table["count"] = count
    table["share"] = count / of_shopper
    table["share since first"] = count / (groups["since"].max() + 1)
    table["in last basket"] = since == 0
    table["baskets"] = 1 / (1 + since)
    table["fresh"] = 0.5 ** (last / 60)
    table["due"] = np.where(count > 1, last * (count - 1).clip(lower=1) / (first - last).clip(lower=1), 0)
    table["units"] = np.log1p(groups["units"].sum().clip(lower=0))
    table["bought"] = 1
    return table.astype(np.float32)


def product_features(past: pd.DataFrame, known: pd.DataFrame, products: int) -> np.ndarray:
    """(products, features): buyers, popularity in windows, trend, age, days since it sold, how often it is rebought."""
    buyers = known.groupby("product").size().reindex(range(products), fill_value=0).to_numpy()

    def sales(low: float, high: float) -> np.ndarray:
        inside = past[(past["age"] > low) & (past["age"] <= high)]
        pairs = inside[["shopper", "product"]].drop_duplicates()
        return np.bincount(pairs["product"], minlength=products)

    windows = [sales(0, days) for days in LAST_DAYS]
    month = [np.log1p(sales(28 * back, 28 * (back + 1))) for back in range(3)]
    week = np.log1p(windows[0]) - np.log1p(sales(7, 14))
    groups = past.groupby("product")
    first, last = (groups["age"].agg(how).reindex(range(products)).to_numpy() for how in ("max", "min"))
    again = (known["count"] > 1).groupby("product").sum().reindex(range(products), fill_value=0).to_numpy()
    units = groups["units"].median().reindex(range(products)).to_numpy()
    columns = [np.log1p(buyers), *np.log1p(windows[:-1]), np.log1p(windows[-1]), month[0] - month[1]]
    columns += [month[1] - month[2], week, first, last, (again + 1) / (buyers + 10), units]
    return np.column_stack(columns).astype(np.float32)


def shopper_features(invoices: pd.DataFrame, known: pd.DataFrame, shoppers: int) -> np.ndarray:
    """(shoppers, features): baskets, their size, days since the last, days between, share of products bought again."""
    groups = invoices.groupby("shopper")
    count, last, first = groups.size(), groups["age"].min(), groups["age"].max()
    gap = (first - last) / (count - 1).clip(lower=1)
    distinct = known.groupby("shopper").size()
    again = (known["count"] > 1).groupby("shopper").mean()
    columns = [count, groups["size"].mean(), groups["size"].last(), last, gap, last / (gap + 7), distinct, again]
    return pd.concat(columns, axis=1).reindex(range(shoppers)).to_numpy(np.float32)


def linear_scores(known: dict[str, sparse.csr_matrix], descriptions: np.ndarray) -> list[tuple]:
    """Pairs (of what a shopper bought, item-item weights): EASE, item-kNN, co-purchase and text, fresh and not."""
    bought, fresh, latest, decayed = (known[name] for name in ("bought", "fresh", "in last basket", "decay120"))
    together = (bought.T @ bought).toarray()
    buyers = together.diagonal().copy()
    np.fill_diagonal(together, 0)
    follows = together / (buyers[:, None] + 5)  # P(column | row), shrunk
    cosine = together / np.sqrt(np.outer(buyers + 1, buyers + 1))
    weakest = np.partition(cosine, -100, axis=1)[:, -100, None] if len(cosine) > 100 else 0
    cosine = np.where(cosine >= weakest, cosine, 0).T.astype(np.float32)
    text = TfidfVectorizer(dtype=np.float32).fit_transform(descriptions)
    alike = (text @ text.T).toarray()
    np.fill_diagonal(alike, 0)
    row = normalize(latest, "l1")
    # The first is what is ranked for each shopper, and what is multiplied by the trend.
    linear = [(fresh, ease(fresh, 100)), (bought, ease(bought, 200)), (bought, cosine), (fresh, cosine)]
    linear += [(row, follows.astype(np.float32)), (normalize(decayed, "l1"), alike), (row, alike)]
    return linear


def ease(X: sparse.csr_matrix, l2: float) -> np.ndarray:
    """EASE's item-item weights (products, products). Steck (2019)."""
    gram = (X.T @ X).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += l2
    inverse = np.linalg.inv(gram)
    weights = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def tables(known: Moment, rows: np.ndarray) -> np.ndarray:
    """Every feature of some shoppers, by number, and all products: (rows, products, features) float32."""
    pairs = [matrix[rows].toarray() for matrix in known.pairs]
    scores = [np.asarray(left[rows] @ right) for left, right in known.linear]
    scores.append(scores[0] * known.trend)
    places = [np.argsort(np.argsort(-score, axis=1), axis=1) for score in (scores[0], scores[-1])]
    wide = np.stack([*pairs, *scores, *places], axis=2).astype(np.float32)
    shape = (*wide.shape[:2], -1)
    of_product = np.broadcast_to(known.products, (len(rows), *known.products.shape))
    of_shopper = np.broadcast_to(known.shoppers[rows, None], (*wide.shape[:2], known.shoppers.shape[1]))
    return np.concatenate([wide, of_product.reshape(shape), of_shopper.reshape(shape)], axis=2)


def _matrix(known: pd.DataFrame, values: pd.Series, shape: tuple[int, int]) -> sparse.csr_matrix:
    rows, columns = (known.index.get_level_values(level).to_numpy() for level in ("shopper", "product"))
    return sparse.csr_matrix((values.to_numpy(), (rows, columns)), shape=shape)
