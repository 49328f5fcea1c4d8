"""How like a real shop is the embedded one? Both laid side by side: facts of the log, and the order of the baselines.

    python benchmarks/shop_fidelity.py --real data.csv.gz

writes results/shop_fidelity.json. `--real` takes what `RECBOOK_DATA` takes: a path, or `online-retail` to download it.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from recbook.baselines import evaluation, models
from recbook.baselines.results import describe_data, save_results
from recbook.cleaning import receipts, shop
from recbook.cleaning.load import load_receipts


def facts(raw: pd.DataFrame, cleaned: receipts.Cleaned) -> dict[str, float]:
    """The facts of a log that its simulation has to share; shares are of lines unless they say otherwise."""
    clean = cleaned.receipts
    visits = clean.groupby("customer")["invoice"].nunique()
    distinct = clean.groupby("invoice")["code"].nunique()
    months = clean["date"].dt.strftime("%Y-%m")
    per_month = clean.groupby(months)["invoice"].nunique()
    return {
        "lines": len(raw),
        "share without customer": raw["CustomerID"].isna().mean(),
        "share on cancelled invoices": raw["InvoiceNo"].str.startswith("C").mean(),
        "share without description": raw["Description"].isna().mean(),
        "share of exact duplicates": raw.duplicated().mean(),
        "share kept by cleaning": len(clean) / len(raw),
        "median products a basket": distinct.median(),
        "mean products a basket": distinct.mean(),
        "median invoices a customer": visits.median(),
        "share of customers with one invoice": (visits == 1).mean(),
        "mean invoices a customer": visits.mean(),
        "lines a product": len(clean) / clean["code"].nunique(),
        "repeat share of a next basket, August": repeat_share(clean, "2011-08-01"),
        "repeat share of a next basket, November": repeat_share(clean, "2011-11-01"),
        "November to February, invoices": per_month["2011-11"] / per_month["2011-02"],
        "share of lines in September to November new since August": new_share(clean, "2011-09-01", "2011-12-01"),
        "share of shoppers back within a month of the last cut": back(clean, evaluation.default_cut(clean)),
        "Gini of products' lines": gini(clean["code"].value_counts().to_numpy()),
    }


def repeat_share(clean: pd.DataFrame, cut: str) -> float:
    """Mean share of a shopper's first basket after `cut` that the shopper had bought before."""
    split = evaluation.next_basket(clean, cut, min_shoppers=1)
    again = split.targets.multiply(split.counts > 0).sum(axis=1)
    return float(np.mean(again / split.targets.sum(axis=1)))


def new_share(clean: pd.DataFrame, start: str, end: str) -> float:
    """Share of the lines between two dates that sell a product never sold before the first date."""
    lines = clean[clean["date"].between(start, end)]
    return float((~lines["code"].isin(clean.loc[clean["date"] < start, "code"].unique())).mean())


def back(clean: pd.DataFrame, cut: pd.Timestamp) -> float:
    """Share of all shoppers known before `cut` who bought after it."""
    known = clean.loc[clean["date"] < cut, "customer"].unique()
    return float(np.isin(known, clean.loc[clean["date"] >= cut, "customer"]).mean())


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of a list of counts: 0 all alike, near 1 all in one."""
    ordered = np.sort(counts)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * ordered.sum()))


def ranking(clean: pd.DataFrame) -> pd.DataFrame:
    """NDCG@10 of every baseline at the default cut, long form."""
    board = evaluation.scoreboard(evaluation.next_basket(clean, evaluation.default_cut(clean)), models.BASELINES)
    return board.loc[board["metric"] == "ndcg@10", ["method", "split", "metric", "value", "low", "high", "n"]]


def agreement(one: pd.DataFrame, other: pd.DataFrame, part: str) -> float:
    """Kendall's tau between two rankings of the methods on one part of the targets."""
    values = [board[board["split"] == part].set_index("method")["value"] for board in (one, other)]
    return float(kendalltau(values[0], values[1][values[0].index]).statistic)


def main() -> None:
    """Simulate, compare, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", default="online-retail", help="real receipts: a path, or online-retail")
    parser.add_argument("--seeds", type=int, default=5, help="how many shops to simulate for the spread of tau")
    arguments = parser.parse_args()
    start = time.perf_counter()
    raw = load_receipts(arguments.real)
    real = receipts.clean(raw)
    real_board = ranking(real.receipts)
    rows = [{"log": "Online Retail", "fact": fact, "value": value} for fact, value in facts(raw, real).items()]
    rows += real_board.assign(log="Online Retail").to_dict("records")
    taus = []
    for seed in range(arguments.seeds):
        began = time.perf_counter()
        simulated = shop.simulate(seed=seed).receipts
        seconds = time.perf_counter() - began
        cleaned = receipts.clean(simulated)
        board = ranking(cleaned.receipts)
        tau = {part: agreement(real_board, board, part) for part in ("all", "explore")}
        taus.append({"seed": seed, **tau})
        if seed == 0:
            found = facts(simulated, cleaned) | {"seconds to simulate": seconds}
            rows += [{"log": "embedded shop", "fact": fact, "value": value} for fact, value in found.items()]
            rows += board.assign(log="embedded shop").to_dict("records")
        rows += [
            {"log": "embedded shop", "seed": seed, "fact": f"Kendall's tau, {part}", "value": value}
            for part, value in tau.items()
        ]
    show(rows, taus)
    data = describe_data(raw, arguments.real)
    command = "python benchmarks/shop_fidelity.py"
    path = save_results("shop_fidelity", rows, command=command, data=data, seconds=time.perf_counter() - start)
    print(f"\nwritten: results/{path.name}")


def show(rows: list[dict], taus: list[dict]) -> None:
    """Print the facts side by side, then the baselines, then tau for each seed."""
    table = pd.DataFrame(rows)
    compared = table[table["fact"].notna() & table.get("seed", pd.Series(index=table.index)).isna()]
    print(compared.pivot(index="fact", columns="log", values="value").round(3).to_string(), "\n")
    boards = table[table["fact"].isna()]
    print(boards.pivot(index="method", columns=["split", "log"], values="value").round(3).to_string(), "\n")
    print("Kendall's tau of the baselines' order, by seed:\n" + pd.DataFrame(taus).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
