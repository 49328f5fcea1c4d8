"""The cross-entropy over a large vocabulary without the whole logits, the largest tensor of training.

Logits are (positions, vocabulary): for a batch of a few thousand positions far more numbers than the model has weights.
Their gradient, softmax minus one-hot, is known as soon as they are. So the forward pass takes the positions in blocks,
adds up the loss and both gradients, and drops each block's logits. Hsu et al. (2024), Wijmans et al. (2024).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE_INDEX = -1  # the target of a position that does not count


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int = 512) -> Tensor:
    """The mean cross-entropy in nats of `targets` (N,) under the logits `hidden @ weight.T`, as a scalar.

    hidden (N, C), weight (V, C); at most (chunk, V) logits exist at a time. Targets at -1 are left out; if all are, the
    loss and its gradients are 0. Under autocast the products are of its type, sums and softmax of float32. ValueError
    for shapes that do not fit. The gradient has no gradient of its own.
    """
    N, C = hidden.shape
    if weight.ndim != 2 or weight.shape[1] != C or targets.shape != (N,):
        raise ValueError(
            f"hidden (N, C), weight (V, C) and targets (N,) do not fit: {tuple(hidden.shape)}, {tuple(weight.shape)}, "
            f"{tuple(targets.shape)}; flatten batch and time into N first"
        )
    if not torch.compiler.is_compiling():  # compiled code has one shape; here, logits that do not count are not made
        counted = targets != IGNORE_INDEX
        hidden, targets = hidden[counted], targets[counted]
    return _LinearCrossEntropy.apply(hidden, weight, targets, chunk, torch.is_grad_enabled())


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, learning: bool) -> Tensor:
        device = hidden.device.type
        product = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        wide = torch.promote_types(product, torch.float32)
        wants_hidden, wants_weight = (learning and needed for needed in ctx.needs_input_grad[:2])
        narrow_weight, counted = weight.to(product), targets != IGNORE_INDEX
        share = counted / counted.sum().clamp_min(1).to(wide)  # (N,): what each position weighs in the mean
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        weight_grad = torch.zeros_like(weight, dtype=wide) if wants_weight else None
        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), chunk):
                rows = slice(start, start + chunk)
                inputs = hidden[rows].to(product)
                picked, grad = _softmax_grad(inputs @ narrow_weight.T, targets[rows].clamp_min(0), share[rows], wide)
                loss += picked
                if hidden_grad is not None:
                    hidden_grad[rows] = grad.to(product) @ narrow_weight  # (chunk, V) @ (V, C)
                if weight_grad is not None:
                    weight_grad += grad.to(product).T @ inputs  # (V, chunk) @ (chunk, C)
        ctx.save_for_backward(hidden_grad, weight_grad if weight_grad is None else weight_grad.to(weight.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_grad, weight_grad = (grad if grad is None else outer.to(grad.dtype) * grad for grad in ctx.saved_tensors)
        return hidden_grad, weight_grad, None, None, None


def _softmax_grad(logits: Tensor, targets: Tensor, share: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """The sum of share · cross-entropy over a block of logits (n, V), and its gradient share · (softmax - one-hot).

    The gradient takes the logits' place in memory.
    """
    logits, targets, share = logits.to(wide), targets[:, None], share[:, None]  # (n, V), (n, 1), (n, 1)
    right, highest = logits.gather(1, targets), logits.amax(-1, keepdim=True)
    odds = logits.sub_(highest).exp_()  # one exponential of every logit, for the loss and for its gradient
    total = odds.sum(-1, keepdim=True)
    loss = (share * (total.log() + highest - right)).sum()
    return loss, odds.mul_(share / total).scatter_add_(1, targets, -share)
