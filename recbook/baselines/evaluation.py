"""Offline evaluation: time cuts, next-basket targets, metrics with intervals, paired tests, the scoreboard.

Every method is measured in one way: history up to a cut, the first basket after it as the target, the whole catalogue
ranked for every shopper; over all products, over those the shopper already bought ("repeat"), and over those new to the
shopper ("explore").
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from recbook.baselines.intervals import bootstrap, paired
from recbook.baselines.metrics import ACCURACY, coverage, exposure_gini, hits, intra_list_diversity, list_mean, rank

PARTS = ("all", "repeat", "explore")


# --- The split: who is judged, on what ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """What was known at a cut in time, and what happened next."""

    cut: pd.Timestamp
    receipts: pd.DataFrame  # clean receipts of every shopper, before the cut
    codes: np.ndarray  # (products,) str, sorted: the catalogue that is ranked
    shoppers: np.ndarray  # (shoppers,) int64, sorted: those who are judged
    counts: sparse.csr_matrix  # (shoppers, products) float32: invoices before the cut that hold the product
    targets: sparse.csr_matrix  # (shoppers, products) bool: the first basket after the cut


def default_cut(receipts: pd.DataFrame) -> pd.Timestamp:
    """Midnight thirty days before the day of the last receipt: a month to be judged on."""
    return receipts["date"].max().normalize() - pd.Timedelta(days=30)


def next_basket(receipts: pd.DataFrame, cut: str | pd.Timestamp, min_shoppers: int = 5) -> Split:
    """Split clean receipts at `cut`: history before it, the first invoice at or after it as the target.

    The catalogue is the products that at least `min_shoppers` shoppers bought before the cut; lines of other products
    are left out. Every shopper with such a line before the cut and another after is judged. ValueError if none is.
    """
    past, future, codes = _parted(receipts, pd.Timestamp(cut), min_shoppers)
    future = future[future["customer"].isin(past["customer"].unique())]
    if future.empty:
        raise ValueError(f"nobody bought both before and after the cut {pd.Timestamp(cut):%Y-%m-%d}: {_span(receipts)}")
    return _split(past, future, codes, pd.Timestamp(cut))


def cold_start(receipts: pd.DataFrame, cut: str | pd.Timestamp, min_shoppers: int = 5) -> Split:
    """The split of cold-start shoppers, who first come after `cut`: no history, their first basket as the target.

    The catalogue is that of `next_basket`. ValueError if nobody new came.
    """
    past, future, codes = _parted(receipts, pd.Timestamp(cut), min_shoppers)
    future = future[~future["customer"].isin(receipts[receipts["date"] < cut]["customer"].unique())]
    if future.empty:
        raise ValueError(f"nobody came for the first time after {pd.Timestamp(cut):%Y-%m-%d}: {_span(receipts)}")
    return _split(past, future, codes, pd.Timestamp(cut))


def snapshot(receipts: pd.DataFrame, when: str | pd.Timestamp, min_shoppers: int = 5) -> Split:
    """The shop as of `when`, a split without targets: everybody who bought before, in the catalogue of `next_basket`.

    ValueError if no product had enough shoppers.
    """
    when = pd.Timestamp(when)
    if (receipts[receipts["date"] < when].groupby("code")["customer"].nunique() < min_shoppers).all():
        raise ValueError(f"no product was bought by {min_shoppers} shoppers: there is too little to learn from")
    past, _, codes = _parted(receipts, when, min_shoppers)
    shoppers = np.sort(past["customer"].unique()).astype(np.int64)
    counts = count_invoices(past, shoppers, codes)
    return Split(when, past, codes, shoppers, counts, sparse.csr_matrix(counts.shape, dtype=bool))


def _parted(receipts: pd.DataFrame, cut: pd.Timestamp, min_shoppers: int) -> tuple[pd.DataFrame, ...]:
    """Lines before the cut and after it, of the products of the catalogue, and their codes."""
    past = receipts[receipts["date"] < cut]
    buyers = past.groupby("code")["customer"].nunique()
    codes = np.array(sorted(buyers.index[buyers >= min_shoppers]), dtype=str)
    if not len(codes):
        raise ValueError(f"no product had {min_shoppers} shoppers before {cut:%Y-%m-%d}: {_span(receipts)}")
    past = past[past["code"].isin(codes)]
    return past, receipts[(receipts["date"] >= cut) & receipts["code"].isin(codes)], codes


def _split(past: pd.DataFrame, future: pd.DataFrame, codes: np.ndarray, cut: pd.Timestamp) -> Split:
    """The split that judges everybody in `future` on their first invoice there."""
    first = future.sort_values("date", kind="stable").groupby("customer")["invoice"].first()
    basket = future[future["invoice"].isin(first)]
    shoppers = first.index.to_numpy(np.int64)  # sorted by groupby
    counts = count_invoices(past, shoppers, codes)
    return Split(cut, past, codes, shoppers, counts, count_invoices(basket, shoppers, codes).astype(bool))


def count_invoices(receipts: pd.DataFrame, shoppers: np.ndarray, codes: np.ndarray) -> sparse.csr_matrix:
    """How many invoices of each shopper hold each product: (shoppers, products) float32; both lists sorted."""
    lines = receipts[["customer", "code", "invoice"]].drop_duplicates()
    rows, columns = pd.Index(shoppers).get_indexer(lines["customer"]), pd.Index(codes).get_indexer(lines["code"])
    known = (rows >= 0) & (columns >= 0)
    ones = np.ones(known.sum(), dtype=np.float32)
    shape = (len(shoppers), len(codes))
    return sparse.csr_matrix((ones, (rows[known], columns[known])), shape=shape)  # duplicates are summed


def buyers(split: Split, days: int | None = None) -> np.ndarray:
    """How many shoppers, judged or not, bought each product before the cut: (products,) int64.

    `days`: only in the last so many before the cut.
    """
    receipts = split.receipts
    if days is not None:
        receipts = receipts[receipts["date"] >= split.cut - pd.Timedelta(days=days)]
    return receipts.groupby("code")["customer"].nunique().reindex(split.codes, fill_value=0).to_numpy(np.int64)


def _span(receipts: pd.DataFrame) -> str:
    if receipts.empty:
        return "there are no receipts"
    first, last = receipts["date"].min(), receipts["date"].max()
    return f"the receipts span {first:%Y-%m-%d} to {last:%Y-%m-%d}, choose a cut well inside"


def top_lists(scores: np.ndarray, split: Split, k: int = 10) -> dict[str, np.ndarray]:
    """Each shopper's top k among all products, those bought before ("repeat") and those not ("explore").

    `scores` is (shoppers, products), bigger is better; each list is (shoppers, k) columns of `split.codes`, -1 padded.
    """
    if scores.shape != split.counts.shape:
        raise ValueError(
            f"scores have shape {scores.shape}; this split needs (shoppers, products) {split.counts.shape}"
        )
    bought = split.counts.toarray() > 0
    return {"all": rank(scores, k), "repeat": rank(scores, k, bought), "explore": rank(scores, k, ~bought)}


def self_information(split: Split) -> np.ndarray:
    """Bits of surprise in each product, -log2 of the share of shoppers who bought it. Zhou et al. (2010)."""
    return -np.log2(buyers(split) / split.receipts["customer"].nunique())


def popularity_percentile(split: Split) -> np.ndarray:
    """Each product's place among the catalogue by buyers, from near 0 (fewest) to 1 (most); ties share their mean."""
    return pd.Series(buyers(split)).rank(pct=True).to_numpy()


