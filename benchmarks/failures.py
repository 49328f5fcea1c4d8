"""Two classic failures of "embed the history, take the nearest", before and after: cold start and lists of one kind.

    python benchmarks/failures.py --data online-retail

Cold start: the first baskets of cold-start shoppers, who were never there before the cut, and the next baskets of all
others with their history hidden and not counted; then shoppers with one basket. Diversity: one product of a basket is
seen, the rest of the basket is to be predicted; on the embedded shop also how many of the list are of the kind of the
product seen, and how many of a kind that completes it, by the truth. Queries: the shopper types the word for one of the
products that they then bought; what the search finds is ranked by the text alone, by the shopper alone, by both, paired
with the text alone.

Writes results/failures_<name of the data>.json. A minute, and on the real log the time of fitting a BasketGPT (5
minutes) unless one is kept; 3 GB. `--rehearse`: few queries, nothing written.
"""

import argparse
import os
import time
from dataclasses import replace

import numpy as np
import pandas as pd

from recbook.baselines import evaluation, intervals, metrics, models
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data, save_results
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.embeddings.encoder import encode
from recbook.ranking.cold_start import YEAR, popular_now
from recbook.ranking.diversity import Complements, mmr
from recbook.ranking.rankers import BasketGPTRanker, BlendedRanker, TextRanker, shoppers_at
from recbook.search import queries
from recbook.search.index import build_index

K, METRIC = 10, "ndcg@10"
POOL = 50  # products that MMR picks from, and that a query finds
BASKETS = 1500  # later baskets, at most, whose rest is predicted
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the shopper beside the text
SHOPPERS = 500  # at most, whose queries are asked
FOLDS = 10  # of shoppers whose purchases are hidden together
SEED = 0


def summary(values: dict[str, np.ndarray], **more: object) -> list[dict]:
    """A row for each metric, (shoppers,) values, with its interval."""
    mean, low, high = intervals.bootstrap(np.column_stack(list(values.values())))
    n = [int((~np.isnan(value)).sum()) for value in values.values()]
    figures = zip(values, mean, low, high, n, strict=True)
    return [
        {"metric": name, "value": m, "low": a, "high": b, "n": count} | more
        for name, m, a, b, count in figures
        if count
    ]


# --- Cold start --------------------------------------------------------------------------------------------------


def cold(question: str, split: evaluation.Split, log: pd.DataFrame, vectors: pd.DataFrame, model) -> list[dict]:
    """Nothing is known of the shoppers of a split: NDCG of every way to rank, for all and for those from abroad."""
    country = log[log["customer"].isin(split.shoppers)].groupby("customer")["country"].first().reindex(split.shoppers)
    home, rows = split.receipts["country"].mode()[0], []
    folds = np.random.default_rng(SEED).integers(0, FOLDS, len(split.shoppers))
    parts = {fold: _cold_methods(split, folds == fold, country, vectors, model) for fold in np.unique(folds)}
    for name in parts[folds[0]]:
        scores = np.zeros(split.counts.shape)
        for fold, part in parts.items():
            scores[folds == fold] = part[name]
        judged = evaluation.evaluate(scores, split, K)["all", METRIC].to_numpy()
        abroad = np.where(country != home, judged, np.nan)
        coverage = metrics.coverage(metrics.rank(scores, K), len(split.codes))
        rows += summary({METRIC: judged, f"{METRIC} abroad": abroad}, question=question, method=name)
        rows.append({"question": question, "method": name, "metric": f"coverage@{K}", "value": coverage})
    return rows


def _cold_methods(split, rows: np.ndarray, country: pd.Series, vectors: pd.DataFrame, model) -> dict[str, np.ndarray]:
    """Scores for some of the shoppers, from the receipts of all others: a hidden purchase must not be counted."""
    others = split.receipts[~split.receipts["customer"].isin(split.shoppers[rows])]
    split, theirs = replace(split, receipts=others), country[rows]
    here = {name: popular_now(others, split.codes, split.cut, name) for name in ["", *theirs.unique()]}
    nothing = np.zeros(vectors.shape[1])  # the mean of no vectors
    everybody = {
        "nearest to the history": vectors.loc[split.codes].to_numpy() @ nothing,
        "BasketGPT": model.score([[]], split.cut)[0],
        "popularity": evaluation.buyers(split),
        "recent popularity": models.recent_popularity(split)[0],
        "popular now": here[""],
    }
    tiled = {name: np.tile(scores, (rows.sum(), 1)) for name, scores in everybody.items()}
    return tiled | {"popular now, here": np.stack([here[name] for name in theirs])}


