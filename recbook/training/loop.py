"""One training loop for every scale and device: accumulation, clipping, checkpoints, resume, several processes.

Every step is a function of its number: its batch, its dropout and its learning rate are the same whether or not the
run was interrupted, so on one machine a run that is killed at any moment and resumed ends with the identical weights.
Started by `torchrun`, the same loop shares each batch among the processes, even one of fewer rows than processes.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from recbook.gpt.model import GPT
from recbook.storage import whole_file
from recbook.training import checkpoints
from recbook.training.config import TrainingConfig, learning_rate_schedule, make_optimizers
from recbook.training.distributed import all_reduce_gradients, broadcast_weights, has_bfloat16, join_processes
from recbook.training.progress import ProgressLine

TrainingBatch = tuple[Tensor, ...]
LossFunction = Callable[[Any, TrainingBatch], Tensor]  # of the model that is trained, whatever its class
WeightFunction = Callable[[TrainingBatch], float | Sequence[float]]  # of a batch's targets, for each term of the loss


class TrainingData(Protocol):
    """What the loop needs of data."""

    def batch(self, step: int, size: int, seed: int) -> TrainingBatch:
        """The `size` examples of a step, always the same: tensors with the examples along the first axis.

        The last tensor holds the targets; integer targets at -1 do not count.
        """


class ValidationData(Protocol):
    """What `validation_loss` needs of data."""

    def blocks(self, size: int) -> Iterable[TrainingBatch]:
        """All (tokens, targets), each target once, in batches of at most `size` examples."""


class TrainingDiverged(RuntimeError):
    """Loss or gradient is not a finite number any more; the message names the step and the last good checkpoint."""


def next_token_loss(model: GPT, batch: TrainingBatch) -> Tensor:
    """The loss of a language model: mean nats per target, from (tokens, targets), both (B, T)."""
    return model.loss(*batch)


def validation_loss(model: GPT, windows: ValidationData, size: int = 32) -> dict[str, float]:
    """`{"validation_loss": nats per target}` over all of `windows.blocks(size)`: every target once, in float32."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    total, targets = 0.0, 0
    with torch.no_grad():
        for batch in windows.blocks(size):
            count = count_targets(batch)
            total += count * next_token_loss(model, tuple(tensor.to(device) for tensor in batch)).item()
            targets += count
    model.train(was_training)
    return {"validation_loss": total / targets}


def count_targets(batch: TrainingBatch) -> int:
    """How many targets of a batch count: all numbers of its last tensor, but for integers at -1."""
    targets = batch[-1]
    return targets.numel() if targets.is_floating_point() else int((targets != -1).sum())


