"""Candidate recall by channel, and what LambdaRank gains from the GPT: on the embedded shop, on a real log.

    python benchmarks/ranking.py channels --data online-retail
    python benchmarks/ranking.py blend --data online-retail

`channels` writes results/channels_<name of the data>.json: the recall of every channel and of their round-robin
interleaving. `blend` writes results/ranking_<name of the data>.json: LightGBM's LambdaRank without the BasketGPT's
score, with it added (score blending), and with it as a feature; the BasketGPT alone; the formula blend; paired. Both
fit a BasketGPT at the judged cut, `blend` also one at each of the earlier cuts that it learns from, unless they are
kept from an earlier run: about 5 minutes and 3 GB each on two cores and the real log, half a minute on the embedded
shop. `--data embedded` is the default. `--rehearse`: models that have hardly learned, nothing written.
"""

import argparse
import time

import numpy as np
import pandas as pd

from recbook.baselines import evaluation, intervals, metrics, models
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data, save_results
from recbook.baskets.model import BasketGPT, scores_at_cut
from recbook.baskets.network import BasketGPTConfig
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.embeddings.encoder import encode
from recbook.lora import instructions
from recbook.ranking.candidates import Snapshot, candidate_recall, interleave
from recbook.ranking.features import GPT_FEATURES, STEADY_FEATURES, CandidateFeatures
from recbook.ranking.lambdarank import LambdaRank, LambdaRankConfig, RankingExamples, ranking_examples
from recbook.ranking.rankers import shoppers_at

K, SEED, METRIC = 10, 0, "ndcg@10"
SIZES, LONGEST = (50, 100, 200), 200
MONTHS = 2  # cuts that the ranker learns from, a month apart
FEWER = 2  # trees that read the GPT need fewer: half as many did best on earlier cuts
REQUESTS = 4000  # that are written, of which each shopper gets one about a product of their next basket
WITHOUT, WITH, AS_FEATURE = "learned blend", "learned blend and the GPT", "learned blend that reads the GPT"
ALONE, FORMULA = "BasketGPT", "blend"
HARDLY = BasketGPTConfig(epochs=0.02)


def fitted(split: evaluation.Split, rehearse: bool) -> BasketGPT:
    """The BasketGPT of a split, kept from one run to the next."""
    return BasketGPT.fit(split.receipts, HARDLY) if rehearse else workshop.basket_gpt(split)


def summed(judged: dict[str, pd.DataFrame]) -> list[dict]:
    """Means with intervals of tables by method."""
    tables = [evaluation.summarise(table).assign(method=name) for name, table in judged.items()]
    return pd.concat(tables).to_dict("records")


def gain(judged: dict[str, pd.DataFrame], name: str, other: str, metric: str = METRIC) -> list[dict]:
    """What one method gains over another in each part, paired by shopper."""
    rows = []
    for part in evaluation.PARTS:
        change = intervals.paired(judged[name][part, metric].to_numpy(), judged[other][part, metric].to_numpy())
        row = {"method": name, "split": part, "metric": f"{metric} against {other}", "value": change.difference}
        rows.append(row | {"low": change.low, "high": change.high, "p": change.p_value, "n": change.n})
    return rows


# --- Candidates --------------------------------------------------------------------------------------------------


def channels(split: evaluation.Split, truth: pd.DataFrame | None, rehearse: bool) -> list[dict]:
    """Candidate recall of each channel at equal size, of all interleaved, and of a query where the truth has one."""
    snapshot = Snapshot(split, fitted(split, rehearse))
    asking = snapshot.offline(split)
    start = time.perf_counter()
    lists = snapshot.channels(asking, LONGEST, snapshot.gpt(asking))
    seconds = time.perf_counter() - start
    lists |= {"the blend's first": metrics.rank(models.blend(split), LONGEST)}
    lists |= {"all in turns": interleave([lists[name] for name in list(lists)[:-1]], LONGEST)}
    judged = {name: candidate_recall(ranking, split, SIZES) for name, ranking in lists.items()}
    rows = summed(judged)
    for size in SIZES:
        best = max(list(judged)[:-1], key=lambda name: judged[name]["all", f"recall@{size}"].mean())
        rows += gain(judged, "all in turns", best, f"recall@{size}")
    rows += [{"method": "all channels", "metric": "milliseconds a shopper", "value": 1e3 * seconds / len(asking.rows)}]
    return rows + (asked_for(split, snapshot, truth) if truth is not None else [])


def asked_for(split: evaluation.Split, snapshot: Snapshot, truth: pd.DataFrame) -> list[dict]:
    """Each shopper asks, in words, for one product of their next basket: is it among the candidates?

    The request tells the product's true colour, kind or occasion, which a search cannot know from a log: this measures
    the text channel where somebody says what they want, and the others on the same product, unsaid.
    """
    requests, wanted = described(split, truth)
    some = np.flatnonzero(wanted >= 0)
    asking = snapshot.offline(split)
    texts = [requests.get(row, "a gift") for row in range(len(split.shoppers))]
    lists = snapshot.channels(asking, LONGEST, snapshot.gpt(asking), texts)
    rows = []
    for name, ranking in lists.items():
        hit = ranking[some] == wanted[some, None]
        found = pd.DataFrame({("asked for", f"recall@{size}"): hit[:, :size].any(axis=1) * 1.0 for size in SIZES})
        rows += evaluation.summarise(found).assign(method=name).to_dict("records")
    return rows


