"""The GPT as a language model that ranks, against what it should beat: one list of candidates, ranked in many ways.

    python benchmarks/llm_ranking.py --data online-retail

writes results/llm_ranking_<name of the data>.json in about ten minutes and 3 GB on two cores, once the base is there.
The candidates are the BasketGPT's best twenty for shoppers of the last month, and nothing that they bought is added; a
language model sees them in random order, and once in the BasketGPT's. All learning is from receipts before the cut.
`--data`: what `RECBOOK_DATA` takes, or `embedded`. `--model`: a causal language model of Hugging Face's, by name or
folder, that ranks too. `--rehearse`: few steps and shoppers, nothing written.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from recbook.baselines import evaluation, intervals, metrics
from recbook.baselines.results import describe_data, save_results, slug
from recbook.baskets.model import scores_at_cut
from recbook.book import workshop
from recbook.cleaning import receipts as rc
from recbook.llm_ranking import prompts, training_lists
from recbook.llm_ranking.gpt_ranker import (
    AFTER_LIST,
    AFTER_QUESTION,
    RANKER_TRAINING,
    GPTRanker,
    order_sensitivity,
    permuted_scores,
    rank_by_place,
    teach_ranker,
)
from recbook.ranking.rankers import Ranker, Shopper, shoppers_at

K, CANDIDATES, SHOPPERS, SEED = 10, 20, 200, 0
PERMUTED = 50  # shoppers whose lists are shown in several orders
LEARNED = 3000  # training lists
TEXT = {  # name -> reading, invariant
    "first token": (AFTER_LIST, False), "first token, invariant": (AFTER_LIST, True),
    "yes or no": (AFTER_QUESTION, False), "yes or no, invariant": (AFTER_QUESTION, True),
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """Who is judged, and on what."""

    split: evaluation.Split
    shoppers: list[Shopper]
    candidates: np.ndarray  # (shoppers, CANDIDATES) columns, best first by the BasketGPT
    bought: np.ndarray  # (shoppers, CANDIDATES) bool
    targets: np.ndarray  # (shoppers,) products in the next basket

    def codes(self, row: int, order: np.ndarray) -> list[str]:
        """A shopper's candidates in an order of their places."""
        return self.split.codes[self.candidates[row, order]].tolist()


def task(number: int) -> Task:
    """Shoppers of the split at the default cut, `number` of them at most, and their candidates."""
    receipts = workshop.cleaned().receipts
    split = evaluation.next_basket(receipts, evaluation.default_cut(receipts))
    rows = np.sort(np.random.default_rng(SEED).permutation(len(split.shoppers))[:number])
    candidates = metrics.rank(scores_at_cut(workshop.basket_gpt(), split)[rows], CANDIDATES)
    targets = split.targets[rows].toarray()
    shoppers = shoppers_at(split.receipts, split.shoppers[rows].tolist(), split.cut)
    return Task(split, shoppers, candidates, np.take_along_axis(targets, candidates, axis=1), targets.sum(axis=1))


def ndcg(task: Task, scores: np.ndarray) -> np.ndarray:
    """NDCG@10 of every shopper, from scores (shoppers, CANDIDATES) of the candidates, best first."""
    return metrics.ndcg(np.take_along_axis(task.bought, metrics.rank(scores, K), axis=1), task.targets)


# --- Rankers -----------------------------------------------------------------------------------------------------


def simple(task: Task) -> dict[str, np.ndarray]:
    """Scores of the same candidates by methods without a model, and by the BasketGPT, which found them."""
    recent = task.split.receipts[task.split.receipts["date"] >= task.split.cut - pd.Timedelta(days=28)]
    sold = recent["code"].value_counts().reindex(task.split.codes, fill_value=0).to_numpy()[task.candidates]
    times = np.zeros(task.candidates.shape)
    for row, shopper in enumerate(task.shoppers):
        counts = {each.code: each.baskets for each in prompts.purchases(shopper)}
        times[row] = [counts.get(code, 0) for code in task.codes(row, np.arange(CANDIDATES))]
    order = np.tile(-np.arange(CANDIDATES, dtype=float), (len(task.shoppers), 1))
    by_chance = np.random.default_rng(SEED).random(order.shape)
    return {
        "by chance": by_chance, "sold in 28 days": sold, "personal frequency": times + sold / (1 + sold.max()),
        "BasketGPT": order,
    }  # fmt: skip


def asked(task: Task, ranker: Ranker, shuffled: bool) -> tuple[np.ndarray, float]:
    """Scores of all candidates, shown in random order or best first, and milliseconds a shopper."""
    rng, scores, start = np.random.default_rng(SEED), np.zeros(task.candidates.shape), time.perf_counter()
    for row, shopper in enumerate(task.shoppers):
        order = rng.permutation(CANDIDATES) if shuffled else np.arange(CANDIDATES)
        scores[row, order] = ranker.score(shopper, None, task.codes(row, order))
    return scores, 1000 * (time.perf_counter() - start) / len(task.shoppers)


def bias(task: Task, ranker: Ranker, shoppers: int) -> list[dict]:
    """Position bias: the order's share of the scores' variance, and the mean rank of what stands at each place."""
    shares, ranks = [], []
    for row, shopper in enumerate(task.shoppers[:shoppers]):
        codes = task.codes(row, np.arange(CANDIDATES))
        places, scores = permuted_scores(ranker, shopper, None, codes, CANDIDATES, seed=row)
        shares.append(order_sensitivity(scores))
        ranks.append(rank_by_place(places, scores))
    rows = [{"metric": "share of variance by order", "value": float(np.mean(shares)), "n": len(shares)}]
    means = np.mean(ranks, axis=0)
    return rows + [{"metric": f"rank at place {place + 1}", "value": float(mean)} for place, mean in enumerate(means)]


