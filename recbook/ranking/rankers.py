"""Retrieve, then rank: one interface for every ranker, and the simplest rankers.

A ranker is anything with `score(shopper, query, candidates)`. The candidates come from `candidates`. Here are the
rankers by text, by the BasketGPT, and by a weighted sum of others. `lambdarank` learns from features; the room
`llm_ranking` ranks with language models. `diversity` is about lists, `cold_start` about shoppers without a history.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd

from recbook.baskets.catalogue import History
from recbook.baskets.model import BasketGPT
from recbook.cleaning.receipts import customer_baskets
from recbook.search.index import ProductIndex, vectors_of


class Shopper(NamedTuple):
    """Who asks: their history, when they ask, and where they live."""

    history: History  # baskets, oldest first, each a pair of a date and codes
    when: pd.Timestamp
    country: str = ""


class Ranker(Protocol):
    """What every ranker can do."""

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """A score per candidate, (candidates,) float, bigger is better. `candidates` are product codes."""


class BasketGPTRanker:
    """The BasketGPT as a ranker: its log-probabilities of the candidates, all from one pass. It reads no query."""

    def __init__(self, model: BasketGPT):
        """`model` must be fitted."""
        self.model = model

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`; ValueError names a candidate that the model does not know."""
        columns = self.model.catalogue.columns(candidates)
        return self.model.score([shopper.history], shopper.when)[0][columns]


class TextRanker:
    """The cosine of each candidate's text with the query; without a query, with the mean of what was bought."""

    def __init__(self, index: ProductIndex, encode: Callable[[list[str]], np.ndarray]):
        """`encode` must be the encoder that made the index's vectors."""
        self.index, self.encode = index, encode

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`. Zeros where there is neither a query nor a history; KeyError names an unknown candidate.

        Products of the history that the index does not hold are left out.
        """
        vectors = vectors_of(self.index, candidates)
        if query is None:
            bought = [code for _, basket in shopper.history for code in basket if code in self.index.codes]
            asked = vectors_of(self.index, bought).mean(axis=0) if bought else np.zeros(vectors.shape[1])
        else:
            asked = self.encode([query])[0]
        return vectors @ (asked / max(float(np.linalg.norm(asked)), 1e-12))


class BlendedRanker:
    """Score blending: the weighted sum of several rankers' scores, each standardized over the candidates first.

    Log-probabilities and cosines have different scales; standardized, they can be weighed against each other.
    """

    def __init__(self, parts: Sequence[tuple[Ranker, float]]):
        """`parts`: rankers and their weights."""
        self.parts = list(parts)

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`."""
        scores: np.ndarray = np.zeros(len(candidates), np.float32)  # the sum is as wide as the widest scores
        for ranker, weight in self.parts:
            scores = scores + weight * standardized(ranker.score(shopper, query, candidates))
        return scores


def standardized(scores: np.ndarray) -> np.ndarray:
    """Scores (candidates,) with mean 0 and standard deviation 1; zeros where all are equal."""
    spread = scores.std()
    return (scores - scores.mean()) / spread if spread > 1e-12 else np.zeros(len(scores))


def rank_candidates(
    ranker: Ranker, shopper: Shopper, query: str | None, candidates: Sequence[str], k: int = 10
) -> pd.DataFrame:
    """The k best candidates, `code` and `score`, best first; equal scores stay in the order of the candidates."""
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
    mine = (groups[customer] for customer in customers)
    return [Shopper(customer_baskets(lines), when, lines["country"].iloc[-1]) for lines in mine]
