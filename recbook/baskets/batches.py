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
    to be predicted. Each (B, T) int64. All tensors are on `device`.
    """

    def __init__(
        self,
        log: InteractionLog,
        points: PredictionPoints,
        predicted: np.ndarray,
        context: int,
        device: torch.device | str = "cpu",
    ):
        """`points` has a prediction point per basket; `predicted` (baskets,) bool says which baskets are predicted."""
        self.log, self.points, self.context, self.device = log, points, context, device
        opening = log.starts[:-1] + np.arange(len(log.days))
        self.basket = np.full(len(log.items) + len(log.days), -1)
        self.basket[opening] = np.arange(len(log.days))
        self.tokens = np.full(len(self.basket), log.products)
        self.tokens[self.basket < 0] = log.items
        self.predicted = np.where(np.isin(self.basket, np.flatnonzero(predicted)), self.basket, -1)
        windows = log_windows(log, context)
        self.spans = [window for window in windows if (self.predicted[window[2] : window[1]] >= 0).any()]
        self.shoppers = torch.from_numpy(user_features(log, points)).to(device)
        # What was bought before is counted where it is asked for: before every basket, it would grow with their square.
        counted = points._replace(first=np.where(predicted, points.first, points.end))
        self.counted, self.bought = predicted, user_item_features(log, counted)

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
        made = [torch.from_numpy(array).to(self.device) for array in (tokens, basket, predicted)]
        return made[0], made[1], made[2]

    def features(self, baskets: np.ndarray, shop_features: ShopFeatures) -> FeatureBatch[Tensor]:
        """The features at the prediction points of these baskets as tensors. ValueError if one is not predicted."""
        self._check_counted(baskets)
        batch = shop_features.batch(self.bought, baskets, self.points.day[baskets])
        return FeatureBatch(*(torch.from_numpy(array).to(self.device) for array in batch))

    def targets(self, baskets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For every line of these baskets: its row in `baskets`, its product, whether the shopper had it before.

        ValueError if one of the baskets is not predicted.
        """
        self._check_counted(baskets)
        at, starts = positions(self.log.starts[baskets], self.log.starts[baskets + 1])
        row, item = np.repeat(np.arange(len(baskets)), np.diff(starts)), self.log.items[at]
        have, begun = positions(self.bought.starts[baskets], self.bought.starts[baskets + 1])
        pairs = np.repeat(np.arange(len(baskets)), np.diff(begun)) * self.log.products + self.bought.items[have]
        return row, item, np.isin(row * self.log.products + item, pairs)

    def _check_counted(self, baskets: np.ndarray) -> None:
        if not self.counted[baskets].all():
            raise ValueError("what was bought before is counted only for baskets that are predicted: ask for those")


class NextBasketLoss:
    """Which baskets of a log a network learns to predict, and the loss of its scores."""

    def __init__(
        self,
        log: InteractionLog,
        day: np.ndarray,
        on_sale: np.ndarray,
        start: float,
        repeats: float,
        device: torch.device | str = "cpu",
    ):
        """`day` (baskets,) of the prediction points, `on_sale` (products,) the first day of each product on sale.

        A basket is predicted if its shopper has an earlier one, if its day is `start` or later, and if a product in it
        was on sale by that day: nobody can recommend a product that is not on sale. A repeat counts `repeats` times.
        The scores of a loss are on `device`.
        """
        row = np.repeat(np.arange(len(day)), log.sizes)
        possible = np.bincount(row, on_sale[log.items] < day[row], minlength=len(day)) > 0
        self.predicted = possible & (log.first < np.arange(len(day))) & (day >= start)
        returns = np.bincount(log.first[self.predicted], minlength=len(day))[log.first]
        # A basket of many lines, and a shopper of many baskets, would otherwise drown the others.
        weight = (np.maximum(log.sizes, 1) * np.maximum(returns, 1.0)) ** -0.5
        self.weight = torch.from_numpy(weight).float().to(device)
        self.day, self.on_sale = (torch.from_numpy(days).to(device) for days in (day, on_sale))
        self.repeats, self.device = repeats, device

    def loss(self, scores: Tensor, baskets: np.ndarray, row: np.ndarray, item: np.ndarray, again: np.ndarray) -> Tensor:
        """Weighted mean nats of the products of baskets, from `scores` (baskets, N): one softmax over what is on sale.

        Each line has its `row` among the baskets, its product `item`, and `again`: whether the shopper had it before.
        """
        places, rows, items = map(self._moved, (baskets, row, item))
        not_on_sale = self.on_sale >= self.day[places][:, None]
        log_probabilities = scores.masked_fill(not_on_sale, -1e4).log_softmax(dim=1)
        weight = self.weights(baskets, row, item, again)
        return -(log_probabilities[rows, items] * weight).sum() / weight.sum()

    def weights(self, baskets: np.ndarray, row: np.ndarray, item: np.ndarray, again: np.ndarray) -> Tensor:
        """How much each line counts in the loss, (lines,) float32; zero where the product was not on sale."""
        places, rows, items, repeated = map(self._moved, (baskets, row, item, again))
        on_sale = self.on_sale[items] < self.day[places][rows]
        return self.weight[places][rows] * (1 + (self.repeats - 1) * repeated) * on_sale

    def _moved(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
