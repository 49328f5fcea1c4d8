"""A learned blend: LightGBM's LambdaRank on the signals of candidates, from cuts that lie in the past.

Every shopper of an earlier cut is one question: their candidates, and which of them the next basket held. The boosted
trees learn an order, not a probability: a pair that stands the wrong way round pushes by what putting it right would
gain in NDCG. Burges (2010), "From RankNet to LambdaRank to LambdaMART"; Ke et al. (2017), "LightGBM".

The BasketGPT can come in twice: as signals that the trees read, then every past cut needs a GPT of its own, or as an
equal, its log-probability added to what the trees say (`LambdaRank.trusting`), which needs only today's.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbook.baselines.evaluation import Split
from recbook.ranking.candidates import Requests, interleave
from recbook.ranking.features import FEATURE_NAMES, GPT_FEATURES, STEADY_FEATURES, CandidateFeatures
from recbook.ranking.rankers import Shopper

RANKER_CONFIG, RANKER_TREES = "ranker.json", "trees-{}.txt"
GPT_WEIGHT = 2.0  # in the BasketGPT's log-probability; chosen on the real log, cuts of September and October 2011
PER_CHANNEL = 200  # products that a channel proposes at most


@dataclass(frozen=True)
class LambdaRankConfig:
    """How a ranker is trained; chosen on the real log at cuts before November 2011."""

    trees: int = 200
    leaves: int = 15
    learning_rate: float = 0.05
    least: float = 0.002  # share of all candidates that a leaf holds at least
    columns: float = 0.4  # share of the signals that a tree sees
    rows: float = 0.8  # share of the candidates that a tree sees
    truncation: int = 40  # places of a list whose pairs push
    averaged: int = 2  # rankers, each of another seed
    trust: float = 0.0  # what a nat of the BasketGPT's log-probability adds to the trees' score
    threads: int = 1  # fixed: other numbers of them add up in another order
    seed: int = 0

    def lightgbm(self, seed: int, candidates: int) -> dict[str, Any]:
        """The same in LightGBM's words, for so many candidates in all."""
        return {
            "objective": "lambdarank", "learning_rate": self.learning_rate, "num_leaves": self.leaves,
            "min_data_in_leaf": max(1, round(self.least * candidates)), "feature_fraction": self.columns,
            "bagging_fraction": self.rows, "bagging_freq": 1, "lambdarank_truncation_level": self.truncation,
            "num_threads": self.threads, "seed": seed, "deterministic": True, "force_row_wise": True, "verbose": -1,
        }  # fmt: skip


class RankingExamples(NamedTuple):
    """Shoppers of a split, their candidates, what is told about each, and what the next basket held."""

    candidates: np.ndarray  # (n, c) int64 columns of the catalogue, -1 padded
    table: np.ndarray  # (n, c, len(NAMES)) float32
    wanted: np.ndarray  # (n, c) bool


def ranking_examples(signals: CandidateFeatures, split: Split, size: int = 400) -> RankingExamples:
    """The shoppers of a split with `size` candidates each, and the GPT's opinion if the signals' moment has a model."""
    who = signals.moment.of_split(split)
    candidates = propose_candidates(signals, who, size)
    wanted = np.take_along_axis(split.targets.toarray(), np.maximum(candidates, 0), axis=1) & (candidates >= 0)
    return RankingExamples(candidates, signals.table(who, candidates, signals.moment.gpt(who)), wanted)


def propose_candidates(signals: CandidateFeatures, who: Requests, size: int) -> np.ndarray:
    """The candidates of those who ask, from the channels in turns: (n, size) columns, -1 padded.

    The BasketGPT proposes none, so that rankers with its opinion and without it order the same products.
    """
    return interleave(list(signals.moment.channels(who, PER_CHANNEL).values()), size)


