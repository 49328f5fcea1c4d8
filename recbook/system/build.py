"""The stages in which a recommender is built: their settings, their moment, and how each says what it does."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from recbook.baselines import evaluation
from recbook.baskets.model import DEFAULT_BASKET_GPT, BasketGPT
from recbook.baskets.network import BasketGPTConfig
from recbook.distillation import labels
from recbook.distillation.student import BASKETS_DROPPED, STUDENT_CONFIG, distil
from recbook.narratives.narrator import NarratorConfig
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import CandidateFeatures
from recbook.ranking.lambdarank import LambdaRank, LambdaRankConfig, ranking_examples

ONE_DAY, LOOK_BACK = pd.Timedelta(days=1), pd.Timedelta(days=60)


@dataclass(frozen=True)
class RecommenderConfig:
    """How each stage learns; see there."""

    baskets: BasketGPTConfig = DEFAULT_BASKET_GPT
    trees: LambdaRankConfig = field(default_factory=LambdaRankConfig)
    student: BasketGPTConfig = replace(STUDENT_CONFIG, epochs=3.0)  # half as many cost a thousandth of the NDCG
    narrator: NarratorConfig = field(default_factory=NarratorConfig)
    months: int = 2  # past cuts, a month apart, that the trees learn from
    min_shoppers: int = 5  # a product is recommended once so many have bought it

    @classmethod
    def tiny(cls) -> "RecommenderConfig":
        """Models that hardly learned, in seconds: to try that everything runs."""
        told = dict(words=700, cards=1, recitals=50, sayings=50, steps=5, pairs=50, style_steps=5)
        baskets, student = (
            replace(one, epochs=0.1, width=16, layers=1) for one in (DEFAULT_BASKET_GPT, STUDENT_CONFIG)
        )
        return cls(baskets, LambdaRankConfig(trees=5, averaged=1), student, NarratorConfig(**told), months=1)

    def numbers(self) -> dict[str, Any]:
        """All settings, as JSON takes them."""
        networks = {"baskets": self.baskets, "student": self.student}
        return asdict(self) | {name: asdict(one) | {"parts": sorted(one.parts)} for name, one in networks.items()}

    @classmethod
    def restored(cls, numbers: dict[str, Any]) -> "RecommenderConfig":
        """From what `numbers` gave; TypeError or KeyError if it is none."""
        baskets, student = (
            BasketGPTConfig(**numbers[name] | {"parts": frozenset(numbers[name]["parts"])})
            for name in ("baskets", "student")
        )
        trees, told = LambdaRankConfig(**numbers["trees"]), NarratorConfig(**numbers["narrator"])
        return cls(baskets, trees, student, told, numbers["months"], numbers["min_shoppers"])


def day_after_last(receipts: pd.DataFrame) -> pd.Timestamp:
    """The day after the last of the clean receipts: when their recommender is asked.

    ValueError if the last ones lie far behind all others: a date that was mistyped would take the whole shop there.
    """
    last, usual = receipts["date"].max(), receipts["date"].quantile(0.999)
    if last - usual > LOOK_BACK:
        found = f"the last receipts are of {last:%Y-%m-%d}, nearly all others of {usual:%Y-%m-%d} or before"
        raise ValueError(f"{found}: is the date right? Mend or remove those lines")
    return last.normalize() + ONE_DAY


@contextmanager
def timed_stage(name: str, seconds: dict[str, float], say: Callable[[str], None] | None) -> Iterator[None]:
    """Say that a stage begins, and keep how long it took."""
    start = time.perf_counter()
    if say is not None:
        say(f"{name} …")
    yield
    seconds[name] = time.perf_counter() - start


def fit_lambdarank(receipts: pd.DataFrame, vectors: pd.DataFrame, settings: RecommenderConfig) -> LambdaRank:
    """Trees that learned from the next baskets after past cuts, and trust the BasketGPT beside; without its signals.

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
        moment = Snapshot(split, vectors=vectors.loc[split.codes].to_numpy())
        past.append(ranking_examples(CandidateFeatures(moment, split), split))
    if not past:
        raise ValueError(f"there are no past baskets to learn to rank from: {why}")
    return LambdaRank.fit(past, settings=settings.trees).trusting()


def fit_student(
    split: evaluation.Split,
    model: BasketGPT,
    ranker: LambdaRank,
    vectors: pd.DataFrame,
    settings: BasketGPTConfig = STUDENT_CONFIG,
    progress: bool = False,
) -> BasketGPT:
    """The student of the ranker and the model, which were fitted on the split's receipts.

    They label, as of the cut, histories that are cut short: what the shoppers might have been.
    """
    # A model that was just fitted knows every day of its receipts, and the student shares that; a loaded one does not.
    knowledge = None if model.knowledge.first_day else model.knowledge
    now = CandidateFeatures(Snapshot(split, model, vectors.loc[split.codes].to_numpy()), split)
    made = [label for dropped in BASKETS_DROPPED for label in labels.label_snapshot(ranker, now, dropped=dropped)]
    return distil(split.receipts, made, settings, knowledge=knowledge, progress=progress)
