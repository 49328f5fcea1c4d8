"""The whole system: what every stage of the chain is worth, and how long building and asking take.

    python benchmarks/system.py scoreboard --data online-retail
    python benchmarks/system.py latency --data online-retail

`scoreboard` writes results/system_scoreboard_<name of the data>.json, with the date for another cut than the usual one:
from popularity to the quantized student, each method's NDCG@10 (all, repeat, explore), coverage and diversity of its
top ten, the median time to answer one shopper whose history is at hand (online), and the memory that this takes. The
language model ranks the BasketGPT's best twenty; it has read receipts up to the usual cut, so it is left out at any
other cut. Text alone is the index's nearest products to the mean of what was bought.
`latency` writes results/system_latency_<name of the data>.json: the time of `Recommender.build` stage by stage, in a
process of its own, then the times of loading and asking in another, beside a plain pipeline: the same index on text
alone, and as many tokens by `transformers.generate` from a GPT of the narrator's size whose weights are random.

Everything runs on one thread: networks so small mostly wait for a second one, and a shop's server needs its other cores
for other shoppers. On the real log `scoreboard` takes a quarter of an hour and 4 GB once the GPTs, the student and the
narrator are kept from an earlier run, `latency` half an hour; on the embedded shop three minutes, and eight.
`--data`: what RECBOOK_DATA takes, or `embedded`. `--rehearse`: models that hardly learned, few questions, nothing
written.
"""

import argparse
import copy
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits

from recbook.baselines import evaluation, models
from recbook.baselines import results as results_files
from recbook.baselines.metrics import rank
from recbook.baselines.results import describe_data, save_results
from recbook.baskets.model import BasketGPT, scores_at_cut
from recbook.baskets.network import BasketGPTConfig
from recbook.book import workshop
from recbook.cleaning.receipts import descriptions
from recbook.embeddings.encoder import encode
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT, to_transformers
from recbook.llm_ranking import training_lists
from recbook.llm_ranking.gpt_ranker import AFTER_QUESTION, RANKER_TRAINING, GPTRanker, teach_ranker
from recbook.narratives.facts import Facts
from recbook.narratives.generate import Narrative
from recbook.narratives.templates import fact_prompt
from recbook.quantization.layers import quantize
from recbook.ranking.lambdarank import LambdaRank, RankingExamples, propose_candidates, ranking_examples
from recbook.ranking.rankers import Shopper, shoppers_at
from recbook.search.index import ProductIndex, build_index, search_index
from recbook.system.build import RecommenderConfig, fit_lambdarank
from recbook.system.recommender import Recommender
from recbook.system.retrieve_and_rank import TwoStageRecommender
from recbook.tokens.documents import encode_document

K, SEED = 10, 0
METRICS = [f"{name}@{K}" for name in ("ndcg", "coverage", "diversity")]
TIMED, WARM_UP = 200, 5  # shoppers that are timed, and those before them that are not counted
CANDIDATES, SHOWN = 400, 20  # products that the trees rank, and that the language model reads
LISTS = 3000  # past lists that train the language model
LEAST_AGREEMENT = 0.95  # least share of shoppers who get the same top ten online as offline
HARDLY_TRAINED = BasketGPTConfig(epochs=0.02)
ASKED, SHOP = 5, "shop"  # products per question, and the folder of the recommender
PLAIN = "FAISS, transformers.generate"
EXPLAINED = ("typed history", "customer and query", "customer")  # ways of asking that are also timed with reasons


class Method(NamedTuple):
    """One row of the scoreboard."""

    scores: Callable[[], np.ndarray]  # offline, of all judged shoppers at once: (shoppers, products)
    recommend: Callable[[Shopper], np.ndarray]  # online, columns of one shopper's top ten
    kept: list  # what must be in memory online
    weights: list = []  # the weights of its network, if any


# --- Counting, and text ------------------------------------------------------------------------------------------


