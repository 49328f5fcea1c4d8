"""The stages in which a recommender is built: their settings, their date, their names and times."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from recbook.baselines import evaluation
from recbook.baskets.log import DAY
from recbook.baskets.model import DEFAULT_BASKET_GPT, BasketGPT
from recbook.baskets.network import BasketGPTConfig
from recbook.distillation import labels
from recbook.distillation.student import BASKETS_DROPPED, STUDENT_CONFIG, distil
from recbook.narratives.narrator import NarratorConfig
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import LambdaRank, LambdaRankConfig, ranking_examples

LARGEST_GAP = pd.Timedelta(days=60)  # between nearly all receipts and the last ones: a larger one is a mistyped date


@dataclass(frozen=True)
class RecommenderConfig:
    """How each stage learns: the configurations of the parts."""

    baskets: BasketGPTConfig = DEFAULT_BASKET_GPT
    trees: LambdaRankConfig = field(default_factory=LambdaRankConfig)
    student: BasketGPTConfig = replace(STUDENT_CONFIG, epochs=3.0)  # half of them, for a thousandth of the NDCG
    narrator: NarratorConfig = field(default_factory=NarratorConfig)
    months: int = 2  # past cuts, a month apart, that LambdaRank learns from
    min_shoppers: int = 5  # shoppers who must have bought a product before it is ranked

    @classmethod
    def tiny(cls) -> "RecommenderConfig":
        """Models that hardly learn, in seconds: to test that everything runs."""
        narrator = NarratorConfig(words=700, cards=1, prompts=50, sentences=50, steps=5, pairs=50, style_steps=5)
        baskets, student = (
            replace(one, epochs=0.1, width=16, layers=1) for one in (DEFAULT_BASKET_GPT, STUDENT_CONFIG)
        )
        return cls(baskets, LambdaRankConfig(trees=5, averaged=1), student, narrator, months=1)

    def to_dict(self) -> dict[str, Any]:
        """All settings as a dictionary for JSON."""
        networks = {"baskets": self.baskets, "student": self.student}
        return asdict(self) | {name: asdict(one) | {"parts": sorted(one.parts)} for name, one in networks.items()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "RecommenderConfig":
        """The settings that `to_dict` gave; TypeError or KeyError for anything else."""
        baskets, student = (
            BasketGPTConfig(**saved[name] | {"parts": frozenset(saved[name]["parts"])})
            for name in ("baskets", "student")
        )
        trees, narrator = LambdaRankConfig(**saved["trees"]), NarratorConfig(**saved["narrator"])
        return cls(baskets, trees, student, narrator, saved["months"], saved["min_shoppers"])


def day_after_last(receipts: pd.DataFrame) -> pd.Timestamp:
    """The day after the last clean receipt: the moment as of which the recommender is asked.

    ValueError if the last receipts are much later than all others: a mistyped date would move the whole shop there.
    """
    last, usual = receipts["date"].max(), receipts["date"].quantile(0.999)
    if last - usual > LARGEST_GAP:
        found = f"the last receipts are of {last:%Y-%m-%d}, nearly all others of {usual:%Y-%m-%d} or before"
        raise ValueError(f"{found}: is the date right? Mend or remove those lines")
    return last.normalize() + DAY


@contextmanager
def timed_stage(name: str, seconds: dict[str, float], say: Callable[[str], None] | None) -> Iterator[None]:
    """Say that a stage begins, and record how long it took."""
    start = time.perf_counter()
    if say is not None:
        say(f"{name} …")
    yield
    seconds[name] = time.perf_counter() - start


def fit_lambdarank(receipts: pd.DataFrame, vectors: pd.DataFrame, settings: RecommenderConfig) -> LambdaRank:
    """LambdaRank, trained on the next baskets after past cuts, and blended with the BasketGPT; not bound to features.

    ValueError if nobody came back after any of the cuts.
    """
    past, why = [], None
    for month in range(1, settings.months + 1):
        try:
            split = evaluation.next_basket(
                receipts, day_after_last(receipts) - pd.DateOffset(months=month), settings.min_shoppers
            )
        except ValueError as error:  # the shop is younger, or nobody came back
            why = error
            continue
        snapshot = Snapshot(split, vectors=vectors.loc[split.codes].to_numpy())
        past.append(ranking_examples(CandidateFeatures(snapshot, split), split))
    if not past:
        raise ValueError(f"there are no past baskets to learn to rank from: {why}")
    return LambdaRank.fit(past, settings=settings.trees).with_gpt()


def fit_student(
    split: evaluation.Split,
    model: BasketGPT,
    ranker: LambdaRank,
    vectors: pd.DataFrame,
    settings: BasketGPTConfig = STUDENT_CONFIG,
    progress: bool = False,
) -> BasketGPT:
    """The distilled student of the ranker and the model, which were fitted on the split's receipts.

    They label, as of the cut, the shoppers' histories with their last baskets dropped.
    """
    # A model that was just fitted has the shop's features of every day, and the student shares them; a loaded one not.
    shop_features = None if model.shop_features.first_day else model.shop_features
    now = CandidateFeatures(Snapshot(split, model, vectors.loc[split.codes].to_numpy()), split)
    examples = [label for dropped in BASKETS_DROPPED for label in labels.label_snapshot(ranker, now, dropped=dropped)]
    return distil(split.receipts, examples, settings, shop_features=shop_features, progress=progress)
