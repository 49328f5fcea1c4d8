"""Distillation: a small BasketGPT, the student, learns from true baskets and from a larger teacher's labels.

A true basket says which few products of thousands were bought; a teacher's list also says how near the others came, and
there is one for everybody, whether or not they came back. The student learns from both in one training loop, by a joint
loss: `alpha` is the share of the labels in it. Hinton, Vinyals & Dean (2015), "Distilling the Knowledge in a Neural
Network"; for short lists in place of classes, Tang & Wang (2018), "Ranking Distillation"; Cao et al. (2007), "Learning
to Rank: From Pairwise Approach to Listwise Approach".
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbook.baskets.batches import BasketWindows
from recbook.baskets.catalogue import Catalogue
from recbook.baskets.log import DAY, interaction_log, log_of_histories, prediction_points
from recbook.baskets.model import BasketGPT, product_vectors
from recbook.baskets.network import BasketGPTConfig, BasketNetwork
from recbook.baskets.shop_features import ShopFeatures
from recbook.baskets.task import NextBasketTask
from recbook.cleaning.receipts import descriptions
from recbook.distillation.labels import Label
from recbook.training.batching import batch_of_like_length
from recbook.training.distributed import available_device
from recbook.training.loop import train

# A fifth of the teacher's parameters: most of them are the products' own vectors, so the width decides.
STUDENT_CONFIG = BasketGPTConfig(layers=1, heads=2, width=16, pointer=32, features=8, dropout=0.1)
BASKETS_DROPPED = (1, 2)  # last baskets that are taken off the histories which a teacher labels at its snapshot


@dataclass(frozen=True)
class DistillationConfig:
    """How a student learns from its teacher; chosen on the real log at a cut before November 2011."""

    alpha: float = 0.9  # share of the labels in the joint loss: 0 the true baskets alone, 1 the labels alone
    temperature: float = 1.0  # the teacher's scores are divided by it
    kept: int = 50  # recommendations per label that are learned
    confidence: float = 1.0  # a label's weight is the teacher's confidence to this power: 0 weighs all alike
    questions: int = 32  # labels per step

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.temperature <= 0 or self.confidence < 0:
            raise ValueError(f"alpha is from 0 to 1, temperature above 0, confidence 0 or more: {self}")
        if min(self.kept, self.questions) < 1:
            raise ValueError(f"kept and questions are at least 1: {self}")


# --- The loss on labels ------------------------------------------------------------------------------------------


def soft_targets(scores: Tensor, temperature: float) -> Tensor:
    """Scores of lists (n, K), -inf where one is shorter, as probabilities that sum to one, (n, K).

    A ranker's scores order products and have no unit; the temperature sets their scale. The higher it is, the flatter
    the list, and the more is learned about the places behind the first. The student's own logits are not divided: the
    true baskets make them log-probabilities, and one set of logits cannot have two scales.
    """
    return (scores / temperature).softmax(dim=1)


def teacher_confidence(chances: Tensor) -> Tensor:
    """How sure a teacher is, (n,) from 0 to 1: one less the entropy of its list (n, K) as a share of the largest.

    Zero where all products of the list have the same probability; one where a single product has it all.
    """
    entropy = torch.special.entr(chances).sum(dim=1)
    largest = (chances > 0).sum(dim=1).clamp_min(2).log()
    return (1 - entropy / largest).clamp(0, 1)


def listwise_kl(logits: Tensor, columns: Tensor, chances: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean Kullback-Leibler divergence of students' lists from the teacher's, in nats.

    `logits` (n, N) of all products, `columns` (n, K) those on the teacher's list, `chances` (n, K) the teacher's
    probabilities of them, `weight` (n,). The student's softmax goes over all products, not just the list: the teacher
    gives no probability to what is not on it, and the student learns that too.
    """
    logs = logits.log_softmax(dim=1).gather(1, columns)  # (n, N) -> (n, K)
    divergence = (torch.xlogy(chances, chances) - chances * logs).sum(dim=1)
    return (divergence * weight).sum() / weight.sum().clamp_min(1e-9)


class DistillationDataset:
    """Labels as training data: each is a history that ends in an empty basket, where the student is to predict."""

    def __init__(
        self,
        labels: Sequence[Label],
        catalogue: Catalogue,
        origin: pd.Timestamp,
        context: int,
        how: DistillationConfig,
        device: torch.device | str = "cpu",
    ):
        """`origin` is the day that days count from. All tensors are on `device`.

        ValueError: a product that the catalogue lacks, or no label.
        """
        if not labels:
            raise ValueError("there are no labels to learn from: have a teacher make some, or set alpha to 0")
        log = log_of_histories([_dated(label, catalogue, origin) for label in labels], len(catalogue.codes), origin)
        self.rows = np.flatnonzero(np.diff(log.first, append=-1))  # the empty baskets, one per label
        asked = np.isin(np.arange(len(log.days)), self.rows)
        self.windows = BasketWindows(log, prediction_points(log, ahead=0, seed=0), asked, context, device)
        first = log.first[self.rows]
        self.lengths = np.minimum(context, log.starts[self.rows] - log.starts[first] + self.rows - first + 1)  # tokens
        columns = [catalogue.columns(label.recommendations[: how.kept]) for label in labels]
        scores = torch.full((len(labels), max(map(len, columns))), -torch.inf)
        listed = torch.zeros(scores.shape, dtype=torch.int64)
        for row, (label, places) in enumerate(zip(labels, columns, strict=True)):
            scores[row, : len(places)] = torch.tensor(label.scores[: how.kept])
            listed[row, : len(places)] = torch.from_numpy(places)
        chances = soft_targets(scores, how.temperature)
        weight = teacher_confidence(chances) ** how.confidence
        self.columns, self.chances, self.weight = (tensor.to(device) for tensor in (listed, chances, weight))

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (n, T), the basket that opens at each position or -1 (n, T), and the labels' numbers (n,)."""
        chosen = batch_of_like_length(self.lengths, step, size, seed)
        tokens, basket, _ = self.windows.ends(self.rows[chosen])
        return tokens, basket, torch.from_numpy(chosen).to(self.windows.device)

    def states(self, network: BasketNetwork, tokens: Tensor, basket: Tensor, forget: float) -> Tensor:
        """The network's states at the labels' empty baskets: (n, C)."""
        states = network.states(tokens, self.windows.shoppers[basket], forget)  # (n, T, C)
        last = (tokens <= len(network.text)).sum(dim=1) - 1
        return states[torch.arange(len(tokens), device=tokens.device), last]


