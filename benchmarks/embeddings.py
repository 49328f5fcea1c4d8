"""What are product texts worth as vectors? TF-IDF, LSA and MiniLM: speed, neighbours, recommendations.

    python benchmarks/embeddings.py --data online-retail
    python benchmarks/embeddings.py --data embedded

writes results/embeddings_<data>.json. Settings (the sharpness of a profile, the weight of text) are chosen at a cut
thirty days before the one that is reported. `--data` takes a path too.
"""

import argparse
import re
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

from recbook.baselines import evaluation, intervals, models
from recbook.baselines.results import describe_data, save_results, slug
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.embeddings import encoder, text_vectors

K = 10
ENCODERS: dict[str, Callable[[list[str]], np.ndarray]] = {
    "TF-IDF": text_vectors.tfidf,
    "LSA": text_vectors.lsa,
    "MiniLM": encoder.encode,
}
SHARPNESS = [1, 2, 4, 8]
WEIGHTS = [0.25, 0.5, 1.0, 2.0, 4.0]
# Words that end a description without being the thing: "LUNCH BAG RED RETROSPOT" is a bag. Crude, and the same for all.
NO_NOUN = set(
    "red blue pink white black green cream ivory silver gold yellow orange purple brown grey retrospot polkadot spotty "
    "vintage small large medium mini assorted design designs colours heart hearts set pack box with and the for".split()
)


def head_noun(description: str) -> str:
    """A crude guess at the kind: the last word before "with", "in", "for" or a comma that is no colour or size."""
    before = re.split(r",| with | in | for ", description.lower())[0]
    nouns = [word for word in re.findall(r"[a-z]{3,}", before) if word not in NO_NOUN]
    return nouns[-1].removesuffix("s") if nouns else before


def encode_all(texts: list[str]) -> tuple[dict[str, np.ndarray], list[dict]]:
    """The texts' vectors by every method, and how fast each was; loading the model does not count."""
    encoder.encode(["warm up"])
    vectors, rows = {}, []
    for method, encode in ENCODERS.items():
        start = time.perf_counter()
        vectors[method] = encode(texts)
        seconds = time.perf_counter() - start
        figures = {"seconds": seconds, "texts per second": len(texts) / seconds}
        figures["dimensions"] = vectors[method].shape[1]
        rows += [{"method": method, "metric": name, "value": value, "n": len(texts)} for name, value in figures.items()]
    return vectors, rows


def shared(vectors: dict[str, np.ndarray], attributes: pd.DataFrame) -> list[dict]:
    """The share of each product's K nearest others that have its value of an attribute, and of any others by chance."""
    rows = []
    for attribute, column in attributes.items():
        values = pd.factorize(column)[0]
        sizes = np.bincount(values)[values]
        by_chance = (sizes - 1) / (len(values) - 1)
        rows.append({"method": "chance", "metric": f"same {attribute}", "value": by_chance.mean(), "n": len(values)})
        for method, rows_of in vectors.items():
            same = values[text_vectors.neighbours(rows_of, K)] == values[:, None]
            rows.append({"method": method, "metric": f"same {attribute}", "value": same.mean(), "n": len(values)})
    return rows


def found(neighbours: np.ndarray, wanted: list[np.ndarray]) -> tuple[float, int]:
    """The mean share of the `wanted` rows of each product that are among its neighbours, over products with any."""
    shares = [np.isin(rows, near).mean() for rows, near in zip(wanted, neighbours, strict=True) if len(rows)]
    return float(np.mean(shares)), len(shares)


def together(split: evaluation.Split) -> np.ndarray:
    """How often two products share an invoice, as a cosine: (products, products), zero on the diagonal."""
    number = pd.factorize(split.receipts["invoice"])[0]
    baskets = evaluation.count_invoices(split.receipts.assign(customer=number), np.unique(number), split.codes)
    return models.cosine_similarity(baskets)  # count_invoices took each invoice for a shopper of its own


def relations(split: evaluation.Split, vectors: dict[str, np.ndarray], truth: pd.DataFrame | None) -> list[dict]:
    """Recall among K text neighbours of what is bought together, and, where the truth is known, of both relations."""
    bought = np.argsort(-together(split), axis=1, kind="stable")[:, :K]
    near = {method: text_vectors.neighbours(rows, K) for method, rows in vectors.items()}
    wanted = {"bought together": list(bought)}
    if truth is not None:
        near["bought together"] = bought
        for relation, name in (("replaces", "substitutes"), ("completes", "complements")):
            lists = truth[relation].reindex(split.codes)
            known = [codes if isinstance(codes, list) else [] for codes in lists]
            wanted[name] = [np.flatnonzero(np.isin(split.codes, codes)) for codes in known]
    rows = []
    for name, lists in wanted.items():
        for method, neighbours in near.items():
            if method != name:
                value, n = found(neighbours, lists)
                rows.append({"method": method, "metric": f"recall@{K} of {name}", "value": value, "n": n})
        rows.append({"method": "chance", "metric": f"recall@{K} of {name}", "value": K / (len(split.codes) - 1)})
    return rows