class HistoryCounts:
    """A shopper's history as rows over the catalogue."""

    def __init__(self, codes: np.ndarray):
        self.codes = codes

    def columns(self, shopper: Shopper) -> np.ndarray:
        """Columns of the distinct products bought."""
        return np.flatnonzero(self.counts(shopper))

    def counts(self, shopper: Shopper) -> np.ndarray:
        """Baskets that held each product, (products,)."""
        bought = np.searchsorted(self.codes, [code for _, basket in shopper.history for code in basket])
        return np.bincount(bought, minlength=len(self.codes))

    def fresh(self, shopper: Shopper) -> np.ndarray:
        """As `models.recency`, (products,) float32."""
        made = np.zeros(len(self.codes), np.float32)
        for date, basket in shopper.history:  # oldest first
            days = (shopper.when - date) / pd.Timedelta(days=1)
            made[np.searchsorted(self.codes, basket)] = 0.5 ** (days / models.HALF_LIFE)
        return made


def top_ten(scores: np.ndarray) -> np.ndarray:
    """The columns of the ten highest scores, (products,) -> (10,)."""
    return rank(scores[None], K)[0]


def by_counting(split: evaluation.Split) -> dict[str, Method]:
    """The baselines, each with what it keeps in memory online: a row of numbers, or weights between products."""
    shopper = HistoryCounts(split.codes)
    ever, lately = (popular(split)[0].copy() for popular in (models.popularity, models.recent_popularity))
    single = replace(split, counts=sparse.identity(len(split.codes), np.float32, "csr"))  # what each purchase adds
    near, weights = sparse.csr_matrix(models.item_knn(single)), models.ease(single)
    tie = lately / (lately.max() + 1)
    return {
        "popularity": Method(lambda: models.popularity(split), lambda _: top_ten(ever), [ever]),
        "recent popularity": Method(lambda: models.recent_popularity(split), lambda _: top_ten(lately), [lately]),
        "item-kNN": Method(
            lambda: models.item_knn(split),
            lambda who: top_ten(np.asarray(near[shopper.columns(who)].sum(axis=0)).ravel()),
            [near],
        ),
        "EASE": Method(
            lambda: models.ease(split), lambda who: top_ten(weights[shopper.columns(who)].sum(axis=0)), [weights]
        ),
        "personal frequency": Method(
            lambda: models.personal_frequency(split), lambda who: top_ten(shopper.counts(who) + tie), [tie]
        ),
        "blend": formula(split, shopper, lately),
    }


def formula(split: evaluation.Split, shopper: HistoryCounts, lately: np.ndarray) -> Method:
    """The formula blend; online its three terms for one shopper."""
    everybody = np.sort(split.receipts["customer"].unique())
    weights = models.ease_weights(models.recency(split, everybody), 100)
    trend = np.sqrt(lately / lately.mean())

    def recommend(who: Shopper) -> np.ndarray:
        return top_ten(shopper.fresh(who) @ weights * trend + np.log1p(shopper.counts(who)))

    return Method(lambda: models.blend(split), recommend, [weights, trend])


def by_text(split: evaluation.Split, index: ProductIndex, vectors: np.ndarray) -> Method:
    """FAISS alone: the nearest products to the mean vector of what was bought."""
    shopper = HistoryCounts(split.codes)

    def scores() -> np.ndarray:
        hits = search_index(index, (split.counts > 0).astype(np.float32) @ vectors, len(split.codes))
        made = np.empty(split.counts.shape, np.float32)
        np.put_along_axis(made, np.searchsorted(split.codes, hits.codes.astype(str)), hits.scores, axis=1)
        return made

    def recommend(who: Shopper) -> np.ndarray:
        mean = vectors[shopper.columns(who)].sum(axis=0)
        return np.searchsorted(split.codes, search_index(index, mean[None], K).codes[0].astype(str))

    return Method(scores, recommend, [index, vectors])


# --- Learned -----------------------------------------------------------------------------------------------------


def by_gpt(model: BasketGPT, split: evaluation.Split) -> Method:
    """A BasketGPT of any size and number of bits."""

    def recommend(who: Shopper) -> np.ndarray:
        return top_ten(model.score([who.history], who.when)[0])

    state = model.network.state_dict()
    weights = [state[name] for name in state if name != "text"]  # the text vectors are inputs, not weights
    kept = [model.network, model.shop_features.latest()]
    return Method(lambda: scores_at_cut(model, split), recommend, kept, weights)


def in_bits(model: BasketGPT, scheme: str) -> BasketGPT:
    """A copy of a model, quantized by a scheme, with the same text vectors and the same shop features."""
    small, text = copy.copy(model), model.network.text
    small.network = quantize(copy.deepcopy(model.network, {id(text): text}), scheme)
    return small


