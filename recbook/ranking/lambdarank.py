"""LambdaRank (LightGBM's LambdaMART) on the features of candidates, trained at cuts that lie in the past.

Every shopper of an earlier cut is one training list: their candidates, and which of them the next basket held. The
boosted trees learn an order, not a probability: each pair in the wrong order adds a gradient as large as the NDCG that
swapping the two would gain. Burges (2010), "From RankNet to LambdaRank to LambdaMART"; Ke et al. (2017), "LightGBM".

The BasketGPT can take part in two ways. Its scores can be features that the trees read; then every past cut needs a GPT
of its own. Or its log-probability is added to the trees' score (`LambdaRank.with_gpt`: score blending); that needs only
today's GPT.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbook import storage
from recbook.baselines.evaluation import Split
from recbook.ranking.candidates import Requests, interleave
from recbook.ranking.features import FEATURE_NAMES, GPT_FEATURES, STEADY_FEATURES, CandidateFeatures
from recbook.ranking.rankers import Shopper

RANKER_CONFIG, RANKER_TREES, RANKER_KIND = "ranker.json", "trees-{}.txt", "LambdaRank"
GPT_WEIGHT = 2.0  # of the BasketGPT's log-probability; chosen on the real log, cuts of September and October 2011
PER_CHANNEL = 200  # products that a channel proposes at most


@dataclass(frozen=True)
class LambdaRankConfig:
    """How a `LambdaRank` is trained and blended; chosen on the real log at cuts before November 2011."""

    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.05
    min_leaf_fraction: float = 0.002  # share of all candidates that a leaf holds at least
    feature_fraction: float = 0.4  # share of the features that a tree sees
    bagging_fraction: float = 0.8  # share of the candidates that a tree sees
    truncation: int = 40  # first places of a list; a pair counts if one of its two stands there
    averaged: int = 2  # ensembles of trees, each with another seed, whose scores are averaged
    gpt_weight: float = 0.0  # weight of the BasketGPT's log-probability beside the trees' score
    threads: int = 1  # fixed, because another number sums in another order
    seed: int = 0

    def lightgbm(self, seed: int, candidates: int) -> dict[str, Any]:
        """The same as LightGBM's parameters, for so many candidates in all."""
        return {
            "objective": "lambdarank", "learning_rate": self.learning_rate, "num_leaves": self.leaves,
            "min_data_in_leaf": max(1, round(self.min_leaf_fraction * candidates)),
            "feature_fraction": self.feature_fraction, "bagging_fraction": self.bagging_fraction, "bagging_freq": 1,
            "lambdarank_truncation_level": self.truncation,
            "num_threads": self.threads, "seed": seed, "deterministic": True, "force_row_wise": True, "verbose": -1,
        }  # fmt: skip


class RankingExamples(NamedTuple):
    """Shoppers of a split, their candidates, the candidates' features, and which of them the next basket held."""

    candidates: np.ndarray  # (n, c) int64 columns of the catalogue, padded with -1
    table: np.ndarray  # (n, c, len(FEATURE_NAMES)) float32
    targets: np.ndarray  # (n, c) bool


def ranking_examples(features: CandidateFeatures, split: Split, size: int = 400) -> RankingExamples:
    """The shoppers of a split with `size` candidates each, and the GPT's scores if the snapshot has a model."""
    requests = features.snapshot.offline(split)
    candidates = propose_candidates(features, requests, size)
    targets = np.take_along_axis(split.targets.toarray(), np.maximum(candidates, 0), axis=1) & (candidates >= 0)
    return RankingExamples(candidates, features.table(requests, candidates, features.snapshot.gpt(requests)), targets)


def propose_candidates(features: CandidateFeatures, requests: Requests, size: int) -> np.ndarray:
    """The candidates of each request, from the channels by round-robin: (n, size) columns, padded with -1.

    The BasketGPT proposes none, so that rankers with its scores and without them order the same products.
    """
    return interleave(list(features.snapshot.channels(requests, PER_CHANNEL).values()), size)


