"""How far do recommenders that others made get? Peers, from their own packages, judged as our methods are.

    python benchmarks/peers.py --data online-retail
    python benchmarks/peers.py --data online-retail --cut 2011-10-09

writes results/peers_<name of the data>.json (with the date, for another cut than the usual one). The peers are ALS of
`implicit`, SASRec of RecTools and LambdaRank of LightGBM; benchmarks/peers/ holds how they are called. They run in
virtual environments of their own, made on the first run in the folder of artifacts. They see what was before the cut
only; what they give is a score for each shopper and product, which `evaluation` judges. `--rehearse`: tiny settings,
nothing written.

Settings were chosen on the cut 2011-10-09, those of ALS on 2011-09-09 too; above SETTINGS stands what was searched.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from recbook import storage
from recbook.baselines import evaluation, intervals, models
from recbook.baselines import results as results_files
from recbook.baselines.results import describe_data, save_results
from recbook.baskets.model import basket_gpt_scores
from recbook.baskets.network import BasketGPTConfig
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.cleaning.load import load_receipts

K, THREADS = 10, 2
METHODS = Path(__file__).resolve().parent / "peers" / "methods.py"
# Two environments: RecTools needs numpy below 2 and brings a fork of implicit under the same name.
PLAIN = ("numpy==2.4.6", "scipy==1.17.1", "pandas==2.3.3", "scikit-learn==1.8.0", "implicit==0.7.3", "lightgbm==4.6.0")
RECTOOLS = ("numpy==1.26.4", "scipy==1.15.3", "pandas==2.3.3", "torch==2.13.0", "pytorch-lightning==2.5.2")
RECTOOLS += ("RecTools[torch]==0.19.0",)
REQUIREMENTS = {"ALS": PLAIN, "SASRec": RECTOOLS, "LambdaRank": PLAIN}

# What was searched: NDCG@10 on all (/ repeat / explore) at the cut 2011-10-09.
# - ALS, 20 settings, also at 2011-09-09: factors 64 to 512, regularization 0.1 to 100, alpha 1 to 100, half-life 60 to
#   240 days, 7 to 30 iterations, one or two at a time. 256 factors, regularization 0.1: .221; 30: .259; kept (512):
#   .264 / .391 / .085.
# - SASRec, two runs, looked at after 3, 6, 9 and 12 epochs: log order, lr 0.001: .077, .105, .125, .131; shuffled
#   within each receipt, lr 0.003, kept: .076, .102, .150, .167 / .349 / .062, still rising.
# - LambdaRank: targets that are no candidates all kept while other such products were thinned to 5%: .151, as products
#   new to the shopper come first; thinned alike: .291, .296, .294 after 50, 100, 200 rounds. The best 300 and 15%, 200
#   rounds: .287; 15 leaves, 200 rounds: .295; targets of 60 days: .293; without one group of features or another: .291
#   to .296. Kept: .296 / .437 / .111.
SETTINGS = {
    "ALS": {"factors": 512, "regularization": 30, "alpha": 10, "iterations": 15, "half_life": 120},
    "SASRec": {
        "n_factors": 64,
        "n_blocks": 2,
        "n_heads": 2,
        "dropout_rate": 0.2,
        "session_max_len": 100,
        "lr": 3e-3,
        "batch_size": 64,
        "epochs": 12,
        "shuffle": True,
    },
    "LambdaRank": {
        "cuts": [30, 60, 90],  # days before the cut
        "negatives": {"best": 200, "share": 0.05},  # of each score the best, and a share of what is left
        "rounds": 100,
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_data_in_leaf": 100,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambdarank_truncation_level": 30,
    },
}
REHEARSAL = {
    "ALS": {"factors": 8, "iterations": 2},
    "SASRec": {"n_factors": 16, "session_max_len": 10, "epochs": 1},
    "LambdaRank": {"cuts": [30], "rounds": 10, "negatives": {"best": 20, "share": 0.01}},
}


def interpreter(requirements: tuple[str, ...]) -> Path:
    """The Python of an environment with these requirements, made if it is not there: whole, or not at all."""
    folder = storage.home() / "peers-venv" / storage.digest({"requirements": requirements, "python": sys.version})[:16]
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "requirements.txt"  # written last
    if not stamp.exists():
        print(f"making an environment of {', '.join(requirements)} in {folder} …", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text("\n".join(requirements) + "\n")
    return python


def hand_over(split: evaluation.Split, folder: Path) -> None:
    """Write what was before the cut, numbered: one line a product and invoice, the day 0 at the cut; who is judged."""
    lines = split.receipts.assign(date=split.receipts.groupby("invoice")["date"].transform("min"))
    lines = lines.sort_values("date", kind="stable")
    units = lines.groupby(["invoice", "code"])["quantity"].transform("sum")
    lines = lines.assign(units=units).drop_duplicates(["invoice", "code"])
    everybody = np.sort(lines["customer"].unique())
    known = receipts.descriptions(split.receipts)
    np.savez(
        folder / "receipts.npz",
        shopper=np.searchsorted(everybody, lines["customer"]),
        product=np.searchsorted(split.codes, lines["code"].to_numpy(str)),
        invoice=pd.factorize(lines["invoice"])[0],
        day=((lines["date"] - split.cut) / pd.Timedelta(days=1)).to_numpy(float),
        units=lines["units"].to_numpy(float),
        judged=np.searchsorted(everybody, split.shoppers),
        descriptions=np.array([known[code] for code in split.codes], dtype=str),
    )


def run(name: str, settings: dict, folder: Path, threads: int = THREADS) -> tuple[np.ndarray, float]:
    """A peer's scores (shoppers, products) and the seconds it took to learn and to score."""
    python = interpreter(REQUIREMENTS[name])
    (folder / f"{name}.json").write_text(json.dumps(settings | {"threads": threads}))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    command = [str(python), str(METHODS), name, str(folder)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | dict.fromkeys(names, str(threads)), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed in {python}:\n{done.stderr[-3000:]}")
    return np.load(folder / f"{name}.npy", allow_pickle=False), float((folder / f"{name}.seconds").read_text())


def judge_all(split: evaluation.Split, settings: dict[str, dict], ours: BasketGPTConfig) -> pd.DataFrame:
    """Every peer and our GPT on the split, with paired differences: the columns of `evaluation.scoreboard`."""
    blend = evaluation.evaluate(models.blend(split), split, K)
    gpt = evaluation.evaluate(basket_gpt_scores(split, ours), split, K)
    tables = [pd.concat([evaluation.summarise(gpt), against(gpt, blend, "blend")]).assign(method="BasketGPT")]
    with tempfile.TemporaryDirectory() as folder:
        hand_over(split, Path(folder))
        for name, chosen in settings.items():
            print(f"  {name} …", flush=True)
            scores, seconds = run(name, chosen, Path(folder))
            lists = evaluation.top_lists(scores, split, K)
            judged = evaluation.judge(lists, split)
            took = {"split": "all", "metric": "seconds", "value": seconds, "settings": words(chosen)}
            table = [evaluation.summarise(judged), evaluation.reach(lists, len(split.codes)), pd.DataFrame([took])]
            tables.append(pd.concat([*table, against(judged, blend, "blend")]).assign(method=name))
            tables.append(against(gpt, judged, name).assign(method="BasketGPT"))
    board = pd.concat(tables, ignore_index=True)
    return board.assign(n=board["n"].fillna(len(split.shoppers)).astype(int))


def against(judged: pd.DataFrame, other: pd.DataFrame, name: str) -> pd.DataFrame:
    """One method minus the `other` called `name`, paired, in each part."""
    rows, metric = [], f"ndcg@{K}"
    for part in evaluation.PARTS:
        change = intervals.paired(judged[part, metric].to_numpy(), other[part, metric].to_numpy())
        row = {"split": part, "metric": f"{metric} against {name}", "value": change.difference}
        rows.append(row | {"low": change.low, "high": change.high, "p": change.p_value, "n": change.n})
    return pd.DataFrame(rows)


def words(settings: dict) -> str:
    """Settings in a line."""
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def show(board: pd.DataFrame) -> None:
    """The headline figures, and what they are against the blend, as a table to read."""
    cells = board[board["metric"].str.startswith("ndcg") | (board["metric"] == "seconds")]
    text = [f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in cells.itertuples()]
    cells = cells.assign(text=np.where(cells["metric"] == "seconds", cells["value"].map("{:.0f}".format), text))
    print(cells.pivot(index="method", columns=["metric", "split"], values="text").T.to_string())


def main() -> None:
    """Run the peers, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="online-retail", help="receipts: a path, online-retail (default), or embedded"
    )
    parser.add_argument("--cut", help="first day that is predicted (default: 30 days before the last)")
    parser.add_argument("--rehearse", action="store_true", help="tiny settings, nothing written")
    arguments = parser.parse_args()
    start = time.perf_counter()
    embedded = arguments.data == "embedded"
    raw = workshop.the_shop().receipts if embedded else load_receipts(arguments.data)
    data = describe_data(raw, "embedded shop" if embedded else arguments.data)
    clean = receipts.clean(raw).receipts
    usual = evaluation.default_cut(clean)
    split = evaluation.next_basket(clean, arguments.cut or usual)
    print(f"{data['name']}, cut {split.cut:%Y-%m-%d}: {len(split.shoppers):,} shoppers, {len(split.codes):,} products")
    extra = REHEARSAL if arguments.rehearse else dict.fromkeys(SETTINGS, {})
    ours = BasketGPTConfig(epochs=0.02) if arguments.rehearse else BasketGPTConfig()
    board = judge_all(split, {name: settings | extra[name] for name, settings in SETTINGS.items()}, ours)
    show(board)
    if arguments.rehearse:
        return
    slug, other = results_files.slug(data["name"]), split.cut != usual
    command = f"python benchmarks/peers.py --data {'embedded' if embedded else slug}"
    command += f" --cut {split.cut:%Y-%m-%d}" if other else ""
    name = f"peers_{slug}" + (f"_{split.cut:%Y-%m-%d}" if other else "")
    rows, seconds = evaluation.result_rows(board, split), time.perf_counter() - start
    path = save_results(name, rows, command=command, data=data, seconds=seconds)
    print(f"\nwritten: results/{path.name}, after {seconds:.0f} seconds")


if __name__ == "__main__":
    main()
