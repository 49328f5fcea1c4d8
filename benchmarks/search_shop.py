"""What search is worth to one shop: is an index quicker than brute force, what do filters cost, which query is better?

    python benchmarks/search_shop.py --data online-retail

writes results/search_<name of the data>.json in about a minute. `--data`: what `RECBOOK_DATA` takes, or `embedded`.
"""

import argparse
import time

import faiss
import numpy as np
import pandas as pd

from recbook.baselines import evaluation, intervals
from recbook.baselines.results import describe_data, save_results, slug
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.embeddings.encoder import encode
from recbook.search import measures, queries
from recbook.search.index import SearchParameters, brute_force, build_index, search_index

K, SEED = 10, 0
RECIPES = {"Flat": SearchParameters(), "IVF16,Flat": SearchParameters(nprobe=4), "HNSW32": SearchParameters(ef=64)}
INTERESTS = (1, 2, 3, 5)


def milliseconds(answer, asked: np.ndarray) -> float:
    """The median time of one query a call."""
    seconds = []
    for query in asked:
        start = time.perf_counter()
        answer(query[None])
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds) * 1e3)


def speed(codes: np.ndarray, vectors: np.ndarray) -> list[dict]:
    """Time of one query, recall, bytes and time of the build, for three indexes and a matrix product."""
    asked = vectors[np.random.default_rng(SEED).permutation(len(vectors))[:300]]
    truth = codes[brute_force(vectors, asked, K)[1]]
    by_hand = milliseconds(lambda q: brute_force(vectors, q, K), asked)
    rows = [{"method": "matrix product", "metric": "milliseconds_single", "value": by_hand}]
    for factory, parameters in RECIPES.items():
        start = time.perf_counter()
        index = build_index(codes, vectors, factory)
        measured = {"build_seconds": time.perf_counter() - start}

        def answer(q, index=index, parameters=parameters):
            return search_index(index, q, K, parameters=parameters)

        measured["milliseconds_single"] = milliseconds(answer, asked)
        measured[f"recall@{K}"] = measures.index_recall(answer(asked).codes, truth)
        measured["bytes a product"] = measures.index_bytes(factory, *vectors.shape) / len(codes)
        rows += [{"method": factory, "metric": metric, "value": value} for metric, value in measured.items()]
    return rows + [{"method": "catalogue", "metric": "products", "value": len(codes)}]


def filters(codes: np.ndarray, vectors: np.ndarray, prices: pd.Series) -> list[dict]:
    """A filter that keeps the cheapest quarter: how many of ten answers are left if it comes after the search."""
    index = build_index(codes, vectors)
    cheap = prices.index[prices <= prices.quantile(0.25)]
    after = np.isin(search_index(index, vectors, K).codes, cheap).sum(axis=1)
    inside = search_index(index, vectors, K, among=cheap).codes.shape[1]
    return [
        {"method": "filter after search", "metric": "mean answers", "value": float(after.mean())},
        {"method": "filter after search", "metric": f"share with fewer than {K}", "value": float((after < K).mean())},
        {"method": "filter inside search", "metric": "mean answers", "value": float(inside)},
    ]


def histories(clean: pd.DataFrame) -> list[dict]:
    """NDCG@10 among products new to each shopper at the last cut, by the mean of a history and by several interests."""
    split = evaluation.next_basket(clean, evaluation.default_cut(clean))
    known = receipts.descriptions(split.receipts)
    index = build_index(split.codes, encode([known[code] for code in split.codes]))
    judged = {}
    for interests in INTERESTS:
        lists = np.full((len(split.shoppers), K), -1)
        for shopper in range(len(split.shoppers)):
            bought = split.codes[split.counts[shopper].indices]
            found = queries.by_history(index, bought, K, interests).codes
            lists[shopper, : len(found)] = np.searchsorted(split.codes, found.astype(str))
        judged[interests] = evaluation.judge({"explore": lists}, split)
    rows = []
    for interests, table in judged.items():
        summary = evaluation.summarise(table).query("metric in ['ndcg@10', 'hit@10']")
        rows += summary.assign(method=f"interests={interests}").to_dict("records")
        if interests > 1:
            column = ("explore", f"ndcg@{K}")
            change = intervals.paired(table[column].to_numpy(), judged[1][column].to_numpy())
            gained = {"value": change.difference, "low": change.low, "high": change.high, "n": change.n}
            row = {"method": f"interests={interests}", "split": "explore", "metric": f"ndcg@{K} gained over the mean"}
            rows.append(row | gained)
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)")
    arguments = parser.parse_args()
    start = time.perf_counter()
    faiss.omp_set_num_threads(2)
    embedded = arguments.data == "embedded"
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = describe_data(raw, "embedded shop" if embedded else arguments.data)
    clean = receipts.clean(raw).receipts
    catalogue = receipts.catalogue(clean)
    codes, vectors = catalogue.index.to_numpy(), encode(catalogue["description"].tolist())
    rows = speed(codes, vectors) + filters(codes, vectors, catalogue["price"]) + histories(clean)
    rows.append(
        {"method": "catalogue", "metric": "intrinsic dimension", "value": measures.intrinsic_dimension(vectors)}
    )
    print(pd.DataFrame(rows).round(3).astype(object).fillna("").to_string(index=False))
    name = slug(data["name"])
    command = f"python benchmarks/search_shop.py --data {'embedded' if embedded else name}"
    seconds = time.perf_counter() - start
    path = save_results(f"search_{name}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
