"""The stages in which a recommender is built: their settings, their moment, and how each says what it does."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd

from recbook import distillation, evaluation, labels, learned
from recbook.baskets import AS_CHOSEN, BasketGPT
from recbook.baskets import Settings as BasketSettings
from recbook.candidates import Moment
from recbook.narrator import Settings as NarratorSettings
from recbook.signals import Signals

DAY, LONELY = pd.Timedelta(days=1), pd.Timedelta(days=60)


@dataclass(frozen=True)
class Settings:
    """How each stage learns; see there."""

    baskets: BasketSettings = AS_CHOSEN
    trees: learned.Settings = field(default_factory=learned.Settings)
    student: BasketSettings = replace(distillation.STUDENT, epochs=3.0)  # half as many cost a thousandth of the NDCG
    narrator: NarratorSettings = field(default_factory=NarratorSettings)
    months: int = 2  # past cuts, a month apart, that the trees learn from
    min_shoppers: int = 5  # a product is recommended once so many have bought it

    @classmethod
    def tiny(cls) -> "Settings":
        """Models that hardly learned, in seconds: to try that everything runs."""
        told = dict(words=700, cards=1, recitals=50, sayings=50, steps=5, pairs=50, style_steps=5)
        baskets, student = (replace(one, epochs=0.1, width=16, layers=1) for one in (AS_CHOSEN, distillation.STUDENT))
        return cls(baskets, learned.Settings(trees=5, averaged=1), student, NarratorSettings(**told), months=1)

    def numbers(self) -> dict[str, Any]:
        """All settings, as JSON takes them."""
        networks = {"baskets": self.baskets, "student": self.student}
        return asdict(self) | {name: asdict(one) | {"parts": sorted(one.parts)} for name, one in networks.items()}

    @classmethod
    def restored(cls, numbers: dict[str, Any]) -> "Settings":
        """From what `numbers` gave; TypeError or KeyError if it is none."""
        baskets, student = (
            BasketSettings(**numbers[name] | {"parts": frozenset(numbers[name]["parts"])})
            for name in ("baskets", "student")
        )
        trees, told = learned.Settings(**numbers["trees"]), NarratorSettings(**numbers["narrator"])
        return cls(baskets, trees, student, told, numbers["months"], numbers["min_shoppers"])


def now(receipts: pd.DataFrame) -> pd.Timestamp:
    """The day after the last of the clean receipts: when their recommender is asked.

    ValueError if the last ones lie far behind all others: a date that was mistyped would take the whole shop there.
    """
    last, usual = receipts["date"].max(), receipts["date"].quantile(0.999)
    if last - usual > LONELY:
        found = f"the last receipts are of {last:%Y-%m-%d}, nearly all others of {usual:%Y-%m-%d} or before"
        raise ValueError(f"{found}: is the date right? Mend or remove those lines")
    return last.normalize() + DAY


@contextmanager
def stage(name: str, seconds: dict[str, float], say: Callable[[str], None] | None) -> Iterator[None]:
    """Say that a stage begins, and keep how long it took."""
    start = time.perf_counter()
    if say is not None:
        say(f"{name} …")
    yield
    seconds[name] = time.perf_counter() - start


def learned_ranker(receipts: pd.DataFrame, vectors: pd.DataFrame, settings: Settings) -> learned.LearnedRanker:
    """Trees that learned from the next baskets after past cuts, and trust the BasketGPT beside; without its signals.

    ValueError if nobody came back after any of the cuts.
    """
    past, why = [], None
    for month in range(1, settings.months + 1):
        try:
            split = evaluation.next_basket(receipts, now(receipts) - pd.DateOffset(months=month), settings.min_shoppers)
        except ValueError as error:  # the shop is younger, or nobody came back
            why = error
            continue
        moment = Moment(split, vectors=vectors.loc[split.codes].to_numpy())
        past.append(learned.examples(Signals(moment, split), split))
    if not past:
        raise ValueError(f"there are no past baskets to learn to rank from: {why}")
    return learned.LearnedRanker.fit(past, settings=settings.trees).trusting()


def taught_student(
    split: evaluation.Split,
    model: BasketGPT,
    ranker: learned.LearnedRanker,
    vectors: pd.DataFrame,
    settings: BasketSettings = distillation.STUDENT,
    progress: bool = False,
) -> BasketGPT:
    """The student of the ranker and the model, which were fitted on the split's receipts.

    They label, as of the cut, histories that are cut short: what the shoppers might have been.
    """
    # A model that was just fitted knows every day of its receipts, and the student shares that; a loaded one does not.
    knowledge = None if model.knowledge.first_day else model.knowledge
    now = Signals(Moment(split, model, vectors.loc[split.codes].to_numpy()), split)
    made = [label for dropped in distillation.DROPPED for label in labels.of_moment(ranker, now, dropped=dropped)]
    return distillation.distil(split.receipts, made, settings, knowledge=knowledge, progress=progress)
