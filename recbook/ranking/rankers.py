"""Retrieve, then rank: one small interface for every ranker.

A ranker is anything with `score(shopper, query, candidates)`. The candidates come from `candidates`. Here are the plain
rankers: by the text, by the BasketGPT, and several of them together; the others are in `learned`, `listwise`,
`causal_lm` and `endpoint`. What a list needs beside scores is in `variety`, what to do without a history in
`cold_start`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from recbook.baskets.catalogue import History
from recbook.baskets.model import BasketGPT
from recbook.search.index import ProductIndex, vectors_of


class Shopper(NamedTuple):
    """Who asks: what they bought, when they ask, and where they live."""

    history: History  # baskets, oldest first, each a pair of a date and codes
    when: pd.Timestamp
    country: str = ""


class Ranker(Protocol):
    """What every ranker can do."""

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """One number a candidate, (candidates,) float, bigger is better. `candidates` are product codes."""


class BasketGPTRanker:
    """The BasketGPT as a ranker: its log-probabilities of the candidates, all from one pass. It reads no queries."""

    def __init__(self, model: BasketGPT):
        """`model`: a fitted one."""
        self.model = model

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`; ValueError names a candidate that the model does not know."""
        scores = self.model.ask([shopper.history], shopper.when)[0]
        return np.array([scores[self.model.catalogue.columns([code])[0]] for code in candidates])


class TextRanker:
    """How near each candidate's text is to the query; without one, to the mean of what was bought: the cosine."""

    def __init__(self, index: ProductIndex, encode: Callable[[list[str]], np.ndarray]):
        """`encode` must be what made the index's vectors."""
        self.index, self.encode = index, encode

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`. Zeros where there is neither a query nor a history; KeyError names an unknown candidate.

        Of the history only products that the index holds are looked at.
        """
        vectors = vectors_of(self.index, candidates)
        if query is None:
            bought = [code for _, basket in shopper.history for code in basket if code in self.index.codes]
            asked = vectors_of(self.index, bought).mean(axis=0) if bought else np.zeros(vectors.shape[1])
        else:
            asked = self.encode([query])[0]
        return vectors @ (asked / max(np.linalg.norm(asked), 1e-12))


class BlendedRanker:
    """Several rankers as one: the sum of their weighted scores, each first scaled to spread one over the candidates.

    Log-probabilities and cosines are not of one size; scaled they can be weighed against each other.
    """

    def __init__(self, parts: Sequence[tuple[Ranker, float]]):
        """`parts`: rankers and their weights."""
        self.parts = list(parts)

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`."""
        return sum(weight * standardized(ranker.score(shopper, query, candidates)) for ranker, weight in self.parts)


def standardized(scores: np.ndarray) -> np.ndarray:
    """Scores (candidates,) with mean zero and spread one; zeros where all are alike."""
    spread = scores.std()
    return (scores - scores.mean()) / spread if spread > 1e-12 else np.zeros(len(scores))


def rank_candidates(
    ranker: Ranker, shopper: Shopper, query: str | None, candidates: Sequence[str], k: int = 10
) -> pd.DataFrame:
    """The k best candidates, `code` and `score`, best first; of equals those that come first among the candidates."""
    scores = np.asarray(ranker.score(shopper, query, candidates))
    order = np.argsort(-scores, kind="stable")[:k]
    return pd.DataFrame({"code": np.asarray(candidates, dtype=object)[order], "score": scores[order]})


def shoppers_at(receipts: pd.DataFrame, customers: Sequence[int], when: pd.Timestamp) -> list[Shopper]:
    """Customers as shoppers who ask at `when`: their baskets before it, oldest first, and the country of the last.

    KeyError names a customer who bought nothing before.
    """
    before = receipts[(receipts["date"] < when) & receipts["customer"].isin(list(customers))]
    before = before.sort_values("date", kind="stable")
    groups = dict(list(before.groupby("customer")))
    if missing := [customer for customer in customers if customer not in groups]:
        raise KeyError(f"customer {missing[0]} bought nothing before {when:%Y-%m-%d}; ask with an empty history")
    return [_shopper(groups[customer], when) for customer in customers]


def _shopper(lines: pd.DataFrame, when: pd.Timestamp) -> Shopper:
    baskets = lines.groupby("invoice", sort=False)
    history = [(basket["date"].iloc[0], basket["code"].unique().tolist()) for _, basket in baskets]
    return Shopper(history, when, lines["country"].iloc[-1])