def by_trees(split: evaluation.Split, two_stage: TwoStageRecommender) -> Method:
    """LambdaRank of a two-stage recommender without the BasketGPT, neither as a channel nor in the score."""
    features = copy.copy(two_stage.features)
    features.snapshot = copy.copy(two_stage.snapshot)
    features.snapshot.model = None
    trees = LambdaRank(two_stage.ranker.trees, two_stage.ranker.names, two_stage.ranker.settings, features).with_gpt(0)

    def scores() -> np.ndarray:
        return trees.scores(ranking_examples(features, split, CANDIDATES), len(split.codes))

    def recommend(who: Shopper) -> np.ndarray:
        asked = features.snapshot.online([who])
        candidates = propose_candidates(features, asked, CANDIDATES)
        one = RankingExamples(candidates, features.table(asked, candidates), candidates >= 0)
        return top_ten(trees.scores(one, len(split.codes))[0])

    return Method(scores, recommend, [trees])


def by_blend(split: evaluation.Split, two_stage: TwoStageRecommender) -> Method:
    """The learned blend of LambdaRank and BasketGPT, as the recommender uses it."""
    everything = np.ones(len(split.codes), bool)

    def scores() -> np.ndarray:
        made = np.full(split.counts.shape, -np.inf)
        people = shoppers_at(split.receipts, split.shoppers.tolist(), split.cut)
        for row, who in enumerate(people):
            found = two_stage.find(who, None, everything)
            made[row, np.searchsorted(split.codes, found.codes)] = found.scores
        return made

    def recommend(who: Shopper) -> np.ndarray:
        return np.searchsorted(split.codes, two_stage.find(who, None, everything).codes[:K])

    return Method(scores, recommend, [two_stage.snapshot, two_stage.ranker])


def by_language(split: evaluation.Split, model: BasketGPT, rehearse: bool) -> Method:
    """The fine-tuned language model over text reranks the BasketGPT's best twenty; the rest keep their order."""
    words = workshop.vocabulary()
    untaught = GPTConfig(len(words), workshop.ANSWER_POSITIONS, 1, 1, 16)
    base = GPT(untaught, SEED) if rehearse else copy.deepcopy(workshop.assistant_base()[0].cpu())
    text = GPTRanker(base, words, AFTER_QUESTION, invariant=True)
    steps = dict(steps=4, evaluate_every=4) if rehearse else {}
    questions = training_lists.past_lists(split.receipts, 40 if rehearse else LISTS, seed=SEED)
    teach_ranker(text, questions, replace(RANKER_TRAINING, **steps))

    def reranked(who: Shopper, scores: np.ndarray) -> np.ndarray:
        best = rank(scores[None], SHOWN)[0]
        return best[np.argsort(-text.score(who, None, split.codes[best].tolist()), kind="stable")]

    def scores() -> np.ndarray:
        made = scores_at_cut(model, split)
        people = shoppers_at(split.receipts, split.shoppers.tolist(), split.cut)
        for row, who in enumerate(people):
            made[row, reranked(who, made[row])] = made[row].max() + np.arange(SHOWN, 0, -1)
        return made

    kept = [model.network, model.shop_features.latest(), text.model]
    return Method(scores, lambda who: reranked(who, model.score([who.history], who.when)[0])[:K], kept)


# --- Measuring ---------------------------------------------------------------------------------------------------


def megabytes(*things: object) -> float:
    """Memory of all arrays, tensors, indexes and trees in these objects, in MB, each counted once; without texts."""
    waiting, seen, sizes = list(things), {}, {}
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | type | ModuleType):
            continue
        seen[id(one)] = one  # while it is referenced, no other object has its id
        if isinstance(one, torch.Tensor):
            storage = one.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, np.ndarray):
            whole = one.base if isinstance(one.base, np.ndarray) else one
            sizes[whole.ctypes.data] = whole.nbytes if whole.dtype.kind not in "OUS" else 0
        elif hasattr(one, "model_to_string"):  # LightGBM's
            sizes[id(one)] = len(one.model_to_string())
        elif hasattr(one, "ntotal"):  # FAISS's
            sizes[id(one)] = 4 * one.ntotal * one.d
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        else:
            waiting += vars(one).values() if hasattr(one, "__dict__") else []
    return sum(sizes.values()) / 1e6


