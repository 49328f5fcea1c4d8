"""What a student a fifth of the size keeps of its teacher, and what each part of the distillation adds.

    python benchmarks/distillation.py score --data online-retail
    python benchmarks/distillation.py steps --data embedded
    python benchmarks/distillation.py steps --data online-retail --cut 2011-10-09

`score` writes results/distillation_<name of the data>.json: the teacher (LambdaRank and the BasketGPT), the BasketGPT
alone, students with a teacher and without one, the same steps and seeds, three of them; in 8 and 4 bits; parameters,
bytes, milliseconds; where the teacher is wrong and the student right. `steps` writes
results/distillation_steps_<name>.json: one seed, other mixtures, temperatures, weights and labels. Both use the
BasketGPT of the cut, fitted if it is not kept: 6 minutes on two cores and the real log. The rest takes about 15 minutes
and 5 GB there, 3 minutes on the embedded shop. `--data embedded` is the default. `--rehearse`: models that have hardly
learned, nothing written.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbook.baselines import evaluation, intervals, metrics
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data, save_results
from recbook.baskets.model import BasketGPT, scores_at_cut
from recbook.baskets.network import BasketGPTConfig
from recbook.baskets.shop_features import ShopFeatures
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.distillation import labels
from recbook.distillation.student import BASKETS_DROPPED, STUDENT_CONFIG, DistillationConfig, count_features, distil
from recbook.embeddings.encoder import encode
from recbook.quantization.layers import quantize, quantized_schemes
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import LambdaRank, LambdaRankConfig, RankingExamples, ranking_examples
from recbook.ranking.rankers import shoppers_at
from recbook.system.build import RecommenderConfig, fit_lambdarank

K, METRIC, SEEDS = 10, "ndcg@10", (0, 1, 2)
TEACHER, GPT, TAUGHT, ALONE = "teacher", "BasketGPT", "student", "student without a teacher"
DROPOUT, OWN_DROPOUT = BasketGPTConfig().dropout, "student without a teacher, its own dropout"
MONTHS = 2  # past cuts that the trees learn from
LISTED, ONLINE = 200, 50  # candidates of an online request, shoppers whose requests are timed
SHOWN = 3  # shoppers for whom the student is right and the teacher wrong


class Shared(NamedTuple):
    """All that the students of a cut share."""

    split: evaluation.Split
    teacher: LambdaRank
    asked: RankingExamples
    made: dict[int, list[labels.Label]]  # by how many of the last baskets were left out
    shop_features: ShopFeatures
    seconds: dict[str, float]


def prepared(split: evaluation.Split, rehearse: bool, dropped: Sequence[int]) -> Shared:
    """The teacher, as of the cut, its labels, and the shop's features."""
    seconds, start = {}, time.perf_counter()

    def lap(name: str) -> None:
        nonlocal start
        seconds[name], start = time.perf_counter() - start, time.perf_counter()
        print(f"  {name}: {seconds[name]:.0f} seconds", flush=True)

    hardly = BasketGPTConfig(epochs=0.02)
    model = BasketGPT.fit(split.receipts, hardly) if rehearse else workshop.basket_gpt(split)
    lap("BasketGPT")
    texts = list(receipts.descriptions(split.receipts).values())
    vectors = pd.DataFrame(encode(texts), index=split.codes)
    trees = LambdaRankConfig(trees=5) if rehearse else LambdaRankConfig()
    ranker = fit_lambdarank(split.receipts, vectors, RecommenderConfig(trees=trees, months=MONTHS))
    features = CandidateFeatures(Snapshot(split, model, vectors.to_numpy()), split)
    ranker = LambdaRank(ranker.trees, ranker.names, ranker.settings, features)
    asked = ranking_examples(features, split)
    lap("trees")
    made = {number: labels.label_snapshot(ranker, features, dropped=number) for number in dropped}
    lap("labels")
    shop_features = count_features(split.receipts)
    lap("counts of the shop on every day")
    return Shared(split, ranker, asked, made, shop_features, seconds)