def described(split: evaluation.Split, truth: pd.DataFrame) -> tuple[dict[int, str], np.ndarray]:
    """A request for each shopper that can be given one, by row, and the column of the product it is about, or -1."""
    table = instructions.goods_table(split.receipts, truth)
    written = instructions.write_instructions(table, REQUESTS, instructions.wording("held_out"), SEED)
    about: dict[str, list[str]] = {}
    for one in written:
        for code in one.picks:
            about.setdefault(code, []).append(one.request)
    rng, requests, wanted = np.random.default_rng(SEED), {}, np.full(len(split.shoppers), -1)
    for row in range(len(split.shoppers)):
        columns = rng.permutation(split.targets[row].indices)
        column = next((column for column in columns if split.codes[column] in about), None)
        if column is not None:
            requests[row], wanted[row] = str(rng.choice(about[split.codes[column]])), column
    return requests, wanted


# --- LambdaRank --------------------------------------------------------------------------------------------------


def blend(clean: pd.DataFrame, split: evaluation.Split, rehearse: bool) -> list[dict]:
    """LambdaRank without the GPT and with it, in two ways; the GPT alone; the formula; on the same shoppers."""
    known = clean[clean["date"] < split.cut]  # the next baskets of an earlier cut lie before the judged one
    pasts = [evaluation.next_basket(known, split.cut - pd.DateOffset(months=month)) for month in range(1, MONTHS + 1)]
    vectors = described_vectors(clean)
    past = [features_and_examples(one, vectors, fitted(one, rehearse))[1] for one in pasts]
    features, today = features_and_examples(split, vectors, fitted(split, rehearse))
    trees = 5 if rehearse else LambdaRankConfig().trees
    start = time.perf_counter()
    without = LambdaRank.fit(past, settings=LambdaRankConfig(trees=trees), features=features)
    seconds = time.perf_counter() - start
    fewer = LambdaRankConfig(trees=max(1, trees // FEWER))
    rankers = {WITHOUT: without, WITH: without.with_gpt()}
    rankers[AS_FEATURE] = LambdaRank.fit(past, STEADY_FEATURES + GPT_FEATURES, fewer, features)
    scores = {name: ranker.scores(today, len(split.codes)) for name, ranker in rankers.items()}
    scores |= {ALONE: scores_at_cut(features.snapshot.model, split), FORMULA: models.blend(split)}
    judged = {name: evaluation.evaluate(scored, split, K) for name, scored in scores.items()}
    rows = summed({name: table.loc[:, pd.IndexSlice[:, METRIC]] for name, table in judged.items()})
    for name in (WITH, AS_FEATURE, WITHOUT):
        rows += [row for other in (WITHOUT, ALONE, FORMULA) if other != name for row in gain(judged, name, other)]
    for name in (WITHOUT, AS_FEATURE):
        shares = list(rankers[name].importance().items())[:8]
        rows += [{"method": name, "metric": f"share of gain: {feature}", "value": share} for feature, share in shares]
    rows += [{"method": WITHOUT, "metric": "seconds to train", "value": seconds}]
    return rows + [
        {"method": WITH, "metric": "milliseconds a shopper", "value": online_milliseconds(rankers[WITH], split)}
    ]


def described_vectors(clean: pd.DataFrame) -> pd.DataFrame:
    """The vectors of all descriptions, a row a code: encoded once for all cuts."""
    texts = receipts.descriptions(clean)
    return pd.DataFrame(encode(list(texts.values())), index=list(texts))


def features_and_examples(
    split: evaluation.Split, vectors: pd.DataFrame, model: BasketGPT
) -> tuple[CandidateFeatures, RankingExamples]:
    """The features at a split's cut, and its shoppers with their candidates."""
    features = CandidateFeatures(Snapshot(split, model, vectors.loc[split.codes].to_numpy()), split)
    return features, ranking_examples(features, split)


def online_milliseconds(ranker: LambdaRank, split: evaluation.Split, number: int = 50) -> float:
    """The median time to score 200 candidates of one shopper, in milliseconds, the GPT's pass included."""
    times, codes = [], split.codes[:LONGEST].tolist()
    for shopper in shoppers_at(split.receipts, split.shoppers[:number].tolist(), split.cut):
        start = time.perf_counter()
        ranker.score(shopper, None, codes)
        times.append(time.perf_counter() - start)
    return float(1e3 * np.median(times))


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["channels", "blend"])
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
    if arguments.what == "channels":
        made = channels(split, workshop.the_shop().products if embedded else None, arguments.rehearse)
    else:
        made = blend(clean, split, arguments.rehearse)
    rows = evaluation.result_rows(pd.DataFrame(made), split)
    print(pd.DataFrame(rows).round(4).astype(object).fillna("").to_string(index=False))
    if arguments.rehearse:
        return
    slug, dated = results_files.slug(data["name"]), f" --cut {split.cut:%Y-%m-%d}" if split.cut != usual else ""
    command = f"python benchmarks/ranking.py {arguments.what} --data {'embedded' if embedded else slug}{dated}"
    kind = "channels" if arguments.what == "channels" else "ranking"
    name = f"{kind}_{slug}" + dated.replace(" --cut ", "_")
    seconds = time.perf_counter() - start
    path = save_results(name, rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