def timed_online(method: Method, people: list[Shopper]) -> tuple[float, list[np.ndarray]]:
    """The median milliseconds for one shopper, and all top-ten lists."""
    for who in people[:WARM_UP]:
        method.recommend(who)
    times, lists = [], []
    for who in people:
        start = time.perf_counter()
        lists.append(method.recommend(who))
        times.append(time.perf_counter() - start)
    return float(1e3 * np.median(times)), lists


def scoreboard(clean: pd.DataFrame, split: evaluation.Split, usual: bool, rehearse: bool) -> list[dict]:
    """All figures of all methods."""
    similarity = models.description_similarity(split)
    rows = np.sort(np.random.default_rng(SEED).permutation(len(split.shoppers))[: 10 if rehearse else TIMED])
    people = shoppers_at(split.receipts, split.shoppers[rows].tolist(), split.cut)
    tables, judged = [], {}
    for name, method in methods(clean, split, usual, rehearse):
        scores = method.scores()
        milliseconds, lists = timed_online(method, people)
        same = np.mean([set(a) == set(b) for a, b in zip(lists, rank(scores[rows], K), strict=True)])
        assert same >= LEAST_AGREEMENT, f"{name}: only {same:.0%} get the same top ten online as offline"
        best = evaluation.top_lists(scores, split, K)
        judged[name] = evaluation.judge(best, split, similarity)
        table = pd.concat([evaluation.summarise(judged[name]), evaluation.reach(best, len(split.codes))])
        costs = {"milliseconds a shopper": milliseconds, "megabytes kept": megabytes(*method.kept)}
        costs |= {"megabytes of weights": megabytes(*method.weights)} if method.weights else {}
        costs = pd.DataFrame([{"metric": metric, "value": value} for metric, value in costs.items()])
        tables.append(pd.concat([table[table["metric"].isin(METRICS)], costs]).assign(method=name))
        value = judged[name]["all", METRICS[0]].mean()
        print(f"{name:24} {value:.3f} {milliseconds:9.2f} ms {megabytes(*method.kept):8.1f} MB", flush=True)
    tables.append(evaluation.against_best(judged, METRICS[0]))
    return evaluation.result_rows(pd.concat(tables), split)


def methods(clean: pd.DataFrame, split: evaluation.Split, usual: bool, rehearse: bool):
    """Names and methods, in the order of the chapters; each is made when its turn comes."""
    texts = descriptions(clean)
    vectors = pd.DataFrame(encode(list(texts.values())), index=list(texts))
    counted = by_counting(split)
    yield from list(counted.items())[:2]
    mine = vectors.loc[split.codes].to_numpy()
    yield "text only", by_text(split, build_index(split.codes, mine), mine)
    yield from list(counted.items())[2:]
    if rehearse:
        model = student = BasketGPT.fit(split.receipts, HARDLY_TRAINED, progress=False)
    else:
        model, student = workshop.basket_gpt(split), workshop.student(split)
    yield "BasketGPT", by_gpt(model, split)
    ranker = fit_lambdarank(split.receipts, vectors, RecommenderConfig.tiny() if rehearse else RecommenderConfig())
    two_stage = TwoStageRecommender(split, model, ranker, student, vectors)
    yield "learned trees", by_trees(split, two_stage)
    yield "learned blend", by_blend(split, two_stage)
    if usual:
        yield "LLM reranker", by_language(split, model, rehearse)
    yield "student", by_gpt(student, split)
    for scheme in ("int8", "nf4"):
        yield f"student, {scheme}", by_gpt(in_bits(student, scheme), split)


def measured_scoreboard(arguments: argparse.Namespace) -> tuple[str, list[dict]]:
    """The suffix of the results' name, and the rows."""
    clean = workshop.cleaned().receipts
    usual = evaluation.default_cut(clean)
    split = evaluation.next_basket(clean, arguments.cut or usual)
    rows = scoreboard(clean, split, split.cut == usual, arguments.rehearse)
    return "" if split.cut == usual else f"_{split.cut:%Y-%m-%d}", rows


# --- Building and asking -----------------------------------------------------------------------------------------


def latency(arguments: argparse.Namespace) -> tuple[str, list[dict]]:
    """The suffix of the results' name, and the rows; each stage in a process of its own, to measure its memory."""
    rows = [{"method": "target", "metric": name, "value": value} for name, value in targets().items()]
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            words = [
                sys.executable,
                __file__,
                "latency",
                "--data",
                arguments.data,
                "--stage",
                stage,
                "--folder",
                folder,
            ]
            subprocess.run(words + ["--rehearse"] * arguments.rehearse, check=True)
            rows += json.loads((Path(folder) / f"{stage}.json").read_text(encoding="utf-8"))
    return "", rows