def taught(
    shared: Shared,
    how: DistillationConfig,
    seed: int,
    rehearse: bool,
    dropped: Sequence[int] = BASKETS_DROPPED,
    dropout: float = STUDENT_CONFIG.dropout,
) -> BasketGPT:
    """A student of one seed."""
    settings = replace(STUDENT_CONFIG, seed=seed, dropout=dropout, epochs=0.02 if rehearse else STUDENT_CONFIG.epochs)
    made = [label for number in dropped for label in shared.made[number]]
    return distil(shared.split.receipts, made, settings, how, shared.shop_features, progress=False)


def judged(scores: np.ndarray, split: evaluation.Split) -> pd.DataFrame:
    """NDCG of every shopper in each part."""
    return evaluation.evaluate(scores, split, K).loc[:, pd.IndexSlice[:, METRIC]]


def against(tables: dict[str, pd.DataFrame], name: str, other: str) -> list[dict]:
    """What one gains over another in each part, paired by shopper."""
    rows = []
    for part in evaluation.PARTS:
        change = intervals.paired(tables[name][part, METRIC].to_numpy(), tables[other][part, METRIC].to_numpy())
        row = {"method": name, "split": part, "metric": f"{METRIC} against {other}", "value": change.difference}
        rows.append(row | {"low": change.low, "high": change.high, "p": change.p_value, "n": change.n})
    return rows


def summed(tables: dict[str, pd.DataFrame]) -> list[dict]:
    """Means with intervals."""
    made = [evaluation.summarise(table).assign(method=name) for name, table in tables.items()]
    return pd.concat(made).to_dict("records")


# --- What a student keeps ----------------------------------------------------------------------------------------


def score(shared: Shared, rehearse: bool) -> list[dict]:
    """Teacher, BasketGPT, students with and without a teacher; sizes, times, and where they differ."""
    split, gpt = shared.split, shared.teacher.features.snapshot.model
    of_teacher = shared.teacher.scores(shared.asked, len(split.codes))
    tables = {TEACHER: judged(of_teacher, split), GPT: judged(scores_at_cut(gpt, split), split)}
    # Without a teacher, a student memorises its few baskets unless its dropout is larger: both are shown.
    kinds = {
        ALONE: (0.0, STUDENT_CONFIG.dropout),
        OWN_DROPOUT: (0.0, DROPOUT),
        TAUGHT: (DistillationConfig().alpha, STUDENT_CONFIG.dropout),
    }
    rows = []
    for name, (alpha, dropout) in kinds.items():
        student, tables[name], made = of_seeds(shared, name, DistillationConfig(alpha=alpha), dropout, rehearse)
        rows += made
    rows = summed(tables) + rows + kept(tables)
    for name, other in ((TAUGHT, ALONE), (TAUGHT, OWN_DROPOUT), (TAUGHT, TEACHER), (TAUGHT, GPT), (ALONE, TEACHER)):
        rows += against(tables, name, other)
    rows += in_bits(student, split) + sizes({GPT: gpt, TAUGHT: student})
    rows += [
        {"method": TEACHER, "metric": f"seconds: {name}", "value": value} for name, value in shared.seconds.items()
    ]
    rows += [{"method": TEACHER, "metric": "labels", "value": sum(map(len, shared.made.values()))}]
    return rows + times(shared, gpt, student) + apart(shared, of_teacher, student)


def of_seeds(
    shared: Shared, name: str, how: DistillationConfig, dropout: float, rehearse: bool
) -> tuple[BasketGPT, pd.DataFrame, list[dict]]:
    """The first seed's student, what each shopper gets on average over the seeds, and each seed's mean."""
    start = time.perf_counter()
    students = [taught(shared, how, seed, rehearse, dropout=dropout) for seed in SEEDS]
    seconds = (time.perf_counter() - start) / len(SEEDS)
    each = [judged(scores_at_cut(model, shared.split), shared.split) for model in students]
    rows = [{"method": name, "metric": "seconds to train", "value": seconds}]
    for seed, table in zip(SEEDS, each, strict=True):
        mean = table["all", METRIC].mean()
        rows.append({"method": name, "split": "all", "metric": METRIC, "seed": seed, "value": mean})
    return students[0], sum(each) / len(each), rows


