"""A log as the network reads it: windows of tokens, and at the openings of baskets the questions and their answers."""

import numpy as np
import torch
from torch import Tensor

from recbook.baskets.item_features import FeatureBatch, ShopFeatures
from recbook.baskets.log import InteractionLog, PredictionPoints, log_windows
from recbook.baskets.shopper_features import positions, user_features, user_item_features


class BasketWindows:
    """Windows of a log's tokens: products are 0 to N - 1, an opening is N, padding N + 1.

    `train` reads its batches: tokens, the basket that opens at each position or -1, and the same again only
    for the baskets that are asked about. Each (B, T) int64.
    """

    def __init__(self, log: InteractionLog, questions: PredictionPoints, asked: np.ndarray, context: int):
        """`asked` (baskets,) bool says which baskets are to be predicted."""
        self.log, self.questions, self.context = log, questions, context
        opening = log.starts[:-1] + np.arange(len(log.days))
        self.basket = np.full(len(log.items) + len(log.days), -1)
        self.basket[opening] = np.arange(len(log.days))
        self.tokens = np.full(len(self.basket), log.products)
        self.tokens[self.basket < 0] = log.items
        self.asked = np.where(np.isin(self.basket, np.flatnonzero(asked)), self.basket, -1)
        windows = log_windows(log, context)
        self.windows = [window for window in windows if (self.asked[window[2] : window[1]] >= 0).any()]
        self.shoppers = torch.from_numpy(user_features(log, questions))
        self.bought = user_item_features(log, questions)

    def steps(self, size: int) -> int:
        """Steps that go once through all windows, in batches of about `size` full windows' tokens; none is empty."""
        lengths = [end - start for start, end, _ in self.windows]
        return min(-(-sum(lengths) // (size * self.context)), sum(lengths) // max(lengths))

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """The windows of a step: windows of like length, together as many tokens as `size` full ones."""
        steps = self.steps(size)
        epoch, place = divmod(step, steps)
        rng = np.random.default_rng([seed, epoch])
        lengths = np.array([end - start for start, end, _ in self.windows])
        order = np.argsort(lengths * np.exp(rng.normal(0, 0.2, len(lengths))), kind="stable")
        read = lengths[order].cumsum()
        batch = (read - 1) * steps // read[-1]
        return self.padded([self.windows[i] for i in order[batch == rng.permutation(steps)[place]]])

    def ends(self, baskets: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """A batch of windows that end where these baskets open, one each."""
        opening = self.log.starts[baskets] + baskets
        begin = self.log.starts[self.log.first[baskets]] + self.log.first[baskets]
        begin = np.maximum(begin, opening + 1 - self.context)
        return self.padded([(b, o + 1, o) for b, o in zip(begin.tolist(), opening.tolist(), strict=True)])

    def padded(self, windows: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (first token, end, first token asked about) side by side, padded behind."""
        shape = len(windows), max(end - start for start, end, _ in windows)
        tokens, basket, asked = np.full(shape, self.log.products + 1), np.full(shape, -1), np.full(shape, -1)
        for row, (start, end, first) in enumerate(windows):
            tokens[row, : end - start], basket[row, : end - start] = self.tokens[start:end], self.basket[start:end]
            asked[row, first - start : end - start] = self.asked[first:end]
        return torch.from_numpy(tokens), torch.from_numpy(basket), torch.from_numpy(asked)

    def about(self, baskets: np.ndarray, knowledge: ShopFeatures) -> FeatureBatch:
        """What is known when these baskets are asked about, as tensors."""
        known = knowledge.about(self.bought, baskets, self.questions.day[baskets])
        return FeatureBatch(*(torch.from_numpy(array) for array in known))

    def targets(self, baskets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of every line of baskets: its row in `baskets`, its product, whether the shopper had it before."""
        at, starts = positions(self.log.starts[baskets], self.log.starts[baskets + 1])
        row, item = np.repeat(np.arange(len(baskets)), np.diff(starts)), self.log.items[at]
        have, begun = positions(self.bought.starts[baskets], self.bought.starts[baskets + 1])
        pairs = np.repeat(np.arange(len(baskets)), np.diff(begun)) * self.log.products + self.bought.items[have]
        return row, item, np.isin(row * self.log.products + item, pairs)


class NextBasketLoss:
    """Which baskets of a log are asked about, and what a network's answers cost."""

    def __init__(self, log: InteractionLog, day: np.ndarray, on_sale: np.ndarray, start: float, repeats: float):
        """`day` (baskets,) of asking, `on_sale` (products,) the day from which a product is asked for.

        Asked is for baskets of shoppers who come back, `start` days or more into the log, with anything on sale by
        then in them: what nobody sold yet, nobody could have recommended.
        """
        row = np.repeat(np.arange(len(day)), log.sizes)
        answerable = np.bincount(row, on_sale[log.items] < day[row], minlength=len(day)) > 0
        self.asked = answerable & (log.first < np.arange(len(day))) & (day >= start)
        returns = np.bincount(log.first[self.asked], minlength=len(day))[log.first]
        # A basket of many lines, and a shopper of many baskets, would otherwise drown the others.
        self.weight = torch.from_numpy((np.maximum(log.sizes, 1) * np.maximum(returns, 1.0)) ** -0.5).float()
        self.day, self.on_sale, self.repeats = torch.from_numpy(day), torch.from_numpy(on_sale), repeats

    def loss(self, scores: Tensor, baskets: np.ndarray, row: np.ndarray, item: np.ndarray, again: np.ndarray) -> Tensor:
        """Weighted mean nats of the products of baskets, from `scores` (baskets, N): one softmax over what is on sale.

        Of every line: its `row` among the baskets, its product, and whether the shopper had it before.
        """
        day = self.day[baskets]
        chances = scores.masked_fill(self.on_sale >= day[:, None], -1e4).log_softmax(dim=1)
        row, item, again = (torch.from_numpy(column) for column in (row, item, again))
        weight = self.weight[baskets][row] * (1 + (self.repeats - 1) * again) * (self.on_sale[item] < day[row])
        return -(chances[row, item] * weight).sum() / weight.sum()
