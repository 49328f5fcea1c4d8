"""The peers, each from its own package, run by benchmarks/peers.py in an environment that has that package.

    python benchmarks/peers/methods.py NAME FOLDER

reads FOLDER/receipts.npz (what was before the cut) and FOLDER/NAME.json (settings), writes FOLDER/NAME.npy, the scores
(judged shoppers, products) float32, and FOLDER/NAME.seconds. Needs neither recbook nor what it needs.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

SEED = 0


def als(lines: pd.DataFrame, judged: np.ndarray, descriptions: np.ndarray, settings: dict) -> np.ndarray:
    """Alternating least squares of `implicit`: a purchase counts 1 at the cut, halved every `half_life` days."""
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse

    settings = dict(settings)
    weights = (0.5 ** (-lines["day"] / settings.pop("half_life"))).to_numpy(np.float32)
    shape = (lines["shopper"].max() + 1, len(descriptions))
    counts = sparse.csr_matrix((weights, (lines["shopper"], lines["product"])), shape=shape)
    threads = settings.pop("threads")
    model = AlternatingLeastSquares(**settings, num_threads=threads, random_state=SEED, use_gpu=False)
    model.fit(counts, show_progress=False)
    return model.user_factors[judged] @ model.item_factors.T


def sasrec(lines: pd.DataFrame, judged: np.ndarray, descriptions: np.ndarray, settings: dict) -> np.ndarray:
    """SASRec of RecTools, softmax over the catalogue: each receipt's lines in the order of the till, or shuffled."""
    import torch
    from pytorch_lightning import seed_everything
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    settings = dict(settings)
    torch.set_num_threads(settings.pop("threads"))
    seed_everything(SEED)
    if settings.pop("shuffle"):
        lines = lines.sample(frac=1, random_state=SEED).sort_values("invoice", kind="stable")
    lines = lines.sort_values(["shopper", "day", "invoice"], kind="stable")
    seconds = pd.Timestamp("2000-01-01") + pd.to_timedelta(np.arange(len(lines)), unit="s")  # keeps this order
    columns = {"user_id": lines["shopper"], "item_id": lines["product"], "weight": 1.0}
    data = Dataset.construct(pd.DataFrame(columns).assign(datetime=seconds))
    model = SASRecModel(**settings, loss="softmax", deterministic=True, recommend_torch_device="cpu")
    model.fit(data)
    found = model.recommend(users=judged, dataset=data, k=len(descriptions), filter_viewed=False)
    scores = np.full((judged.max() + 1, len(descriptions)), -np.inf, np.float32)
    scores[found["user_id"], found["item_id"]] = found["score"]
    return scores[judged]


def lambdarank(lines: pd.DataFrame, judged: np.ndarray, descriptions: np.ndarray, settings: dict) -> np.ndarray:
    """LambdaRank of LightGBM over the features of `features.py`: trained on the first baskets after earlier cuts."""
    import features
    import lightgbm

    settings = dict(settings)
    cuts, rounds, negatives = (settings.pop(name) for name in ("cuts", "rounds", "negatives"))
    shape = (lines["shopper"].max() + 1, len(descriptions))
    rng = np.random.default_rng(SEED)
    parts = []
    for days in cuts:
        known = features.moment(lines, -days, shape, descriptions)
        parts += [candidates(known, *group, negatives, rng) for group in first_baskets(lines, -days)]
    rows, labels, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    parameters = settings | {"objective": "lambdarank", "seed": SEED, "num_threads": settings["threads"], "verbose": -1}
    parameters.pop("threads")
    ranker = lightgbm.train(parameters, lightgbm.Dataset(rows, labels, group=sizes), rounds)
    known = features.moment(lines, 0, shape, descriptions)
    scores = []
    for some in np.array_split(judged, max(len(judged) // 100, 1)):
        table = features.tables(known, some)
        scores.append(ranker.predict(table.reshape(-1, table.shape[2])).reshape(table.shape[:2]))
    return np.concatenate(scores)


def first_baskets(lines: pd.DataFrame, cut: float, days: float = 30, together: int = 100) -> list[tuple]:
    """The first basket in the `days` after the cut of all who bought before it: (shoppers, their targets) in groups."""
    after = lines[(lines["day"] >= cut) & (lines["day"] < cut + days)]
    after = after[after["shopper"].isin(lines.loc[lines["day"] < cut, "shopper"])]
    after = after.sort_values(["day", "invoice"], kind="stable")
    after = after[after["invoice"] == after.groupby("shopper")["invoice"].transform("first")]
    shoppers = np.sort(after["shopper"].unique())
    targets = np.zeros((len(shoppers), lines["product"].max() + 1), bool)
    targets[np.searchsorted(shoppers, after["shopper"]), after["product"]] = True
    return [(shoppers[i : i + together], targets[i : i + together]) for i in range(0, len(shoppers), together)]


def candidates(known, shoppers: np.ndarray, targets: np.ndarray, negatives: dict, rng: np.random.Generator) -> tuple:
    """Rows to learn from: what was bought before, the best by popularity, EASE and kNN, targets, some of the rest."""
    import features

    table = features.tables(known, shoppers)
    best = negatives["best"]
    near = (known.pairs[-1][shoppers].toarray() > 0) | (rng.random(targets.shape) < negatives["share"])
    popular = np.broadcast_to(known.trend, targets.shape)
    for score in (popular, *(np.asarray(left[shoppers] @ right) for left, right in known.linear[:3:2])):
        near |= score >= np.partition(score, -best, axis=1)[:, -best, None]
    near &= known.sold
    near &= (near & targets).any(axis=1)[:, None]
    return table[near], targets[near].astype(np.int8), near.sum(axis=1)[near.any(axis=1)]


PEERS = {"ALS": als, "SASRec": sasrec, "LambdaRank": lambdarank}


def main() -> None:
    """Run one peer on what was before the cut."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with np.load(arguments.folder / "receipts.npz", allow_pickle=False) as stored:
        given = {name: stored[name] for name in stored.files}
    judged, descriptions = given.pop("judged"), given.pop("descriptions")
    settings = json.loads((arguments.folder / f"{arguments.name}.json").read_text())
    start = time.perf_counter()
    scores = PEERS[arguments.name](pd.DataFrame(given), judged, descriptions, settings)
    (arguments.folder / f"{arguments.name}.seconds").write_text(str(time.perf_counter() - start))
    np.save(arguments.folder / f"{arguments.name}.npy", scores.astype(np.float32))


if __name__ == "__main__":
    main()