def kept(tables: dict[str, pd.DataFrame]) -> list[dict]:
    """The share of the teacher's NDCG that each keeps, and the share of the gap that teaching closes."""
    mean = {name: table["all", METRIC].mean() for name, table in tables.items()}
    rows = [{"method": name, "metric": "share of the teacher", "value": mean[name] / mean[TEACHER]} for name in mean]
    for other in (ALONE, OWN_DROPOUT):
        closed = (mean[TAUGHT] - mean[other]) / (mean[TEACHER] - mean[other])
        rows.append({"method": TAUGHT, "metric": f"share of the gap closed from the {other}", "value": closed})
    return rows


def in_bits(student: BasketGPT, split: evaluation.Split) -> list[dict]:
    """The first seed's student in 8 and 4 bits, against itself in 32."""
    tables, rows = {TAUGHT: judged(scores_at_cut(student, split), split)}, []
    for scheme in ("int8", "nf4"):
        small = copy.deepcopy(student)
        quantize(small.network, scheme)
        name = f"{TAUGHT}, {scheme}"
        tables[name] = judged(scores_at_cut(small, split), split)
        rows += against(tables, name, TAUGHT) + sizes({name: small})
    return summed({name: table for name, table in tables.items() if name != TAUGHT}) + rows


def sizes(models: dict[str, BasketGPT]) -> list[dict]:
    """Parameters, and megabytes that their weights take; vectors of descriptions are none."""
    rows = []
    for name, model in models.items():
        held = sum(each.nbytes for each in [*model.network.parameters(), *model.network.buffers()])
        held -= model.network.text.nbytes
        rows.append({"method": name, "metric": "megabytes of weights", "value": held / 1e6})
        if not quantized_schemes(model.network):
            count = sum(each.numel() for each in model.network.parameters())
            rows.append({"method": name, "metric": "parameters", "value": count})
    return rows


def times(shared: Shared, gpt: BasketGPT, student: BasketGPT) -> list[dict]:
    """Milliseconds per shopper: online, one request at a time, and in batch, all at once."""
    split, codes = shared.split, shared.split.codes[:LISTED].tolist()
    some = shoppers_at(split.receipts, split.shoppers[:ONLINE].tolist(), split.cut)
    small = copy.deepcopy(student)
    quantize(small.network, "int8")
    models = {GPT: gpt, TAUGHT: student, f"{TAUGHT}, int8": small}
    online = {name: lambda one, model=model: model.score([one.history], one.when) for name, model in models.items()}
    online[TEACHER] = lambda one: shared.teacher.score(one, None, codes)
    batch = {name: lambda model=model: scores_at_cut(model, split) for name, model in models.items()}
    batch[TEACHER] = lambda: shared.teacher.scores(ranking_examples(shared.teacher.features, split), len(split.codes))
    rows, spent = [], {}
    for name, ask in online.items():
        spent[name] = float(np.median([taken(ask, one) for one in some]))
        rows.append({"method": name, "metric": "milliseconds at the counter", "value": spent[name]})
    for name, ask in batch.items():
        spent[name, "batch"] = min(taken(ask) for _ in range(2)) / len(split.shoppers)
        rows.append({"method": name, "metric": "milliseconds in batch", "value": spent[name, "batch"]})
    rows.append({"metric": "times as fast at the counter", "value": spent[TEACHER] / spent[TAUGHT]})
    rows.append({"metric": "times as fast in batch", "value": spent[TEACHER, "batch"] / spent[TAUGHT, "batch"]})
    return [{"method": TAUGHT} | row for row in rows]


def taken(ask: Callable, *arguments) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    ask(*arguments)
    return 1e3 * (time.perf_counter() - start)


def apart(shared: Shared, of_teacher: np.ndarray, student: BasketGPT) -> list[dict]:
    """Where one finds something of the next basket and the other nothing; a few shoppers for whom it is the student."""
    split, targets = shared.split, shared.split.targets.toarray()
    lists = [metrics.rank(scores, K) for scores in (of_teacher, scores_at_cut(student, split))]
    hits = [np.take_along_axis(targets, ranking, axis=1) for ranking in lists]
    teacher, own = (hit.any(axis=1) for hit in hits)
    overlap = np.mean([len(np.intersect1d(a, b)) for a, b in zip(*lists, strict=True)]) / K
    rows = [
        {"metric": "share: student right, teacher wrong", "value": (own & ~teacher).mean()},
        {"metric": "share: teacher right, student wrong", "value": (teacher & ~own).mean()},
        {"metric": "share: both wrong", "value": (~teacher & ~own).mean()},
        {"metric": "share of the list that both recommend", "value": overlap},
    ]
    names = np.array(list(receipts.descriptions(split.receipts).values()))
    most = np.argsort(-(hits[1].sum(axis=1) * (own & ~teacher)), kind="stable")[:SHOWN]
    for row in most[(own & ~teacher)[most]]:
        right = lists[1][row][hits[1][row]]
        found = {"found": "; ".join(names[right]), "teacher_first": "; ".join(names[lists[0][row][:3]])}
        before = int(split.counts[[row]].toarray()[0, right].sum())
        rows.append({"metric": "only the student", "value": len(right), "bought_before": before, **found})
    return [{"method": TAUGHT} | row for row in rows]


