"""The next-basket task: what a BasketGPT is trained on, whoever trains it, with or without a teacher."""

from math import ceil

import numpy as np
import torch
from torch import Tensor

from recbook.baskets.batches import BasketWindows, NextBasketLoss
from recbook.baskets.features import on_sale_from
from recbook.baskets.log import InteractionLog, prediction_points
from recbook.baskets.network import BasketGPTConfig, BasketNetwork
from recbook.baskets.shop_features import ShopFeatures
from recbook.training.config import TrainingConfig

SCALED_BY = 256  # baskets whose features say what mean and spread they have


class NextBasketTask:
    """Batches and loss of next-basket prediction on a log, as `train` takes them."""

    def __init__(
        self,
        log: InteractionLog,
        shop_features: ShopFeatures,
        config: BasketGPTConfig,
        device: torch.device | str = "cpu",
    ):
        """For a network on `device`. ValueError if no shopper of the log comes back: there is then nothing to learn."""
        self.shop_features, self.config = shop_features, config
        points, start = prediction_points(log, config.ahead, config.seed), min(config.start, log.days.max() / 2)
        on_sale = on_sale_from(log, config.min_shoppers)
        self.objective = NextBasketLoss(log, points.day, on_sale, start, config.repeats, device)
        self.windows = BasketWindows(log, points, self.objective.predicted, config.context, device)
        if not self.windows.spans:
            what = f"something that {config.min_shoppers} shoppers had"
            least = f"{start:.0f} days after the first receipt or later, {what}"
            raise ValueError(f"nobody came back and bought, {least}: there is no next basket to learn from")

    def fit_scales(self, network: BasketNetwork) -> None:
        """Have the network scale its features by their mean and spread at some of the predicted baskets."""
        drawn = np.random.default_rng(self.config.seed).permutation(np.flatnonzero(self.objective.predicted))
        baskets = np.sort(drawn[:SCALED_BY])
        network.fit_scales(self.windows.features(baskets, self.shop_features), self.windows.shoppers[baskets])

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Windows of tokens, the baskets that open in them, and those to be predicted: `BasketWindows.batch`."""
        return self.windows.batch(step, size, seed)

    def loss(self, network: BasketNetwork, batch: tuple[Tensor, ...]) -> Tensor:
        """The mean loss of the baskets to be predicted in a batch, in nats."""
        tokens, basket, predicted = batch
        states = network.states(tokens, self.windows.shoppers[basket], self.config.forget)  # (B, T, C)
        baskets = predicted[predicted >= 0].cpu().numpy()
        scores = network.scores(states[predicted >= 0], self.windows.features(baskets, self.shop_features))
        return self.objective.loss(scores, baskets, *self.windows.targets(baskets))

    def weigh(self, batch: tuple[Tensor, ...]) -> float:
        """The total weight, in that mean, of the lines of a batch's baskets."""
        predicted = batch[2]
        baskets = predicted[predicted >= 0].cpu().numpy()
        return self.objective.weights(baskets, *self.windows.targets(baskets)).sum().item()

    def training(self) -> TrainingConfig:
        """How long and how fast to train; an epoch is once through the windows."""
        c, epoch = self.config, self.windows.steps(self.config.batch)
        steps = ceil(c.epochs * epoch)
        return TrainingConfig(
            steps, c.batch, learning_rate=c.learning_rate, weight_decay=c.weight_decay, final=0.02,
            evaluate_every=epoch, save_every=steps, seed=c.seed, precision="float32",
        )  # fmt: skip