# --- Judging a method --------------------------------------------------------------------------------------------


def judge(lists: dict[str, np.ndarray], split: Split, similarity: np.ndarray | None = None) -> pd.DataFrame:
    """Every metric for every shopper: rows `split.shoppers`, columns (split, metric) such as ("explore", "ndcg@10").

    Accuracy is NaN for a shopper without a target in that part. Diversity needs a `similarity` of products.
    """
    bought, targets = split.counts.toarray() > 0, split.targets.toarray()
    wanted = {"all": targets, "repeat": targets & bought, "explore": targets & ~bought}
    surprise, percentile = self_information(split), popularity_percentile(split)
    columns = {}
    for part, ranking in lists.items():
        k, hit, relevant = ranking.shape[1], hits(ranking, wanted[part]), wanted[part].sum(axis=1)
        for name, metric in ACCURACY.items():
            columns[part, f"{name}@{k}"] = metric(hit, relevant)
        columns[part, f"novelty@{k}"] = list_mean(surprise, ranking)
        columns[part, f"popularity@{k}"] = list_mean(percentile, ranking)
        if similarity is not None:
            columns[part, f"diversity@{k}"] = intra_list_diversity(ranking, similarity)
    return pd.DataFrame(columns, index=pd.Index(split.shoppers, name="shopper"))


