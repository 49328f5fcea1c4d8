"""How a model learns: the settings of a run, the learning rate of each step, the optimizers."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. A batch is that of a whole step: of all processes and all accumulated parts."""

    steps: int = 1000
    batch: int = 32  # examples
    accumulate: int = 1  # parts of a batch, one after the other, where the whole does not fit in memory
    learning_rate: float = 3e-3  # of AdamW, at its highest
    matrix_learning_rate: float = 0.0  # of Muon, for the blocks' matrices, at its highest; 0: AdamW for all
    warmup: int = 50  # steps to the highest learning rate
    final: float = 0.1  # share of the highest learning rate at the end
    weight_decay: float = 0.1
    clip: float = 1.0  # largest norm of all gradients together; 0: any
    evaluate_every: int = 100  # steps
    save_every: int = 100  # steps
    seed: int = 0  # of the batches and of the dropout
    precision: str = "auto"  # of matrix products: "float32", "bfloat16", or the second where the device has it
    compile: bool = False  # by torch.compile: pays on a GPU; on a CPU compiling takes longer than it saves

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.accumulate, self.evaluate_every, self.save_every) < 1:
            raise ValueError(f"steps, batch, accumulate, evaluate_every and save_every must be at least 1: {self}")
        if min(self.matrix_learning_rate, self.warmup, self.final, self.weight_decay, self.clip) < 0:
            raise ValueError(f"rates, warmup, final, weight_decay and clip cannot be negative: {self}")
        if self.learning_rate <= 0 or self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"learning_rate must be positive, precision auto, float32 or bfloat16: {self}")


def learning_rate_schedule(step: int, settings: TrainingConfig) -> float:
    """The share of the highest learning rate at a step: a straight line up, then half a cosine down to `final`."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    progress = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def make_optimizers(model: nn.Module, settings: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW, which decays matrices but neither biases nor norms; with a `matrix_learning_rate` also Muon.

    Muon takes the matrices inside the model's `blocks`. Loshchilov & Hutter (2019); Jordan et al. (2024). RuntimeError
    where PyTorch is too old for Muon.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    inner = {name for name, p in named if settings.matrix_learning_rate and p.ndim == 2 and "blocks." in name}
    rest = [parameter for name, parameter in named if name not in inner]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    adam = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=True)
    made: list[torch.optim.Optimizer] = [adam]
    if inner:
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(
                f"Muon needs torch 2.9 or newer, this is {torch.__version__}: set matrix_learning_rate=0"
            )
        matrices = [parameter for name, parameter in named if name in inner]
        made.append(torch.optim.Muon(matrices, settings.matrix_learning_rate, settings.weight_decay))
    return made