class LambdaRank:
    """Trees that score candidates by their signals: `LambdaRank.fit(examples of earlier cuts, names)`."""

    def __init__(
        self,
        trees: Sequence[Any],
        names: Sequence[str],
        settings: LambdaRankConfig,
        signals: CandidateFeatures | None = None,
    ):
        """`trees` are LightGBM's boosters, `names` the columns of signals that they read."""
        self.trees, self.names, self.settings, self.signals = list(trees), tuple(names), settings, signals
        if unknown := sorted(set(names) - set(FEATURE_NAMES)):
            raise ValueError(f"there is no signal {unknown[0]!r}; see signals.NAMES")
        self.columns = [FEATURE_NAMES.index(name) for name in names]

    @classmethod
    def fit(
        cls,
        past: Sequence[RankingExamples],
        names: Sequence[str] = STEADY_FEATURES,
        settings: LambdaRankConfig = LambdaRankConfig(),  # noqa: B008  (frozen)
        signals: CandidateFeatures | None = None,
    ) -> "LambdaRank":
        """Train on examples of one or more cuts. `signals`: of the moment at which the ranker will be asked.

        The next baskets of the examples must lie before that moment. ValueError: nothing to learn from.
        """
        import lightgbm

        made = cls([], names, settings, signals)
        rows, wanted, sizes = [], [], []
        for one in past:
            used = (one.candidates >= 0) & one.wanted.any(axis=1, keepdims=True)  # (n, c): an order needs a target
            rows.append(one.table[used][:, made.columns])
            wanted.append(one.wanted[used])
            sizes.append(used.sum(axis=1)[used.any(axis=1)])
        if not sum(map(len, sizes)):
            raise ValueError("no shopper of these examples bought a candidate: there is no order to learn")
        rows, wanted, sizes = (np.concatenate(parts) for parts in (rows, wanted, sizes))
        names = [f"signal_{column}" for column in made.columns]  # LightGBM takes no commas in names
        data = lightgbm.Dataset(rows, wanted, group=sizes, feature_name=names, params={"verbose": -1})
        for seed in range(settings.seed, settings.seed + settings.averaged):
            made.trees.append(lightgbm.train(settings.lightgbm(seed, len(rows)), data, num_boost_round=settings.trees))
        return made

    def trusting(self, weight: float = GPT_WEIGHT) -> "LambdaRank":
        """The same trees, with `weight` times the BasketGPT's log-probability added to their score; 0: trees alone."""
        return LambdaRank(self.trees, self.names, replace(self.settings, trust=weight), self.signals)

    def predict(self, table: np.ndarray) -> np.ndarray:
        """A score a candidate, (…,) float64, from its signals (…, len(NAMES)); ValueError: one lacks the GPT's."""
        rows = table.reshape(-1, table.shape[-1])[:, self.columns]
        if not len(rows):
            return np.zeros(table.shape[:-1])
        threads = self.settings.threads
        scores = np.mean([t.predict(rows, num_threads=threads) for t in self.trees], axis=0).reshape(table.shape[:-1])
        opinion = table[..., FEATURE_NAMES.index("GPT")]
        if self.settings.trust and np.isnan(opinion).any():
            raise ValueError("the GPT was not asked: make the table with its scores, or take `trusting(0)`")
        return scores + self.settings.trust * opinion if self.settings.trust else scores

    def scores(self, asked: RankingExamples, products: int) -> np.ndarray:
        """Scores in the form of the baselines: (n, products) float64, -inf where a product is no candidate."""
        made = np.full((len(asked.candidates), products), -np.inf)
        row, place = np.nonzero(asked.candidates >= 0)
        made[row, asked.candidates[row, place]] = self.predict(asked.table[row, place])
        return made

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker`; it reads no query. ValueError: an unknown product, or a ranker without signals."""
        if self.signals is None:
            raise ValueError("this ranker has no signals to look at: give them to `fit` or `load`")
        moment = self.signals.moment
        who = moment.at_counter([shopper])
        gpt = moment.gpt(who) if self.settings.trust or set(self.names) & set(GPT_FEATURES) else None
        columns = np.array([moment.catalogue.columns([code])[0] for code in candidates], dtype=np.int64)
        return self.predict(self.signals.table(who, columns[None], gpt))[0]

    def importance(self) -> dict[str, float]:
        """What each signal gained in training, as a share of all, largest first."""
        gain = np.mean([trees.feature_importance("gain") for trees in self.trees], axis=0)
        order = np.argsort(-gain, kind="stable")
        return {self.names[i]: float(gain[i] / max(gain.sum(), 1e-9)) for i in order}

    def save(self, folder: str | Path) -> None:
        """Keep the trees as LightGBM's text and the rest as JSON. The signals are counted anew: see `load`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for number, trees in enumerate(self.trees):
            (folder / RANKER_TREES.format(number)).write_text(trees.model_to_string(), encoding="utf-8")
        words = {"names": self.names, "settings": asdict(self.settings), "trees": len(self.trees)}
        (folder / RANKER_CONFIG).write_text(json.dumps(words), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, signals: CandidateFeatures | None = None) -> "LambdaRank":
        """The ranker that `save` kept. ValueError if the folder does not hold one."""
        import lightgbm

        folder = Path(folder)
        try:
            words = json.loads((folder / RANKER_CONFIG).read_text(encoding="utf-8"))
            texts = [(folder / RANKER_TREES.format(n)).read_text(encoding="utf-8") for n in range(words["trees"])]
            trees = [lightgbm.Booster(model_str=text) for text in texts]
            return cls(trees, words["names"], LambdaRankConfig(**words["settings"]), signals)
        except (OSError, KeyError, TypeError, ValueError, lightgbm.basic.LightGBMError) as error:
            message = f"{folder} does not hold a learned ranker that can be loaded ({error}); fit and save it anew"
            raise ValueError(message) from error
