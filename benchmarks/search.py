"""Recall, speed and bytes of search over a million products: brute force, IVF, IVF-PQ with re-ranking, HNSW.

    python benchmarks/search.py

writes results/search.json, in about eight minutes and 4 GB on two cores, after the texts were encoded once (up to three
minutes more). `--products 100000` is a quick rehearsal, which writes nothing.

The products: descriptions from the embedded shop's words, in every combination, encoded by MiniLM; a thousand are held
out as queries and the others grown to a million by `measures.grow`. How the grown spread is measured beside the
original. Every index answers through `recbook.search`. Batched: all queries in one call, on two threads, the best of
three calls. Single: one query a call, the median over calls. Flat gets, of several batch sizes, the one that suits it
best, and for single queries the faster of FAISS and a matrix product.
"""

import argparse
import gc
import hashlib
import itertools
import json
import resource
import time
from collections.abc import Callable
from importlib.resources import files

import faiss
import numpy as np
import pandas as pd

from recbook import storage
from recbook.baselines.results import save_results
from recbook.embeddings.encoder import PACKAGED_MODEL, WEIGHTS_SHA256, encode
from recbook.search import measures
from recbook.search.index import SearchParameters, brute_force, build_index, search_index

QUERIES, K, THREADS, SEED = 1_000, 10, 2, 0
FLAT_BATCHES = (32, 128, 1_000)  # queries a call
INDEXES = {  # factory string -> efforts
    "IVF1024,Flat": [SearchParameters(nprobe=n) for n in (1, 2, 4, 8, 16, 32, 64)],
    "HNSW16": [SearchParameters(ef=n) for n in (16, 32, 64, 128, 256)],
    "IVF1024,PQ16,RFlat": [
        SearchParameters(nprobe=n, refine=r) for n, r in ((8, 1), (8, 4), (8, 16), (4, 64), (8, 64))
    ],
    "IVF1024,PQ32,RFlat": [
        SearchParameters(nprobe=n, refine=r) for n, r in ((8, 1), (8, 4), (4, 16), (8, 16), (8, 64))
    ],
}


def descriptions() -> list[str]:
    """Tens of thousands of product descriptions: the words of the embedded shop in every combination, sorted."""
    words = json.loads(files("recbook.cleaning").joinpath("assortment.json").read_text(encoding="utf-8"))
    made = set()
    for department in ("homeware", "clothing", "coffee"):
        themes, colours = words[department]["themes"], words[department]["colours"]
        for kind, _, materials, _, occasion, _, *details in words[department]["kinds"]:
            for colour, theme, material, detail in itertools.product(colours, themes, materials, *details or [[""]]):
                made.add(f"{colour} {theme} {material} {kind}, {detail or 'for ' + occasion}")
    coffee = words["coffee"]
    for origin, roast, grind in itertools.product(coffee["origins"], coffee["roasts"], coffee["grinds"]):
        for first, second in itertools.permutations(coffee["notes"][str(roast)], 2):
            made.add(f"single-origin {origin}, {first} with {second}, {roast} roast, {grind}")
    return sorted(made)


def encoded(texts: list[str]) -> np.ndarray:
    """The texts' vectors, kept between runs."""
    return storage.artifact(
        "search-texts",
        {"texts": digest(texts), "model": PACKAGED_MODEL, "weights": WEIGHTS_SHA256},
        make=lambda folder: np.save(folder / "vectors.npy", encode(texts), allow_pickle=False),
        load=lambda folder: np.load(folder / "vectors.npy", allow_pickle=False),
    )


def digest(texts: list[str]) -> str:
    """The sha256 of a list of texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def spread(name: str, vectors: np.ndarray, queries: np.ndarray, sample: int) -> list[dict]:
    """How vectors spread: intrinsic dimension, and distances from the queries, in a sample as large as the original."""
    chosen = vectors[np.random.default_rng(SEED).permutation(len(vectors))[:sample]]
    distances = measures.neighbour_distances(chosen, queries, K)
    figures = {
        "intrinsic dimension": measures.intrinsic_dimension(chosen),
        "median distance to the 1st neighbour": np.median(distances[:, 0]),
        "median distance to the 10th neighbour": np.median(distances[:, -1]),
    }
    return [{"method": name, "setting": "", "metric": key, "value": round(float(v), 3)} for key, v in figures.items()]


def best_per_second(answer: Callable, queries: np.ndarray, batch: int, rounds: int = 3) -> float:
    """Queries answered a second, `batch` queries a call: the best of several rounds over all queries."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        for first in range(0, len(queries), batch):
            answer(queries[first : first + batch])
        seconds.append(time.perf_counter() - start)
    return len(queries) / min(seconds)


def milliseconds(answer: Callable, queries: np.ndarray) -> float:
    """The median time of one query a call."""
    seconds = []
    for query in queries:
        start = time.perf_counter()
        answer(query[None])
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds) * 1e3)


def figures(method: str, setting: str, bytes_a_product: float, **measured: float) -> list[dict]:
    """Rows in long form for one index at one setting."""
    measured["bytes a product"] = bytes_a_product
    row = {"method": method, "setting": setting}
    return [row | {"metric": key, "value": float(f"{value:.4g}")} for key, value in measured.items()]


