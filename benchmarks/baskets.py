"""The GPT at the next basket: against the baselines, step by step, on products never sold, and on a larger shop.

    python benchmarks/baskets.py score --data online-retail
    python benchmarks/baskets.py steps --data online-retail --cut 2011-10-09 --epochs 2
    python benchmarks/baskets.py unsold --data online-retail --cut 2011-10-09 --epochs 3
    python benchmarks/baskets.py growth

Each writes results/baskets_<what>_<name of the data>.json, with the date for another cut than the usual one. On two
cores and the real log `score` takes about 5 minutes and 3 GB, `steps` 20, `unsold` 5; `growth` of the embedded shop 5
minutes and 8 GB. `--data embedded` is the default. `--rehearse`: a few steps of training, nothing written.
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from recbook.baselines import evaluation, intervals, metrics, models
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data, save_results
from recbook.baskets.log import interaction_log
from recbook.baskets.model import BasketGPT, basket_gpt_scores, scores_at_cut
from recbook.baskets.network import NETWORK_PARTS, BasketGPTConfig
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.training.config import TrainingConfig
from recbook.training.loop import train

K, SEED, METRIC = 10, 0, "ndcg@10"
OUT = 0.1  # share of the products that `unsold` keeps from the model
STEPS = 30  # of training that `growth` times
PARTS = {  # what each step of the chapter adds
    "sets": frozenset({"reading"}),
    "and a pointer": frozenset({"reading", "pointer"}),
    "and time": frozenset({"reading", "pointer", "time"}),
    "and text": frozenset({"reading", "pointer", "time", "text"}),
    "and what is bought together": NETWORK_PARTS,
}


def score(split: evaluation.Split, settings: BasketGPTConfig) -> list[dict]:
    """The GPT and every baseline, and what the GPT gains over each."""
    start = time.perf_counter()
    model = BasketGPT.fit(split.receipts, settings)
    measured = {"seconds to train": time.perf_counter() - start}
    judged = {"BasketGPT": evaluation.evaluate(scores_at_cut(model, split), split, K)}
    measured |= {"seconds": time.perf_counter() - start}
    measured |= {"parameters": sum(parameter.numel() for parameter in model.network.parameters())}
    rows = [{"method": "BasketGPT", "metric": metric, "value": value} for metric, value in measured.items()]
    for name, method in models.BASELINES.items():
        judged[name] = evaluation.evaluate(method(split), split, K)
        rows += gain(judged, "BasketGPT", name)
    return means(judged) + rows


def means(judged: dict[str, pd.DataFrame]) -> list[dict]:
    """Every method's NDCG in each part, with an interval."""
    accuracy = {name: table.loc[:, pd.IndexSlice[:, METRIC]] for name, table in judged.items()}
    return pd.concat([evaluation.summarise(table).assign(method=name) for name, table in accuracy.items()]).to_dict(
        "records"
    )


def gain(judged: dict[str, pd.DataFrame], name: str, other: str) -> list[dict]:
    """What one method gains over another in each part, paired by shopper."""
    rows = []
    for part in evaluation.PARTS:
        change = intervals.paired(judged[name][part, METRIC].to_numpy(), judged[other][part, METRIC].to_numpy())
        row = {"method": name, "split": part, "metric": f"{METRIC} against {other}", "value": change.difference}
        rows.append(row | {"low": change.low, "high": change.high, "p": change.p_value, "n": change.n})
    return rows


def steps(split: evaluation.Split, settings: BasketGPTConfig) -> list[dict]:
    """The chapter's steps from a plain GPT to the whole, each with what it gains over the step before."""
    judged, rows = {"next item": evaluation.evaluate(next_item(split, settings), split, K)}, []
    chosen = {name: replace(settings, parts=parts, repeats=1.0) for name, parts in PARTS.items()}
    for name, choice in (chosen | {"and repeats that count more": settings}).items():
        print(f"  {name} …", flush=True)
        before = list(judged)[-1]
        judged[name] = evaluation.evaluate(basket_gpt_scores(split, choice), split, K)
        rows += gain(judged, name, before)
    whole, without = list(judged)[-1], "the whole, but it does not read"
    blind = replace(settings, parts=NETWORK_PARTS - {"reading"})
    judged[without] = evaluation.evaluate(basket_gpt_scores(split, blind), split, K)
    rows += gain(judged, whole, without)
    judged["personal frequency"] = evaluation.evaluate(models.personal_frequency(split), split, K)
    return means(judged) + rows