# --- What each part of the distillation adds ---------------------------------------------------------------------

STEPS: dict[str, tuple[DistillationConfig, Sequence[int]]] = {
    "without a teacher": (DistillationConfig(alpha=0), ()),
    "with a teacher": (DistillationConfig(), BASKETS_DROPPED),
    "labels alone": (DistillationConfig(alpha=1), BASKETS_DROPPED),
    "a quarter labels": (DistillationConfig(alpha=0.25), BASKETS_DROPPED),
    "half labels": (DistillationConfig(alpha=0.5), BASKETS_DROPPED),
    "the first recommendation alone": (DistillationConfig(kept=1), BASKETS_DROPPED),
    "half the temperature": (DistillationConfig(temperature=DistillationConfig().temperature / 2), BASKETS_DROPPED),
    "twice the temperature": (DistillationConfig(temperature=DistillationConfig().temperature * 2), BASKETS_DROPPED),
    "all labels alike": (DistillationConfig(confidence=0), BASKETS_DROPPED),
    "histories with one basket less": (DistillationConfig(), (1,)),
    "whole histories": (DistillationConfig(), (0,)),  # the judged questions are among them, with the teacher's answers
}


def steps(shared: Shared, rehearse: bool) -> list[dict]:
    """One seed of every variant, and what it gains over the student without a teacher."""
    tables = {TEACHER: judged(shared.teacher.scores(shared.asked, len(shared.split.codes)), shared.split)}
    for name, (how, dropped) in STEPS.items():
        model = taught(shared, how, SEEDS[0], rehearse, dropped)
        tables[name] = judged(scores_at_cut(model, shared.split), shared.split)
        print(f"  {name}: {tables[name]['all', METRIC].mean():.4f}", flush=True)
    first = next(iter(STEPS))
    return summed(tables) + [row for name in STEPS if name != first for row in against(tables, name, first)]


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["score", "steps"])
    parser.add_argument("--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)")
    parser.add_argument("--cut", help="first day that is predicted (default: 30 days before the last)")
    parser.add_argument("--rehearse", action="store_true", help="models that hardly learned, nothing written")
    arguments = parser.parse_args()
    start, embedded = time.perf_counter(), arguments.data == "embedded"
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = describe_data(raw, "embedded shop" if embedded else arguments.data)
    clean = receipts.clean(raw).receipts
    usual = evaluation.default_cut(clean)
    split = evaluation.next_basket(clean, arguments.cut or usual)
    wanted = (
        BASKETS_DROPPED
        if arguments.what == "score"
        else sorted({number for _, some in STEPS.values() for number in some})
    )
    shared = prepared(split, arguments.rehearse, wanted)
    made = (score if arguments.what == "score" else steps)(shared, arguments.rehearse)
    rows = evaluation.result_rows(pd.DataFrame(made), split)
    print(
        pd.DataFrame(rows)
        .drop(columns=["cut", "found", "teacher_first"], errors="ignore")
        .round(4)
        .astype(object)
        .fillna("")
        .to_string(index=False)
    )
    if arguments.rehearse:
        return
    slug, dated = results_files.slug(data["name"]), f" --cut {split.cut:%Y-%m-%d}" if split.cut != usual else ""
    command = f"python benchmarks/distillation.py {arguments.what} --data {'embedded' if embedded else slug}{dated}"
    kind = "distillation" if arguments.what == "score" else "distillation_steps"
    name = f"{kind}_{slug}" + dated.replace(" --cut ", "_")
    seconds = time.perf_counter() - start
    path = save_results(name, rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