def targets() -> dict[str, float]:
    """The book's targets for its own two shops on two cores."""
    return {"seconds": 480 if workshop.embedded() else 1200, "p50": 50, "p50, explained": 500, "p99 over p50": 3}


def built(folder: Path, rehearse: bool) -> list[dict]:
    """Build from raw receipts and save: seconds per stage and in all, peak memory, size on disk."""
    raw = workshop.raw_receipts()
    start = time.perf_counter()
    made = Recommender.build(raw, RecommenderConfig.tiny() if rehearse else RecommenderConfig())
    figures = {"seconds": time.perf_counter() - start} | {f"seconds: {name}": s for name, s in made.seconds.items()}
    start = time.perf_counter()
    made.save(folder / SHOP)
    figures |= {"seconds to save": time.perf_counter() - start, "peak GB": peak()}
    size = sum(path.stat().st_size for path in (folder / SHOP).rglob("*") if path.is_file())
    return figure_rows("build", figures | {"MB on disk": size / 1e6})


def asked(folder: Path, rehearse: bool) -> list[dict]:
    """Load what `built` saved, and ask it: milliseconds by way of asking, the narratives, and the plain pipeline."""
    start = time.perf_counter()
    made = Recommender.load(folder / SHOP)
    rows = figure_rows("load", {"seconds": time.perf_counter() - start, "peak GB": peak()})
    narratives: list[tuple[Facts, Narrative]] = []
    record_narratives(made, narratives)
    customers = np.random.default_rng(SEED).choice(made.customers, 10 if rehearse else TIMED, replace=False).tolist()
    for name, options in ways(made, customers).items():
        for explain in (False, True) if name in EXPLAINED else (False,):
            narratives.clear()  # only the last explained way's stay
            method = f"{name}, explained" if explain else name
            options = [each | {"k": ASKED, "explain": explain, "seed": row} for row, each in enumerate(options)]
            rows += times(method, [partial(made.recommend, **each) for each in options])
            if explain:
                del narratives[: WARM_UP * ASKED]
                rows += narrative_rows(method, narratives, made)
    rows += plain_pipeline(made, customers, narratives)
    return rows + figure_rows("asking", {"peak GB": peak()})


def ways(made: Recommender, customers: list[int]) -> dict[str, list[dict]]:
    """Questions by way of asking: one per customer, per guest with a typed history, or per unknown shopper."""
    rng, catalogue = np.random.default_rng(SEED), made.catalogue
    wanted = catalogue["description"].sample(len(customers), random_state=SEED, replace=True).str.lower()
    typed = [rng.choice(made.two_stage.split.codes, rng.integers(1, 6), replace=False).tolist() for _ in customers]
    return {
        "nobody known": [{} for _ in customers],
        "typed history": [{"history": codes} for codes in typed],
        "customer and query": [{"customer": c, "query": q} for c, q in zip(customers, wanted, strict=True)],
        "customer, fast": [{"customer": customer, "fast": True} for customer in customers],
        "customer": [{"customer": customer} for customer in customers],
    }


def record_narratives(made: Recommender, narratives: list) -> None:
    """Record the narrator's facts and narratives in `narratives` as they are asked for."""
    tell = made.narrator.tell

    def recorded(facts: list[Facts], *rest: object) -> list[Narrative]:
        written = tell(facts, *rest)
        narratives.extend(zip(facts, written, strict=True))
        return written

    made.narrator.tell = recorded


def times(method: str, ask: list[Callable[[], object]]) -> list[dict]:
    """Milliseconds of the calls: percentiles, the maximum, and p99 over p50."""
    for call in ask[:WARM_UP]:
        call()
    taken = []
    for call in ask:
        start = time.perf_counter()
        call()
        taken.append(1e3 * (time.perf_counter() - start))
    p50, p95, p99 = np.percentile(taken, [50, 95, 99])
    figures = {"p50": p50, "p95": p95, "p99": p99, "max": max(taken), "p99 over p50": p99 / p50}
    print(f"{method:32} {p50:8.1f} ms, p99 {p99:8.1f} ms", flush=True)
    return figure_rows(method, figures, len(taken))