class Stream:
    """Random windows of tokens, in the form that `train` reads."""

    def __init__(self, tokens: np.ndarray, context: int):
        """All shoppers' tokens in a row, (tokens,) int64."""
        self.tokens, self.context = torch.from_numpy(tokens), context

    def batch(self, step: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Windows and the tokens that follow: (size, context) each."""
        starts = np.random.default_rng([seed, step]).integers(0, len(self.tokens) - self.context, size)
        at = torch.from_numpy(starts)[:, None] + torch.arange(self.context)
        return self.tokens[at], self.tokens[at + 1]


def next_item(split: evaluation.Split, settings: BasketGPTConfig) -> np.ndarray:
    """A plain GPT on the same tokens, trained to say the next one, asked where the next basket opens."""
    s, (log, customer) = settings, interaction_log(split.receipts, split.codes)
    tokens, N = np.insert(log.items, log.starts[:-1], log.products), log.products
    model = GPT(GPTConfig(N + 1, s.context, s.layers, s.heads, s.width, dropout=0.1), seed=s.seed)
    count = int(np.ceil(s.epochs * len(tokens) / (s.batch * s.context)))
    recipe = TrainingConfig(
        steps=count, batch=s.batch, learning_rate=s.learning_rate, final=0.02, seed=s.seed, precision="float32",
        evaluate_every=count, save_every=count,
    )  # fmt: skip
    train(model, Stream(tokens, s.context), recipe)
    opening = log.starts[:-1] + np.arange(len(log.days))
    ends = np.append(opening[1:], len(tokens))
    made = []
    with torch.no_grad():
        model.eval()
        for shopper in split.shoppers:
            own = np.flatnonzero(customer == shopper)
            history = np.append(tokens[opening[own[0]] : ends[own[-1]]], N)[-s.context :]
            made.append(model(torch.from_numpy(history)[None])[0, -1, :N].numpy())
    return np.stack(made)


def unsold(split: evaluation.Split, settings: BasketGPTConfig) -> list[dict]:
    """A tenth of the products is kept from the model but for their descriptions, then ranked among themselves."""
    rng = np.random.default_rng(SEED)
    hidden = np.isin(np.arange(len(split.codes)), rng.permutation(len(split.codes))[: int(OUT * len(split.codes))])
    known = split.receipts[~split.receipts["code"].isin(split.codes[hidden])]
    judged = np.isin(split.shoppers, known["customer"])
    shoppers, targets = split.shoppers[judged], split.targets[judged].multiply(hidden).tocsr().astype(bool)
    counts = evaluation.count_invoices(known, shoppers, split.codes)
    part = evaluation.Split(split.cut, known, split.codes, shoppers, counts, targets)
    model = BasketGPT.fit(known, settings, products=receipts.descriptions(split.receipts))
    words = {"TF-IDF": models.description_vectors(split).toarray(), "MiniLM": model.shop_features.text}
    scores = {"BasketGPT": scores_at_cut(model, part), "chance": rng.random(counts.shape)}
    scores |= {f"text profile, {name}": (counts > 0) @ vectors @ vectors.T for name, vectors in words.items()}
    tables = {name: evaluation.evaluate(rank - 1e9 * ~hidden, part, K) for name, rank in scores.items()}
    rows = [row for row in means(tables) if row["split"] == "explore"]
    for name in list(tables)[1:]:
        rows += [row for row in gain(tables, "BasketGPT", name) if row["split"] == "explore"]
    among_all = hidden[metrics.rank(scores["BasketGPT"], K)].mean()
    rows.append({"method": "BasketGPT", "metric": "share of the lists of all products", "value": float(among_all)})
    return rows + [{"method": "products", "metric": "kept from the model", "value": int(hidden.sum())}]


def grown(clean: pd.DataFrame, shoppers: int, products: int) -> pd.DataFrame:
    """So many times the shoppers, as copies, and the products: a product's lines are dealt out to its variants."""
    copies = []
    for copy in range(shoppers):
        shift = copy * (int(clean["customer"].max()) + 1)
        copies.append(clean.assign(customer=clean["customer"] + shift, invoice=clean["invoice"] + f"-{copy}"))
    lines = pd.concat(copies, ignore_index=True)
    variant = np.random.default_rng(SEED).integers(0, products, len(lines)).astype(str)
    return lines.assign(code=lines["code"] + "V" + variant, description=lines["description"] + " " + variant)


def growth(clean: pd.DataFrame, settings: BasketGPTConfig) -> list[dict]:
    """Time and memory of a shop with ten times the shoppers, three times the products, and both."""
    rows = []
    for shoppers, products in ((1, 1), (1, 3), (10, 1), (10, 3)):
        lines = grown(clean, shoppers, products)
        count = lines.drop_duplicates(["invoice", "code"]).shape[0] + lines["invoice"].nunique()
        epoch = count / (settings.batch * settings.context)  # steps, about
        start = time.perf_counter()
        model = BasketGPT.fit(lines, replace(settings, epochs=STEPS / epoch), progress=False)
        whole, learned = time.perf_counter() - start, sum(figures["seconds"] for figures in model.metrics)
        measured = {
            "products": lines["code"].nunique(), "shoppers": lines["customer"].nunique(),
            "seconds to count": whole - learned, "seconds an epoch": learned * epoch / STEPS,
            "milliseconds an epoch and shopper": 1e3 * learned * epoch / STEPS / lines["customer"].nunique(),
            "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }  # fmt: skip
        print(f"  {shoppers} x shoppers, {products} x products: {measured}", flush=True)
        name = f"{shoppers}x shoppers, {products}x products"
        rows += [{"method": name, "metric": metric, "value": float(value)} for metric, value in measured.items()]
    return rows


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["score", "steps", "unsold", "growth"])
    parser.add_argument("--data", default="embedded", help="receipts: a path, online-retail, or embedded (default)")
    parser.add_argument("--cut", help="first day that is predicted (default: 30 days before the last)")
    parser.add_argument("--epochs", type=float, help="of training (default: the settings')")
    parser.add_argument("--rehearse", action="store_true", help="a few steps of training, nothing written")
    arguments = parser.parse_args()
    start, embedded = time.perf_counter(), arguments.data == "embedded"
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = describe_data(raw, "embedded shop" if embedded else arguments.data)
    clean = receipts.clean(raw).receipts
    usual = evaluation.default_cut(clean)
    split = evaluation.next_basket(clean, arguments.cut or usual)
    epochs = 0.02 if arguments.rehearse else arguments.epochs or BasketGPTConfig().epochs
    settings = BasketGPTConfig(epochs=epochs)
    if arguments.what == "growth":
        rows = growth(clean, settings)
    else:
        made = {"score": score, "steps": steps, "unsold": unsold}[arguments.what](split, settings)
        rows = evaluation.result_rows(pd.DataFrame(made), split)
    print(pd.DataFrame(rows).round(4).astype(object).fillna("").to_string(index=False))
    if arguments.rehearse:
        return
    slug, dated = results_files.slug(data["name"]), f" --cut {split.cut:%Y-%m-%d}" if split.cut != usual else ""
    command = f"python benchmarks/baskets.py {arguments.what} --data {'embedded' if embedded else slug}{dated}"
    command += f" --epochs {epochs:g}" if arguments.epochs else ""
    name = f"baskets_{arguments.what}_{slug}" + dated.replace(" --cut ", "_")
    seconds = time.perf_counter() - start
    path = save_results(name, rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
