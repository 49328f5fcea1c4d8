"""Training data for the network: windows of a log's tokens, the baskets to be predicted in them, and the loss."""

import numpy as np
import torch
from torch import Tensor

from recbook.baskets.features import positions, user_features, user_item_features
from recbook.baskets.log import InteractionLog, PredictionPoints, log_windows
from recbook.baskets.shop_features import FeatureBatch, ShopFeatures


class BasketWindows:
    """Windows of a log's tokens: products are 0 to N - 1, an opening is N, padding N + 1.

    A batch holds the tokens, the basket that opens at each position or -1, and the same only for the baskets that are
    to be predicted. Each (B, T) int64.
    """

    def __init__(self, log: InteractionLog, points: PredictionPoints, predicted: np.ndarray, context: int):
        """`points` has a prediction point per basket; `predicted` (baskets,) bool says which baskets are predicted."""
        self.log, self.points, self.context = log, points, context
        opening = log.starts[:-1] + np.arange(len(log.days))
        self.basket = np.full(len(log.items) + len(log.days), -1)
        self.basket[opening] = np.arange(len(log.days))
        self.tokens = np.full(len(self.basket), log.products)
        self.tokens[self.basket < 0] = log.items
        self.predicted = np.where(np.isin(self.basket, np.flatnonzero(predicted)), self.basket, -1)
        windows = log_windows(log, context)
        self.spans = [window for window in windows if (self.predicted[window[2] : window[1]] >= 0).any()]
        self.shoppers = torch.from_numpy(user_features(log, points))
        self.bought = user_item_features(log, points)

    def steps(self, size: int) -> int:
        """Steps that go once through all windows, in batches of about `size` full windows' tokens; none is empty."""
        lengths = [end - start for start, end, _ in self.spans]
        return min(-(-sum(lengths) // (size * self.context)), sum(lengths) // max(lengths))

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of a step: windows of like length, together as many tokens as `size` full ones."""
        steps = self.steps(size)
        epoch, place = divmod(step, steps)
        rng = np.random.default_rng([seed, epoch])
        lengths = np.array([end - start for start, end, _ in self.spans])
        order = np.argsort(lengths * np.exp(rng.normal(0, 0.2, len(lengths))), kind="stable")
        read = lengths[order].cumsum()
        batch = (read - 1) * steps // read[-1]
        return self.padded([self.spans[i] for i in order[batch == rng.permutation(steps)[place]]])

    def ends(self, baskets: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """A batch with one window per basket, which ends where the basket opens."""
        opening = self.log.starts[baskets] + baskets
        begin = self.log.starts[self.log.first[baskets]] + self.log.first[baskets]
        begin = np.maximum(begin, opening + 1 - self.context)
        return self.padded([(b, o + 1, o) for b, o in zip(begin.tolist(), opening.tolist(), strict=True)])

    def padded(self, spans: list[tuple[int, int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of windows given as (first token, end, first token to be predicted), padded at the end."""
        shape = len(spans), max(end - start for start, end, _ in spans)
        tokens, basket, predicted = np.full(shape, self.log.products + 1), np.full(shape, -1), np.full(shape, -1)
        for row, (start, end, first) in enumerate(spans):
            tokens[row, : end - start], basket[row, : end - start] = self.tokens[start:end], self.basket[start:end]
            predicted[row, first - start : end - start] = self.predicted[first:end]
        return torch.from_numpy(tokens), torch.from_numpy(basket), torch.from_numpy(predicted)

    def features(self, baskets: np.ndarray, shop_features: ShopFeatures) -> FeatureBatch[Tensor]:
        """The features at these baskets' prediction points, as tensors."""
        batch = shop_features.batch(self.bought, baskets, self.points.day[baskets])
        return FeatureBatch(*(torch.from_numpy(array) for array in batch))

    def targets(self, baskets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every line of these baskets: its row in `baskets`, its product, whether the shopper had it before."""
        at, starts = positions(self.log.starts[baskets], self.log.starts[baskets + 1])
        row, item = np.repeat(np.arange(len(baskets)), np.diff(starts)), self.log.items[at]
        have, begun = positions(self.bought.starts[baskets], self.bought.starts[baskets + 1])
        pairs = np.repeat(np.arange(len(baskets)), np.diff(begun)) * self.log.products + self.bought.items[have]
        return row, item, np.isin(row * self.log.products + item, pairs)


class NextBasketLoss:
    """Which baskets of a log a network learns to predict, and the loss of its scores."""

    def __init__(self, log: InteractionLog, day: np.ndarray, on_sale: np.ndarray, start: float, repeats: float):
        """`day` (baskets,) of the prediction points, `on_sale` (products,) the first day of each product on sale.

        A basket is predicted if its shopper has an earlier one, if its day is `start` or later, and if a product in it
        was on sale by that day: nobody can recommend a product that is not on sale. A repeat counts `repeats` times.
        """
        row = np.repeat(np.arange(len(day)), log.sizes)
        possible = np.bincount(row, on_sale[log.items] < day[row], minlength=len(day)) > 0
        self.predicted = possible & (log.first < np.arange(len(day))) & (day >= start)
        returns = np.bincount(log.first[self.predicted], minlength=len(day))[log.first]
        # A basket of many lines, and a shopper of many baskets, would otherwise drown the others.
        self.weight = torch.from_numpy((np.maximum(log.sizes, 1) * np.maximum(returns, 1.0)) ** -0.5).float()
        self.day, self.on_sale, self.repeats = torch.from_numpy(day), torch.from_numpy(on_sale), repeats

    def loss(self, scores: Tensor, baskets: np.ndarray, row: np.ndarray, item: np.ndarray, again: np.ndarray) -> Tensor:
        """Weighted mean nats of the products of baskets, from `scores` (baskets, N): one softmax over what is on sale.

        Each line has its `row` among the baskets, its product `item`, and `again`: whether the shopper had it before.
        """
        day = self.day[baskets]
        log_probabilities = scores.masked_fill(self.on_sale >= day[:, None], -1e4).log_softmax(dim=1)
        rows, items, repeated = (torch.from_numpy(column) for column in (row, item, again))
        weight = self.weight[baskets][rows] * (1 + (self.repeats - 1) * repeated) * (self.on_sale[items] < day[rows])
        return -(log_probabilities[rows, items] * weight).sum() / weight.sum()