def flat(codes: np.ndarray, vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    """The true answers by FAISS Flat, and its speed at its best, beside that of a plain matrix product."""
    index, start = build_index(codes, vectors, "Flat", THREADS), time.perf_counter()
    truth = search_index(index, queries, K).codes
    per_second = {len(queries): len(queries) / (time.perf_counter() - start)}
    for batch in FLAT_BATCHES:
        speed = best_per_second(lambda q: search_index(index, q, K), queries[:512], min(batch, 512), rounds=2)
        per_second[batch] = max(speed, per_second.get(batch, 0))
    single = {
        "FAISS": milliseconds(lambda q: search_index(index, q, K), queries[:30]),
        "matrix product": milliseconds(lambda q: brute_force(vectors, q, K), queries[:30]),
    }
    size = measures.index_bytes("Flat", len(codes), vectors.shape[1]) / len(codes)
    rows = [r for batch, v in per_second.items() for r in figures("Flat", f"batch={batch}", size, per_second_batched=v)]
    rows += [r for by, v in single.items() for r in figures("Flat", f"one by one, {by}", size, milliseconds_single=v)]
    best = {"per_second_batched": max(per_second.values()), "milliseconds_single": min(single.values())}
    return truth, rows + figures("Flat", "best", size, **{f"recall@{K}": 1.0}, **best)


def sweep(factory: str, codes: np.ndarray, vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> list[dict]:
    """Build one index and measure it at each effort."""
    start = time.perf_counter()
    index = build_index(codes, vectors, factory, THREADS)
    built = time.perf_counter() - start
    print(f"{factory}: built in {built:.0f} s", flush=True)
    size = measures.index_bytes(factory, len(codes), vectors.shape[1]) / len(codes)
    rows = []
    for parameters in INDEXES[factory]:

        def answer(q, parameters=parameters):
            return search_index(index, q, K, parameters=parameters)

        rows += figures(
            factory,
            setting(factory, parameters),
            size,
            **{f"recall@{K}": measures.index_recall(answer(queries).codes, truth)},
            per_second_batched=best_per_second(answer, queries, len(queries)),
            milliseconds_single=milliseconds(answer, queries[:200]),
            build_seconds=built,
        )
    return rows


def setting(factory: str, parameters: SearchParameters) -> str:
    """The settings of an effort that this factory string has."""
    parts = {
        "IVF": f"nprobe={parameters.nprobe}",
        "HNSW": f"ef={parameters.ef}",
        "RFlat": f"refine={parameters.refine}",
    }
    return ", ".join(text for part, text in parts.items() if part in factory)


def table(rows: list[dict]) -> pd.DataFrame:
    """One line an index and setting, with its speed as a multiple of Flat's best."""
    wide = pd.DataFrame(rows).pivot_table(index=["method", "setting"], columns="metric", values="value", sort=False)
    best = wide.loc[("Flat", "best")]
    wide["times Flat, batched"] = wide["per_second_batched"] / best["per_second_batched"]
    wide["times Flat, single"] = best["milliseconds_single"] / wide["milliseconds_single"]
    return wide


def verdict(lines: pd.DataFrame) -> list[dict]:
    """The fastest settings that keep recall@10 at 0.95 or more, and by how much they beat Flat's best."""
    good = lines[(lines[f"recall@{K}"] >= 0.95) & (lines.index.get_level_values("method") != "Flat")]
    rows = []
    for metric in ("times Flat, batched", "times Flat, single"):
        if len(good):
            method, how = good[metric].idxmax()
            value = float(f"{good[metric].max():.4g}")
            rows.append({"method": method, "setting": how, "metric": f"best {metric}, recall >= 0.95", "value": value})
    return rows


def main() -> None:
    """Measure, print, and at full size keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=1_000_000)
    products = parser.parse_args().products
    start = time.perf_counter()
    faiss.omp_set_num_threads(THREADS)
    texts = descriptions()
    vectors = encoded(texts)[np.random.default_rng(SEED).permutation(len(texts))]
    queries, real = vectors[:QUERIES], vectors[QUERIES:]
    grown = measures.grow(real, products, seed=SEED)
    print(f"{len(texts):,} texts, {products:,} products grown after {time.perf_counter() - start:.0f} s", flush=True)
    rows = spread("original", real, queries, len(real)) + spread("grown", grown, queries, len(real))
    rows += spread("grown, all", grown, queries, products)
    print(pd.DataFrame(rows).pivot(index="metric", columns="method", values="value").to_string(), flush=True)
    codes = np.array([f"{i:07d}" for i in range(products)], dtype=object)
    truth, measured = flat(codes, grown, queries)
    for factory in INDEXES:
        gc.collect()  # one index in memory at a time
        measured += sweep(factory, codes, grown, queries, truth)
    lines = table(measured)
    print(lines.round(3).to_string(na_rep=""))
    found = verdict(lines)
    print(pd.DataFrame(found).to_string(index=False))
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    measured += [{"method": "run", "setting": "", "metric": "peak GiB", "value": round(peak, 1)}]
    print(f"{seconds:.0f} s, {peak:.1f} GiB at the most")
    if products == 1_000_000:
        data = {"name": f"grown from {len(real)} descriptions", "sha256": digest(texts), "rows": products}
        command = "python benchmarks/search.py"
        print(save_results("search", rows + measured + found, command=command, data=data, seconds=seconds))


if __name__ == "__main__":
    main()