def evaluate(scores: np.ndarray, split: Split, k: int = 10, similarity: np.ndarray | None = None) -> pd.DataFrame:
    """Every metric for every shopper from scores (shoppers, products): `judge(top_lists(scores, split, k), split)`."""
    return judge(top_lists(scores, split, k), split, similarity)


def summarise(judged: pd.DataFrame, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Means with bootstrap intervals of what `judge` gives: split, metric, value, low, high, n (shoppers counted)."""
    value, low, high = bootstrap(judged.to_numpy(), draws, seed)
    parts, metrics = judged.columns.get_level_values(0), judged.columns.get_level_values(1)
    n = judged.notna().sum().to_numpy()
    return pd.DataFrame({"split": parts, "metric": metrics, "value": value, "low": low, "high": high, "n": n})


def reach(lists: dict[str, np.ndarray], products: int) -> pd.DataFrame:
    """Coverage and Gini of exposure of each part's lists, in the columns of `summarise`, without intervals."""
    rows = []
    for part, ranking in lists.items():
        k, n = ranking.shape[1], int((ranking >= 0).any(axis=1).sum())
        rows.append({"split": part, "metric": f"coverage@{k}", "value": coverage(ranking, products), "n": n})
        rows.append({"split": part, "metric": f"gini@{k}", "value": exposure_gini(ranking, products), "n": n})
    return pd.DataFrame(rows)


def scoreboard(
    split: Split,
    methods: dict[str, Callable[[Split], np.ndarray]],
    k: int = 10,
    similarity: np.ndarray | None = None,
    announce: Callable[[str], None] = lambda name: None,
) -> pd.DataFrame:
    """Score every method on the split: method, split, metric, value, low, high, n, and p where two are compared.

    The metric "seconds" is the time a method took; "ndcg@10 against blend" is the paired difference to the method that
    is best on all products. `announce` is told each method's name before it runs.
    """
    tables, judged = {}, {}
    for name, method in methods.items():
        announce(name)
        start = time.perf_counter()
        scores = method(split)
        seconds = pd.DataFrame([{"split": "all", "metric": "seconds", "value": time.perf_counter() - start}])
        lists = top_lists(scores, split, k)
        judged[name] = judge(lists, split, similarity)
        tables[name] = pd.concat([summarise(judged[name]), reach(lists, len(split.codes)), seconds])
    table = pd.concat(tables, names=["method"]).reset_index("method")
    table = pd.concat([table, against_best(judged, f"ndcg@{k}")], ignore_index=True)
    return table.assign(n=table["n"].fillna(len(split.shoppers)).astype(int))


def against_best(judged: dict[str, pd.DataFrame], metric: str) -> pd.DataFrame:
    """Each method minus the best on all products, paired, in each part: the columns of `summarise`, method, and p."""
    best = max(judged, key=lambda name: judged[name]["all", metric].mean())
    rows = []
    for name in judged:
        for part in PARTS if name != best else ():
            value, low, high, p, n = paired(judged[name][part, metric], judged[best][part, metric])
            row = {"method": name, "split": part, "metric": f"{metric} against {best}", "value": value}
            rows.append(row | {"low": low, "high": high, "p": p, "n": n})
    return pd.DataFrame(rows, columns=["method", "split", "metric", "value", "low", "high", "p", "n"])


def result_rows(board: pd.DataFrame, split: Split) -> list[dict]:
    """A scoreboard as rows for `save_results`, empty cells left out, with the size of the split as two more rows."""
    sizes = [{"split": "all", "metric": "shoppers", "value": len(split.shoppers)}]
    sizes += [{"split": "all", "metric": "catalogue", "value": len(split.codes)}]
    figures = [{key: value for key, value in row.items() if not pd.isna(value)} for row in board.to_dict("records")]
    return [row | {"cut": f"{split.cut:%Y-%m-%d}"} for row in sizes + figures]