def trend(split: evaluation.Split) -> np.ndarray:
    """The root of recent popularity, mean one before the root: what the three-term blend multiplies by."""
    recent = models.recent_popularity(split)
    return np.sqrt(recent / max(recent.mean(), 1e-9))


def explore(scores: np.ndarray, split: evaluation.Split) -> float:
    """Mean NDCG@10 over products new to the shopper."""
    return float(evaluation.evaluate(scores, split, K)["explore", f"ndcg@{K}"].mean())


def choose(split: evaluation.Split, vectors: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """For each method the sharpness of its profile, then its weight beside EASE, best at exploring on this split."""
    base, rising = models.ease(split), trend(split)
    chosen = {}
    for method, rows in vectors.items():
        profiles = {power: text_vectors.profile_scores(split.counts, rows, power) for power in SHARPNESS}
        power = max(SHARPNESS, key=lambda power: explore(profiles[power], split))
        weight = max(WEIGHTS, key=lambda w: explore(text_vectors.with_text(base, profiles[power], w) * rising, split))
        chosen[method] = (power, weight)
    return chosen


def recommendations(split: evaluation.Split, vectors: dict[str, np.ndarray], chosen: dict) -> dict[str, np.ndarray]:
    """Scores by name: text alone (mean, then sharpened), EASE and the trend without text, and with it."""
    base, rising = models.ease(split), trend(split)
    scores = {"recent popularity": models.recent_popularity(split), "EASE": base, "EASE × trend": base * rising}
    for method, rows in vectors.items():
        power, weight = chosen[method]
        sharp = text_vectors.profile_scores(split.counts, rows, power)
        scores[f"{method} profile, mean"] = text_vectors.profile_scores(split.counts, rows)
        scores[f"{method} profile, sharpened"] = sharp
        scores[f"(EASE + {method}) × trend"] = text_vectors.with_text(base, sharp, weight) * rising
    return scores


def judged(split: evaluation.Split, scores: dict[str, np.ndarray]) -> list[dict]:
    """NDCG@10 with intervals, and what adding text to EASE changes, shopper by shopper."""
    tables = {name: evaluation.evaluate(values, split, K) for name, values in scores.items()}
    rows = []
    for name, table in tables.items():
        summary = evaluation.summarise(table)
        rows += summary[summary["metric"] == f"ndcg@{K}"].assign(method=name).to_dict("records")
    without = tables["EASE × trend"]["explore", f"ndcg@{K}"].to_numpy()
    for name in (name for name in tables if name.startswith("(EASE + ")):
        change = intervals.paired(tables[name]["explore", f"ndcg@{K}"].to_numpy(), without)
        rows.append({"method": name, "split": "explore", "metric": f"ndcg@{K} gained over EASE × trend"})
        rows[-1] |= {"value": change.difference, "low": change.low, "high": change.high, "n": change.n}
    return rows


def at_cut(clean: pd.DataFrame, cut: pd.Timestamp) -> tuple[evaluation.Split, dict[str, np.ndarray]]:
    """The split at a cut, and the vectors of its catalogue; nothing from after the cut has a say in either."""
    split = evaluation.next_basket(clean, cut)
    known = receipts.descriptions(split.receipts)
    return split, {method: encode([known[code] for code in split.codes]) for method, encode in ENCODERS.items()}


def measure(clean: pd.DataFrame, truth: pd.DataFrame | None) -> list[dict]:
    """Every figure, as rows of a results file."""
    texts = receipts.descriptions(clean)
    vectors, rows = encode_all(list(texts.values()))
    attributes = pd.DataFrame({"head noun": [head_noun(text) for text in texts.values()]}, index=list(texts))
    rows += shared(vectors, attributes)
    if truth is not None:
        known = np.isin(list(texts), truth.index)
        table = truth.loc[np.array(list(texts))[known], ["department", "kind", "material", "colour", "theme"]]
        rows += shared({method: rows_of[known] for method, rows_of in vectors.items()}, table)
    cut = evaluation.default_cut(clean)
    chosen = choose(*at_cut(clean, cut - pd.Timedelta(days=30)))
    split, vectors = at_cut(clean, cut)
    for method, (power, weight) in chosen.items():
        rows.append({"method": method, "metric": "sharpness chosen", "value": power})
        rows.append({"method": method, "metric": "weight chosen", "value": weight})
    rows += relations(split, vectors, truth)
    return rows + judged(split, recommendations(split, vectors, chosen))


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)")
    arguments = parser.parse_args()
    start = time.perf_counter()
    embedded = arguments.data == "embedded"
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = describe_data(raw, "embedded shop" if embedded else arguments.data)
    rows = measure(receipts.clean(raw).receipts, workshop.the_shop().products if embedded else None)
    print(pd.DataFrame(rows).round(3).astype(object).fillna("").to_string(index=False))
    name = slug(data["name"])
    command = f"python benchmarks/embeddings.py --data {'embedded' if embedded else name}"
    seconds = time.perf_counter() - start
    path = save_results(f"embeddings_{name}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
