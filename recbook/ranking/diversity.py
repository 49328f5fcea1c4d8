"""Diversity and complements: lists of products that go together, in place of ten of a kind.

"Embed what was looked at, take the nearest" answers a teapot with ten teapots. `Complements` scores products by their
lift: how much more often they are bought with it than by chance. `mmr` picks a list without near-duplicates.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

LIFT_PRIOR = 20.0  # baskets added to both counts: a pair that met once by luck stays below one that meets often
UNLIKE_PENALTY = 1.0  # weight of the text similarity to the product seen, which counts against a complement


def mmr(scores: np.ndarray, similarity: np.ndarray, k: int = 10, trade: float = 0.7) -> np.ndarray:
    """Maximal marginal relevance: the places of k candidates, each the best by score less similarity to those picked.

    scores (n,), similarity (n, n) -> (min(k, n),) int64. `trade` is the weight of the score, which is scaled to 0 … 1
    over the candidates; 1 - `trade` is the weight of the largest similarity to a pick. With `trade` 1 the result is the
    order of the scores. ValueError for a `trade` outside 0 … 1. Carbonell and Goldstein (1998).
    """
    if not 0 <= trade <= 1:
        raise ValueError(f"trade is {trade}: give a weight from 0 (only variety) to 1 (only scores)")
    spread = np.ptp(scores) if len(scores) else 0.0
    worth = trade * (scores - scores.min(initial=np.inf)) / (spread if spread > 0 else 1.0)
    alike = np.zeros(len(scores))
    picks: list[int] = []
    for place in range(min(k, len(scores))):
        value = worth - (1 - trade) * alike
        value[picks] = -np.inf
        picks.append(int(value.argmax()))
        newest = similarity[:, picks[-1]]
        alike = np.maximum(alike, newest) if place else newest.astype(float)
    return np.array(picks, dtype=np.int64)


class Complements:
    """Which products are bought together more often than by chance: the lift of every pair."""

    def __init__(self, receipts: pd.DataFrame, codes: Sequence[str], vectors: np.ndarray, prior: float = LIFT_PRIOR):
        """Count the baskets of clean receipts. `vectors` (products, d): unit rows of the descriptions of `codes`."""
        self.codes, self.vectors, self.prior = pd.Index(codes), vectors, prior
        lines = receipts[receipts["code"].isin(self.codes)].drop_duplicates(["invoice", "code"])
        basket, _ = pd.factorize(lines["invoice"])
        column = self.codes.get_indexer(lines["code"])
        shape = (basket.max(initial=-1) + 1, len(self.codes))
        held = sparse.csr_matrix((np.ones(len(lines), np.float32), (basket, column)), shape)
        self.together = (held.T @ held).tocsr()  # (products, products): baskets that hold both
        self.sold, self.baskets = self.together.diagonal(), held.shape[0]  # (products,): baskets that hold it

    def lift(self, code: str) -> np.ndarray:
        """The log of each product's lift with `code`, (products,): baskets with both, over those expected by chance.

        `prior` baskets are added to both counts. KeyError for an unknown code.
        """
        if code not in self.codes:
            raise KeyError(f"the product {code!r} is not among the {len(self.codes):,} whose baskets were counted")
        place = self.codes.get_loc(code)
        observed = self.together[[place]].toarray()[0]
        expected = self.sold[place] * self.sold / max(self.baskets, 1)
        lift = np.log((observed + self.prior) / (expected + self.prior))
        lift[place] = 0.0
        return lift

    def score(self, seen: Sequence[str], unlike: float = UNLIKE_PENALTY) -> np.ndarray:
        """How well each product complements what was seen: mean lift less `unlike` times text similarity, (products,).

        The similarity, the largest cosine to a product seen, is scaled to the spread of the lift. The products seen get
        minus infinity. ValueError if nothing was seen, KeyError for an unknown code.
        """
        if not len(seen):
            raise ValueError("nothing was seen: there is nothing that a product could complement")
        lift = np.mean([self.lift(code) for code in seen], axis=0)
        places = self.codes.get_indexer(list(seen))
        alike = (self.vectors @ self.vectors[places].T).max(axis=1)
        score = lift - unlike * lift.std() * alike
        score[places] = -np.inf
        return score