def narrative_rows(method: str, narratives: list[tuple[Facts, Narrative]], made: Recommender) -> list[dict]:
    """Of the narratives: shares sampled again and ended by rule, their claims by the checker, their tokens."""
    claims = [made.checker.claims(each.text, facts) for facts, each in narratives]
    every = [claim for each in claims for claim in each]
    figures = {"redrawn": np.mean([each.redrawn > 0 for _, each in narratives]), "claims": len(every) / len(narratives)}
    figures |= {"plainest": np.mean([each.plainest for _, each in narratives])}
    figures |= {"false claims": sum(not claim.true for claim in every)}
    figures |= {"tokens": np.mean([len(each.ids) for _, each in narratives])}
    return figure_rows(method, figures, len(narratives))


def plain_pipeline(made: Recommender, customers: list[int], narratives: list[tuple[Facts, Narrative]]) -> list[dict]:
    """The nearest products by text, and a library's generation of as many tokens from as large a model, five at a time.

    The prompts are the fact prompts that the narrator got for these customers; making them is not timed.
    """
    words, length = made.narrator.vocabulary, round(np.mean([len(each.ids) for _, each in narratives]))
    theirs = to_transformers(GPT(made.narrator.model.config, seed=SEED))
    bought = [[code for _, basket in made.fact_store.history(c) for code in basket] for c in customers]
    means = [made.vectors.loc[codes].to_numpy().mean(axis=0)[None] for codes in bought]
    fact_prompts = [encode_document(fact_prompt(facts), words) for facts, _ in narratives]
    prompts = [padded(fact_prompts[row : row + ASKED]) for row in range(0, len(fact_prompts), ASKED)]
    options = dict(max_new_tokens=length, do_sample=True, temperature=0.8, top_p=0.95, pad_token_id=0)

    def both(mean: np.ndarray, prompt: dict) -> None:
        search_index(made.two_stage.index, mean, ASKED)
        theirs.generate(**prompt, **options)

    torch.manual_seed(SEED)
    rows = times("FAISS on text alone", [partial(search_index, made.two_stage.index, mean, ASKED) for mean in means])
    rows += times(PLAIN, [partial(both, mean, prompt) for mean, prompt in zip(means, prompts, strict=True)])
    return rows + figure_rows(PLAIN, {"tokens": length})


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    """Prompts of one shopper in one batch, padded on the left."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def figure_rows(method: str, figures: dict[str, float], n: int | None = None) -> list[dict]:
    """Figures of one method as rows of the results."""
    rows = [{"method": method, "metric": name, "value": float(value)} for name, value in figures.items()]
    return rows if n is None else [row | {"n": n} for row in rows]


def peak() -> float:
    """Peak memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


STAGES = {"build": built, "ask": asked}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scoreboard", "latency"])
    parser.add_argument("--data", default="embedded", help="what RECBOOK_DATA takes, or embedded")
    parser.add_argument(
        "--cut", help="of the scoreboard: first day that is predicted (default: 30 days before the last)"
    )
    parser.add_argument("--rehearse", action="store_true", help="models that hardly learned, nothing written")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)  # of latency, in a process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data != "embedded":
        os.environ["RECBOOK_DATA"] = arguments.data
    torch.set_num_threads(1)
    threadpool_limits(1)
    if arguments.stage:
        rows = STAGES[arguments.stage](arguments.folder, arguments.rehearse)
        (arguments.folder / f"{arguments.stage}.json").write_text(json.dumps(rows), encoding="utf-8")
        return
    start = time.perf_counter()
    dated, rows = (measured_scoreboard if arguments.what == "scoreboard" else latency)(arguments)
    print(pd.DataFrame(rows).round(4).astype(object).fillna("").to_string(index=False))
    if not arguments.rehearse:
        keep(arguments, dated, rows, time.perf_counter() - start)


def keep(arguments: argparse.Namespace, dated: str, rows: list[dict], seconds: float) -> None:
    """Write the results."""
    data = describe_data(workshop.raw_receipts(), workshop.data_name())
    slug = results_files.slug(data["name"])
    command = f"python benchmarks/system.py {arguments.what} --data {'embedded' if workshop.embedded() else slug}"
    command += f" --cut {dated[1:]}" if dated else ""
    name = f"system_{arguments.what}_{slug}{dated}"
    path = save_results(name, rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