def _dated(label: Label, catalogue: Catalogue, origin: pd.Timestamp) -> list[tuple[float, np.ndarray]]:
    """The label's baskets as days and columns, and an empty one on the day that is asked about."""
    day = (label.asked - origin) / DAY
    return [*catalogue.dated(label.history, day, origin, 1.0), (day, np.array([], np.int64))]


# --- Learning ----------------------------------------------------------------------------------------------------


class DistillationTask:
    """Batches and joint loss of true baskets and, where there is a teacher, of labels, as `train` takes them."""

    def __init__(self, baskets: NextBasketTask, labels: DistillationDataset | None, how: DistillationConfig):
        """`baskets`: the task that a model without a teacher has; `labels`: none, where nothing is distilled."""
        self.baskets, self.labels, self.how = baskets, labels, how

    def batch(self, step: int, size: int, seed: int) -> tuple[Tensor, ...]:
        """Windows of true baskets, as by `BasketWindows.batch`, then labels, as by `DistillationDataset.batch`."""
        true = self.baskets.batch(step, size, seed)
        return true if self.labels is None else (*true, *self.labels.batch(step, self.how.questions, seed))

    def loss(self, network: BasketNetwork, batch: tuple[Tensor, ...]) -> Tensor:
        """The joint loss as two terms to be added: that on true baskets, and `alpha` times that on labels, (2,).

        Without labels it is that on true baskets, ().
        """
        if self.labels is None:
            return self.baskets.loss(network, batch)
        true, zero = batch[:3], torch.zeros((), device=network.device)
        on_baskets = self.baskets.loss(network, true) if (batch[2] >= 0).any() else zero
        on_labels = self._on_labels(self.labels, network, *batch[3:]) if len(batch[3]) else zero
        return torch.stack([(1 - self.how.alpha) * on_baskets, self.how.alpha * on_labels])

    def weigh(self, batch: tuple[Tensor, ...]) -> tuple[float, ...]:
        """The total weight of the targets in each term of the loss."""
        true = self.baskets.weigh(batch[:3])
        return (true,) if self.labels is None else (true, self.labels.weight[batch[5]].sum().item())

    def _on_labels(
        self, of: DistillationDataset, network: BasketNetwork, tokens: Tensor, basket: Tensor, chosen: Tensor
    ) -> Tensor:
        rows = of.rows[chosen.cpu().numpy()]
        states = of.states(network, tokens, basket, self.baskets.config.forget)
        scores = network.scores(states, of.windows.features(rows, self.baskets.shop_features))
        return listwise_kl(scores, of.columns[chosen], of.chances[chosen], of.weight[chosen])


def distil(
    receipts: pd.DataFrame,
    labels: Sequence[Label] = (),
    settings: BasketGPTConfig = STUDENT_CONFIG,
    how: DistillationConfig = DistillationConfig(),  # noqa: B008  (frozen)
    shop_features: ShopFeatures | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
) -> BasketGPT:
    """A small BasketGPT, fitted on clean receipts and on a teacher's `labels`, of days before the receipts end.

    With `how.alpha` zero no label is read: the same student, in the same steps, without a teacher. `shop_features`:
    what `count_features` gives for the same receipts, where several students share it. It learns and answers on
    `device`, by default on a GPU where there is one. ValueError if there are no labels and alpha is above zero, if
    nobody came back, or if a label names a product that the receipts lack.
    """
    device = available_device(device)
    texts = descriptions(receipts)
    log, _ = interaction_log(receipts, np.array(list(texts), dtype=str))
    model = BasketGPT(texts, count_features(receipts, settings) if shop_features is None else shop_features, settings)
    model.network.to(device)
    origin, context = log.origin, settings.context
    dataset = DistillationDataset(labels, model.catalogue, origin, context, how, device) if how.alpha else None
    baskets = NextBasketTask(log, model.shop_features, settings, device)
    baskets.fit_scales(model.network)
    task = DistillationTask(baskets, dataset, how)
    model.metrics = train(model.network, task, baskets.training(), loss=task.loss, weigh=task.weigh, progress=progress)
    model.network.eval()
    return model


def count_features(receipts: pd.DataFrame, settings: BasketGPTConfig = STUDENT_CONFIG) -> ShopFeatures:
    """The shop's features on every day of its receipts: the same for students of any size."""
    texts = descriptions(receipts)
    log, _ = interaction_log(receipts, np.array(list(texts), dtype=str))
    return ShopFeatures(log, product_vectors(texts), settings.refresh, settings.nearest, settings.solved)