def season(log: pd.DataFrame) -> list[dict]:
    """A year after the first receipt, histories hidden: what sells now, with and without what sold a year ago."""
    cut = log["date"].min().normalize() + YEAR + pd.Timedelta(days=1)
    split, rows = evaluation.next_basket(log, cut), []
    less_than_a_year = split.receipts[split.receipts["date"] > cut - YEAR]
    for name, lines in {"popular now": less_than_a_year, "popular now, and a year ago": split.receipts}.items():
        scores = np.tile(popular_now(lines, split.codes, cut), (len(split.shoppers), 1))
        judged = evaluation.evaluate(scores, split, K)["all", METRIC].to_numpy()
        rows += summary({METRIC: judged}, question="a year later", method=name)
    return rows


def one_basket(split: evaluation.Split, vectors: pd.DataFrame, model) -> list[dict]:
    """Shoppers with one basket: the nearest to it, what sells, and the BasketGPT."""
    baskets = split.receipts.groupby("customer")["invoice"].nunique().reindex(split.shoppers).to_numpy()
    asked = shoppers_at(split.receipts, split.shoppers[baskets == 1].tolist(), split.cut)
    rows = np.flatnonzero(baskets == 1)
    unit = vectors.loc[split.codes].to_numpy()
    methods = {
        "nearest to the history": (split.counts[rows] > 0).astype(np.float32) @ unit @ unit.T,
        "popular now, here": np.stack(
            [popular_now(split.receipts, split.codes, split.cut, shopper.country) for shopper in asked]
        ),
        "BasketGPT": model.score([shopper.history for shopper in asked], split.cut),
    }
    made = []
    for name, scores in methods.items():
        hit = metrics.hits(metrics.rank(scores, K), targets := split.targets[rows].toarray())
        made += summary({METRIC: metrics.ndcg(hit, targets.sum(axis=1))}, question="one basket", method=name)
    return made


# --- Diversity and complements -----------------------------------------------------------------------------------


def diversity_of(log: pd.DataFrame, split: evaluation.Split, vectors: pd.DataFrame) -> list[dict]:
    """One product of a later basket is seen: lists made in five ways, and what they are made of."""
    unit = vectors.loc[split.codes].to_numpy()
    similarity, complements = unit @ unit.T, Complements(split.receipts, split.codes, unit)
    seen, rest = _parted(log, split)
    pool = _pool(similarity)

    def diverse(scores: np.ndarray, row: int) -> np.ndarray:
        found = metrics.rank(scores[None], POOL)[0]
        return found[mmr(scores[found], similarity[np.ix_(found, found)], K)]

    ways = {
        "nearest": lambda row: pool[row][:K],
        "nearest, then MMR": lambda row: pool[row][
            mmr(similarity[row][pool[row]], similarity[np.ix_(pool[row], pool[row])], K)
        ],
        "complements": lambda row: metrics.rank(complements.score([split.codes[row]], unlike=0.0)[None], K)[0],
        "complements unlike it": lambda row: metrics.rank(complements.score([split.codes[row]])[None], K)[0],
        "complements unlike it, then MMR": lambda row: diverse(complements.score([split.codes[row]]), row),
    }
    truth, made = _truth(split.codes), []
    for name, way in ways.items():
        lists = {row: way(row) for row in np.unique(seen)}
        ranking = np.stack([lists[row] for row in seen])
        values = {METRIC: metrics.ndcg(metrics.hits(ranking, rest), rest.sum(axis=1))}
        values["diversity"] = metrics.intra_list_diversity(ranking, similarity)
        values |= {what: links[seen[:, None], ranking].mean(axis=1) for what, links in truth.items()}
        made += summary(values, question="variety", method=name)
    return made


def _pool(similarity: np.ndarray) -> np.ndarray:
    """The nearest of each product, without itself: (products, POOL)."""
    others = similarity.copy()
    np.fill_diagonal(others, -np.inf)
    return metrics.rank(others, POOL)


def _parted(log: pd.DataFrame, split: evaluation.Split) -> tuple[np.ndarray, np.ndarray]:
    """Of later baskets one product each, drawn, (baskets,), and the rest, (baskets, N) bool; two products or more."""
    later = log[(log["date"] >= split.cut) & log["code"].isin(split.codes)].drop_duplicates(["invoice", "code"])
    rng, held = np.random.default_rng(SEED), pd.Index(split.codes)
    baskets = [held.get_indexer(codes) for _, codes in later.groupby("invoice")["code"] if len(codes) > 1]
    baskets = [baskets[place] for place in rng.permutation(len(baskets))[:BASKETS]]
    seen = np.array([rng.choice(basket) for basket in baskets])
    rest = np.zeros((len(baskets), len(held)), bool)
    for row, basket in enumerate(baskets):
        rest[row, basket] = True
    rest[np.arange(len(seen)), seen] = False
    return seen, rest