class LambdaRank:
    """Boosted trees that score candidates by their features: `LambdaRank.fit(examples of earlier cuts, names)`."""

    def __init__(
        self,
        trees: Sequence[Any],
        names: Sequence[str],
        settings: LambdaRankConfig,
        features: CandidateFeatures | None = None,
    ):
        """`trees` are LightGBM's boosters, `names` the features that they read; ValueError for an unknown name."""
        self.trees, self.names, self.settings, self.features = list(trees), tuple(names), settings, features
        if unknown := sorted(set(names) - set(FEATURE_NAMES)):
            raise ValueError(f"there is no feature {unknown[0]!r}; give names of ranking.features.FEATURE_NAMES")
        self.columns = [FEATURE_NAMES.index(name) for name in names]

    @classmethod
    def fit(
        cls,
        past: Sequence[RankingExamples],
        names: Sequence[str] = STEADY_FEATURES,
        settings: LambdaRankConfig = LambdaRankConfig(),  # noqa: B008  (frozen)
        features: CandidateFeatures | None = None,
    ) -> "LambdaRank":
        """Train on examples of one or more cuts. `features`: of the snapshot at which the ranker will be asked.

        The next baskets of the examples must lie before that snapshot. ValueError: no shopper bought a candidate.
        """
        import lightgbm

        made = cls([], names, settings, features)
        parts = []  # per cut: rows, targets, candidates per shopper
        for one in past:
            used = (one.candidates >= 0) & one.targets.any(axis=1, keepdims=True)  # (n, c): an order needs a target
            sizes = used.sum(axis=1)[used.any(axis=1)]
            parts.append((one.table[used][:, made.columns], one.targets[used], sizes))
        if not sum(len(sizes) for *_, sizes in parts):
            raise ValueError("no shopper of these examples bought a candidate: there is no order to learn")
        rows, targets, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
        names = [f"feature_{column}" for column in made.columns]  # LightGBM takes no commas in names
        configs = [settings.lightgbm(settings.seed + place, len(rows)) for place in range(settings.averaged)]
        data = lightgbm.Dataset(rows, targets, group=sizes, feature_name=names, params=configs[0]).construct()
        with ThreadPoolExecutor() as pool:  # each ensemble has a core of its own, and sums in an order of its own
            made.trees = list(pool.map(lambda config: lightgbm.train(config, data, settings.trees), configs))
        return made

    def with_gpt(self, weight: float = GPT_WEIGHT) -> "LambdaRank":
        """Score blending: the same trees, `weight` times the BasketGPT's log-probability added; 0: the trees alone."""
        return LambdaRank(self.trees, self.names, replace(self.settings, gpt_weight=weight), self.features)

    def predict(self, table: np.ndarray) -> np.ndarray:
        """A score per candidate, (…,) float64, from its features (…, len(FEATURE_NAMES)).

        ValueError if the GPT has a weight and its score is missing.
        """
        rows = table.reshape(-1, table.shape[-1])[:, self.columns]
        if not len(rows):
            return np.zeros(table.shape[:-1])
        threads = self.settings.threads
        scores = np.mean([t.predict(rows, num_threads=threads) for t in self.trees], axis=0).reshape(table.shape[:-1])
        gpt, weight = table[..., FEATURE_NAMES.index("GPT")], self.settings.gpt_weight
        if weight and np.isnan(gpt).any():
            raise ValueError("the GPT was not asked: make the table with its scores, or take `with_gpt(0)`")
        return scores + weight * gpt if weight else scores

    def scores(self, asked: RankingExamples, products: int) -> np.ndarray:
        """Scores of all products, as the baselines give them: (n, products) float64, -inf for what is no candidate."""
        made = np.full((len(asked.candidates), products), -np.inf)
        row, place = np.nonzero(asked.candidates >= 0)
        made[row, asked.candidates[row, place]] = self.predict(asked.table[row, place])
        return made

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`; it reads no query. ValueError: an unknown product, or a ranker without features."""
        if self.features is None:
            raise ValueError("this ranker has no features to read: give them to `fit` or `load`")
        snapshot = self.features.snapshot
        requests = snapshot.online([shopper])
        gpt = snapshot.gpt(requests) if self.settings.gpt_weight or set(self.names) & set(GPT_FEATURES) else None
        columns = snapshot.catalogue.columns(candidates)[None]  # (1, candidates)
        return self.predict(self.features.table(requests, columns, gpt))[0]

    def importance(self) -> dict[str, float]:
        """Feature importance: each feature's share of the gain that all splits made in training, largest first."""
        gain = np.mean([trees.feature_importance("gain") for trees in self.trees], axis=0)
        order = np.argsort(-gain, kind="stable")
        return {self.names[i]: float(gain[i] / max(gain.sum(), 1e-9)) for i in order}

    def save(self, folder: str | Path) -> None:
        """Keep the trees as LightGBM's text and the rest as JSON in a folder of their own.

        The features are not saved: give them to `load` again.
        """

        def write(fresh: Path) -> None:
            for number, trees in enumerate(self.trees):
                (fresh / RANKER_TREES.format(number)).write_text(trees.model_to_string(), encoding="utf-8")
            config = {"names": self.names, "settings": asdict(self.settings), "trees": len(self.trees)}
            (fresh / RANKER_CONFIG).write_text(json.dumps(config), encoding="utf-8")

        storage.save_folder(folder, RANKER_KIND, write)

    @classmethod
    def load(cls, folder: str | Path, features: CandidateFeatures | None = None) -> "LambdaRank":
        """The ranker that `save` wrote. ValueError if the folder does not hold one, or it is damaged.

        LightGBM may end the process at trees that were damaged before they were saved: load your own alone.
        """
        import lightgbm

        def read(place: Path, _: dict[str, Any]) -> "LambdaRank":
            config = storage.read_json(place / RANKER_CONFIG)
            texts = [(place / RANKER_TREES.format(n)).read_text(encoding="utf-8") for n in range(config["trees"])]
            trees = [lightgbm.Booster(model_str=text) for text in texts]
            return cls(trees, config["names"], LambdaRankConfig(**config["settings"]), features)

        with storage.readable(folder, "a LambdaRank", "fit and save it anew"):
            return storage.load_folder(folder, read, RANKER_KIND)