# --- Measuring ---------------------------------------------------------------------------------------------------


def measure(rehearse: bool, model: str | None) -> list[dict]:
    """Every row of the results."""
    judged, permuted = (
        task(12 if rehearse else 10_000 if workshop.embedded() else SHOPPERS),
        4 if rehearse else PERMUTED,
    )
    rows, best = [], ndcg(judged, simple(judged)["BasketGPT"])

    def add(method: str, values: np.ndarray, more: list[dict] = (), metric: str = "ndcg@10") -> None:
        value, low, high = (float(each[0]) for each in intervals.bootstrap(values[:, None]))
        figures = [{"metric": metric, "value": value, "low": low, "high": high, "n": int((~np.isnan(values)).sum())}]
        if metric == "ndcg@10" and method != "BasketGPT":
            value_less, *rest = (float(each) for each in intervals.paired(values, best))
            less = {"metric": "ndcg@10 against BasketGPT", "value": value_less}
            figures.append(less | dict(zip(("low", "high", "p", "n"), rest, strict=True)))
        rows.extend({"method": method} | row for row in [*figures, *more])
        print(f"{method:40} {metric:24} {value:.3f} ({low:.3f} to {high:.3f})", flush=True)

    def add_ranker(method: str, ranker: Ranker) -> None:
        scores, milliseconds = asked(judged, ranker, shuffled=True)
        costs = [{"metric": "milliseconds a shopper", "value": milliseconds}]
        add(method, ndcg(judged, scores), costs + bias(judged, ranker, permuted))
        add(method, ndcg(judged, asked(judged, ranker, shuffled=False)[0]), metric="ndcg@10, shown best first")

    for method, scores in simple(judged).items():
        add(method, ndcg(judged, scores))
    text_rankers(judged, rehearse, add_ranker)
    if model:
        other_rankers(judged, model, add_ranker)
    found = judged.bought.sum(axis=1) / np.minimum(judged.targets, CANDIDATES)
    sizes = {
        "shoppers": len(judged.shoppers),
        "candidates": CANDIDATES,
        "share of targets among candidates": found.mean(),
    }
    return rows + [{"method": "task", "metric": name, "value": float(value)} for name, value in sizes.items()]


def text_rankers(judged: Task, rehearse: bool, add: Callable[[str, Ranker], None]) -> None:
    """Our GPT, with each reading: zero-shot, and with an adapter fine-tuned on lists of the past."""
    base, vocabulary = workshop.assistant_base()[0].cpu(), workshop.vocabulary()
    add("zero-shot, yes or no, pointwise", GPTRanker(base, vocabulary, AFTER_QUESTION, pointwise=True))
    lists = training_lists.past_lists(judged.split.receipts, 40 if rehearse else LEARNED, seed=SEED)
    steps = dict(steps=4, evaluate_every=4) if rehearse else {}
    for name, (reading, invariant) in TEXT.items():
        add(f"zero-shot, {name}", GPTRanker(base, vocabulary, reading, invariant))
        tuned = GPTRanker(copy.deepcopy(base), vocabulary, reading, invariant)
        start = time.perf_counter()
        teach_ranker(tuned, lists, replace(RANKER_TRAINING, **steps))
        print(f"fine-tuned in {time.perf_counter() - start:.0f} seconds")
        add(f"tuned, {name}", tuned)
    pointwise = GPTRanker(tuned.model, vocabulary, AFTER_QUESTION, pointwise=True)
    add("tuned, yes or no, pointwise", pointwise)  # a prompt per candidate, in which more of the history fits


def other_rankers(judged: Task, name: str, add: Callable[[str, Ranker], None]) -> None:
    """A model of Hugging Face's, zero-shot."""
    from recbook.llm_ranking.hf_ranker import ListwiseRanker, PointwiseRanker, load_causal_lm

    model, names = load_causal_lm(name), rc.descriptions(judged.split.receipts)
    add(f"{name}, yes or no, pointwise", PointwiseRanker(model, names))
    for rotations in (1, 4):
        add(f"{name}, first token, {rotations} rotations", ListwiseRanker(model, names, rotations))


def main() -> None:
    """Measure, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded", help="what RECBOOK_DATA takes, or embedded")
    parser.add_argument("--model", help="a causal language model that ranks too, by name or folder")
    parser.add_argument("--rehearse", action="store_true", help="few steps and shoppers, nothing written")
    arguments = parser.parse_args()
    if arguments.data != "embedded":
        os.environ["RECBOOK_DATA"] = arguments.data
    start = time.perf_counter()
    rows = measure(arguments.rehearse, arguments.model)
    if arguments.rehearse:
        return
    source = "embedded shop" if arguments.data == "embedded" else arguments.data
    data = describe_data(workshop.raw_receipts(), source)
    name = slug(data["name"])
    command = f"python benchmarks/llm_ranking.py --data {'embedded' if arguments.data == 'embedded' else name}"
    command += f" --model {arguments.model}" if arguments.model else ""
    seconds = time.perf_counter() - start
    path = save_results(f"llm_ranking_{name}", rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