def _truth(codes: np.ndarray) -> dict[str, np.ndarray]:
    """By the embedded shop's truth: which products are of one kind, and which kinds complete which: (N, N) bool."""
    if not workshop.embedded():
        return {}
    products = workshop.the_shop().products.loc[codes]
    kinds, names = pd.factorize(products["kind"])
    complete = np.zeros((len(names), len(names)), bool)
    for kind, others in zip(kinds, products["completes"], strict=True):
        complete[kind, kinds[pd.Index(codes).get_indexer([code for code in others if code in products.index])]] = True
    return {"same kind": kinds[:, None] == kinds, "completes it": complete[kinds[:, None], kinds]}


# --- Queries -----------------------------------------------------------------------------------------------------


def asked_for(split: evaluation.Split, vectors: pd.DataFrame, model, most: int) -> list[dict]:
    """The same words from different shoppers: what each then bought, ranked by text, by the shopper, by both."""
    index = build_index(split.codes, vectors.loc[split.codes].to_numpy())
    text, person = TextRanker(index, encode), BasketGPTRanker(model)
    ways = {"text": text, "shopper": person}
    ways |= {f"text + {weight:g} shopper": BlendedRanker([(text, 1), (person, weight)]) for weight in WEIGHTS}
    values = {name: [] for name in ways}
    for shopper, query, targets in _asked(split, most):
        found = queries.by_text(index, [query], encode, POOL).codes[0]
        hit = np.isin(found, targets)
        if not hit.any():
            continue
        for name, ranker in ways.items():
            order = np.argsort(-ranker.score(shopper, query, found), kind="stable")
            values[name].append(metrics.ndcg(hit[None, order[:K]], np.array([hit.sum()]))[0])
    rows, plain = [], np.array(values["text"])
    for name, each in values.items():
        rows += summary({METRIC: np.array(each)}, question="query", method=name)
        change = intervals.paired(np.array(each), plain)
        row = {"question": "query", "method": name, "metric": f"{METRIC} against text", "value": change.difference}
        rows.append(row | {"low": change.low, "high": change.high, "p": change.p_value, "n": change.n})
    return rows


def _asked(split: evaluation.Split, most: int):
    """A shopper, a query, and which products they bought that it fits: the kind of one product of their next basket."""
    goods, rng = workshop.goods(), np.random.default_rng(SEED)
    kind = goods["kind"].reindex(split.codes, fill_value="").to_numpy()
    chosen = np.sort(rng.permutation(len(split.shoppers))[:most])
    asked = shoppers_at(split.receipts, split.shoppers[chosen].tolist(), split.cut)
    for row, shopper in zip(chosen, asked, strict=True):
        bought = split.targets[row].indices
        named = sorted(set(kind[bought]) - {""})
        if named:
            query = named[rng.integers(len(named))]
            yield shopper, query, split.codes[bought[kind[bought] == query]]


def measure(rehearse: bool) -> tuple[evaluation.Split, list[dict]]:
    """The split that was judged, and every row of the results."""
    log, model = workshop.cleaned().receipts, workshop.basket_gpt()
    split = evaluation.next_basket(log, evaluation.default_cut(log))
    texts = receipts.descriptions(log)
    vectors = pd.DataFrame(encode(list(texts.values())), index=list(texts))
    rows = cold("newcomers", evaluation.cold_start(log, split.cut), log, vectors, model)
    rows += cold("history hidden", split, log, vectors, model) + season(log)
    rows += one_basket(split, vectors, model)
    rows += diversity_of(log, split, vectors)
    return split, rows + asked_for(split, vectors, model, 20 if rehearse else SHOPPERS)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="what RECBOOK_DATA takes, or embedded")
    parser.add_argument("--rehearse", action="store_true", help="few queries, nothing written")
    arguments = parser.parse_args()
    if arguments.data != "embedded":
        os.environ["RECBOOK_DATA"] = arguments.data
    start = time.perf_counter()
    split, rows = measure(arguments.rehearse)
    print(pd.DataFrame(rows).round(4).astype(object).fillna("").to_string(index=False))
    if arguments.rehearse:
        return
    data = describe_data(workshop.raw_receipts(), workshop.data_name())
    slug, rows = results_files.slug(data["name"]), [row | {"cut": f"{split.cut:%Y-%m-%d}"} for row in rows]
    command = f"python benchmarks/failures.py --data {'embedded' if workshop.embedded() else slug}"
    seconds = time.perf_counter() - start
    path = save_results(f"failures_{slug}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