def train(
    model: nn.Module,
    data: TrainingData,
    settings: TrainingConfig,
    folder: str | Path | None = None,
    *,
    loss: LossFunction = next_token_loss,
    weigh: WeightFunction = count_targets,
    validate: Callable[[Any], dict[str, float]] | None = None,
    sample: Callable[[Any], str] | None = None,
    track: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train `model` in place; returns the metrics, a dict every `evaluate_every` steps.

    `loss(model, batch)` is the mean over the targets that count, (), or several means (terms,) that are added up.
    `weigh(batch)` is the total weight of the targets in each of these means; a part of a batch counts by its share.
    With a `folder`, metrics are lines of its metrics.jsonl, checkpoints go there every `save_every` steps, and a run
    that finds one goes on from it. `validate` gives figures to keep and `sample` a text to keep and show; `track` gets
    every dict of metrics. PyTorch's random state is left as it was. TrainingDiverged: loss or gradient is not finite;
    the model stays as it was before that step.
    """
    run = _Run(model, settings, Path(folder) if folder else None, weigh)
    devices = [run.device] if run.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        start = run.resume()
        compiled = torch.compile(loss) if settings.compile else loss
        shown = ProgressLine(start, settings.steps, progress and run.rank == 0 and start < settings.steps)
        since, tokens = time.perf_counter(), 0
        for step in range(start, settings.steps):
            batch = data.batch(step, settings.batch, settings.seed)
            figures = run.step(step, batch, compiled)
            tokens += batch[0].numel()
            shown.update(step + 1, figures["loss"], batch[0].numel())
            if run.due(step + 1, settings.evaluate_every):
                seconds = time.perf_counter() - since
                figures |= {"seconds": round(seconds, 3), "tokens_per_second": round(tokens / seconds)}
                run.record(figures | run.evaluate(validate, sample, shown), track)
                since, tokens = time.perf_counter(), 0
            if run.due(step + 1, settings.save_every):
                run.save(step + 1)
        shown.close()
    return run.metrics


class _Run:
    """A run's state: model, optimizers, place among the processes, metrics, last checkpoint."""

    def __init__(self, model: nn.Module, settings: TrainingConfig, folder: Path | None, weigh: WeightFunction):
        self.model, self.settings, self.folder, self.weigh = model, settings, folder, weigh
        self.device = next(model.parameters()).device
        self.rank, self.processes = join_processes(self.device)
        self.bfloat16 = settings.precision == "bfloat16" or settings.precision == "auto" and has_bfloat16(self.device)
        self.optimizers = make_optimizers(model, settings)
        self.metrics: list[dict] = []
        self.saved: Path | None = None

    def due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.settings.steps

    def step(self, number: int, batch: TrainingBatch, loss: LossFunction) -> dict[str, float]:
        """One update; returns the step's number, the batch's loss, the gradient's norm and the learning rate."""
        s = self.settings
        torch.manual_seed(s.seed * 1_000_003 + number * self.processes + self.rank)  # dropout depends on the step alone
        self.model.train()
        total = self._backward(batch, loss)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), s.clip or math.inf)
        figures = {"step": number + 1, "loss": total.item(), "gradient_norm": norm.item()}
        self._check(figures)  # before the update: what is not finite never reaches the weights
        share = learning_rate_schedule(number, s)
        for optimizer, highest in zip(self.optimizers, (s.learning_rate, s.matrix_learning_rate), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = highest * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return figures | {"learning_rate": s.learning_rate * share}

    def _backward(self, batch: TrainingBatch, loss: LossFunction) -> Tensor:
        """Gradients and value of the mean loss over all targets of the batch that count, computed part by part."""
        total = torch.zeros((), device=self.device)
        if not count_targets(batch):
            raise ValueError("no target of this batch counts: all are -1, so there is nothing to learn from it")
        for part, shares in self._parts(batch):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                means = loss(self.model, tuple(tensor.to(self.device) for tensor in part))
                value = (shares.to(means) * means).sum()
            value.backward()
            total += value.detach()
        if self.processes > 1:
            all_reduce_gradients([parameter for parameter in self.model.parameters() if parameter.requires_grad], total)
        return total

    def _parts(self, batch: TrainingBatch) -> Iterator[tuple[TrainingBatch, Tensor]]:
        """This process's parts of a batch, each with its shares of the weight of the batch's targets, (terms,).

        The mean of the parts' means would be another loss where targets are left out, or rows do not divide evenly.
        """
        if self.processes * self.settings.accumulate == 1:
            yield batch, torch.ones(1)
            return
        whole, mine = self._weights(batch), [tensor.tensor_split(self.processes)[self.rank] for tensor in batch]
        for part in zip(*(tensor.tensor_split(self.settings.accumulate) for tensor in mine), strict=True):
            weights = self._weights(part)
            if weights.any():  # the mean of no targets is no number
                yield part, torch.where(whole > 0, weights / whole, 0)

    def _weights(self, batch: TrainingBatch) -> Tensor:
        return torch.tensor(self.weigh(batch), dtype=torch.float64).reshape(-1)

    def _check(self, figures: dict[str, float]) -> None:
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(figures[name]):
                raise self._diverged(f"{name} is {figures[name]} at step {figures['step']}")

    def _diverged(self, what: str) -> TrainingDiverged:
        saved = f"the last good checkpoint is {self.saved}" if self.saved else "there is no checkpoint"
        remedy = "lower the learning rate, warm up longer, or look at that step's batch"
        return TrainingDiverged(f"{what}; {saved}. To get on, {remedy}.")

    def evaluate(self, validate: Callable | None, sample: Callable | None, shown: ProgressLine) -> dict:
        """The figures of `validate` and the text of `sample`, with the model in evaluation mode."""
        self.model.eval()
        with torch.no_grad():
            figures = dict(validate(self.model)) if validate else {}
            if sample and self.rank == 0:
                figures["sample"] = sample(self.model)
                shown.write(figures["sample"])
        return figures

    def record(self, figures: dict, track: Callable[[dict], None] | None) -> None:
        """Keep a line of metrics: in memory, in metrics.jsonl, and with `track`."""
        self.metrics.append(figures)
        if self.rank == 0 and self.folder:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(figures) + "\n")
        if self.rank == 0 and track is not None:
            track(figures)

    def save(self, step: int) -> None:
        if self.folder and self.rank == 0:
            reached = checkpoints.RunState(step, self.metrics)
            try:
                self.saved = checkpoints.save_checkpoint(
                    self.folder, reached, self.model, self.optimizers, asdict(self.settings)
                )
            except checkpoints.NotFinite as error:
                raise self._diverged(str(error)) from error

    def resume(self) -> int:
        """Go to the last checkpoint, and metrics.jsonl with it; returns the number of steps done."""
        if self.processes > 1:
            broadcast_weights(self.model)
        if self.folder is None:
            return 0
        reached = checkpoints.resume_checkpoint(self.folder, self.model, self.optimizers, asdict(self.settings))
        self.metrics = reached.metrics
        self.saved = self.folder / f"step-{reached.step:07d}" if reached.step else None
        if self.rank == 0:
            with whole_file(self.folder / "metrics.jsonl") as file:  # lines beyond the checkpoint will come again
                file.write("".join(json.dumps(figures) + "\n" for figures in self.metrics).encode())
        return reached.step
