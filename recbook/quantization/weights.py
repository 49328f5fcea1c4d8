"""Quantized weights: codes and scales that the layers of `layers` multiply with.

Codes and scales are buffers, so they are saved and moved with the module and never trained. A product with a quantized
weight is differentiable in its input. The backward pass dequantizes the weight again, a part at a time, instead of
keeping it: so QLoRA trains beside a 4-bit base. Dettmers et al. (2023).
"""

from collections.abc import Iterator
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from recbook.quantization import formats
from recbook.quantization.formats import DOUBLE_BLOCK, NF4_BLOCK

MOST_NUMBERS_AT_ONCE = 2**19  # weights that are dequantized at a time, at most: they fit in the cache of a core
FEW_ROWS = 64  # rows of input up to which the int8 kernel is faster than dequantizing


class QuantizedWeight(nn.Module):
    """A weight (rows, columns) as codes and scales. A new one is empty: `write` fills it, or a state_dict does."""

    scheme: str

    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.shape = (rows, columns)

    @classmethod
    def of(cls, weight: Tensor) -> "QuantizedWeight":
        """Quantize a weight (rows, columns); ValueError if a number in it is not finite."""
        with torch.device("meta"):
            quantized = cls(*weight.shape)
        quantized.write(weight)
        return quantized

    def write(self, weight: Tensor) -> None:
        """Keep the codes and the scales of a weight (rows, columns)."""
        raise NotImplementedError

    def rows(self, tokens: Tensor) -> Tensor:
        """The dequantized rows of some tokens, (…,) int64 -> (…, columns), in the type of the scales."""
        raise NotImplementedError

    def dequantized(self) -> Tensor:
        """The whole weight, (rows, columns), in the type of the scales."""
        return self._between(self._all_scales(), 0, self.shape[0])

    def linear(self, x: Tensor) -> Tensor:
        """Inner products with all rows, (…, columns) -> (…, rows), differentiable in x."""
        return _Product.apply(x, self) if x.requires_grad and torch.is_grad_enabled() else self._product(x)

    def product(self, x: Tensor, at_once: int = MOST_NUMBERS_AT_ONCE) -> Tensor:
        """The same without a gradient. The weight is dequantized a part at a time, `at_once` numbers at most."""
        if self.shape[0] * self.shape[1] <= at_once:
            return F.linear(x, self.dequantized().to(x.dtype))
        y = x.new_empty(0)  # allocated once, below: pieces between the dequantized parts would fragment the memory
        for first, end, weight in self._parts(at_once):
            piece = F.linear(x, weight.to(x.dtype))
            y = y if first else piece.new_empty(*x.shape[:-1], self.shape[0])
            y[..., first:end] = piece
        return y

    def _product(self, x: Tensor) -> Tensor:  # a subclass with a kernel for its codes overrides this
        return self.product(x)

    def back(self, grad: Tensor) -> Tensor:
        """The gradient of x, given that of the products, (…, rows) -> (…, columns)."""
        parts = (grad[..., first:end] @ weight.to(grad.dtype) for first, end, weight in self._parts())
        return sum(parts, start=grad.new_zeros(()))

    def _parts(self, at_once: int = MOST_NUMBERS_AT_ONCE) -> Iterator[tuple[int, int, Tensor]]:
        scales, (rows, columns) = self._all_scales(), self.shape
        step = max(1, at_once // columns)
        for first in range(0, rows, step):
            end = min(rows, first + step)
            yield first, end, self._between(scales, first, end)

    def _all_scales(self) -> Tensor:
        raise NotImplementedError

    def _between(self, scales: Tensor, first: int, end: int) -> Tensor:
        """The dequantized rows from `first` to `end`, (end - first, columns)."""
        raise NotImplementedError


class _Product(torch.autograd.Function):
    """x @ weight.T that saves neither x nor the weight: the gradient of x needs the codes alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, quantized: QuantizedWeight) -> Tensor:
        ctx.quantized = quantized
        return quantized.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.quantized.back(grad), None


class Int8Weight(QuantizedWeight):
    """int8: one byte per weight, one scale per row."""

    scheme = "int8"

    def __init__(self, rows: int, columns: int):
        """Empty codes int8 (rows, columns) and scales (rows, 1)."""
        super().__init__(rows, columns)
        self.register_buffer("codes", torch.empty(rows, columns, dtype=torch.int8))
        self.register_buffer("scales", torch.empty(rows, 1))

    def write(self, weight: Tensor) -> None:
        """Keep the codes and the scales of a weight (rows, columns)."""
        self.codes, self.scales = formats.int8(weight, "row")

    def rows(self, tokens: Tensor) -> Tensor:
        """The dequantized rows of some tokens, (…,) int64 -> (…, columns)."""
        return self.codes[tokens].to(self.scales.dtype) * self.scales[tokens]

    def _product(self, x: Tensor) -> Tensor:
        count = x.numel() // self.shape[1]
        if not (0 < count <= FEW_ROWS and has_int8_product(x)):
            return self.product(x)
        # With float32 input the same kernel is slower than a float32 product: in bfloat16 or not at all.
        rows = x.reshape(count, self.shape[1]).to(torch.bfloat16).contiguous()  # (…, columns) -> (n, columns)
        y = torch._weight_int8pack_mm(rows, self.codes, self.scales.flatten().to(torch.bfloat16))
        return y.to(x.dtype).view(*x.shape[:-1], self.shape[0])

    def _all_scales(self) -> Tensor:
        return self.scales

    def _between(self, scales: Tensor, first: int, end: int) -> Tensor:
        return formats.from_int8(self.codes[first:end], scales[first:end])


def has_int8_product(x: Tensor) -> bool:
    """Whether PyTorch has a kernel that multiplies x (…, C) with int8 codes: on a CPU, x in float32 or bfloat16.

    C must be a multiple of 16: for others PyTorch 2.13 reads beyond the end of a row, and gives nonsense or crashes.
    """
    fits = x.dtype in (torch.float32, torch.bfloat16) and x.shape[-1] % 16 == 0
    return fits and x.device.type == "cpu" and hasattr(torch, "_weight_int8pack_mm")


class NF4Weight(QuantizedWeight):
    """NF4: half a byte per weight, one scale per 64 weights."""

    scheme = "nf4"

    def __init__(self, rows: int, columns: int):
        """Empty codes uint8 (ceil(n / 2),) and scales (ceil(n / 64),), over all n weights in a row."""
        super().__init__(rows, columns)
        self.register_buffer("codes", torch.empty(ceil(rows * columns / 2), dtype=torch.uint8))
        self._make_scales(ceil(rows * columns / NF4_BLOCK))

    def _make_scales(self, blocks: int) -> None:
        self.register_buffer("absmax", torch.empty(blocks))

    def write(self, weight: Tensor) -> None:
        """Keep the codes and the scales of a weight (rows, columns)."""
        self.codes, self.absmax = formats.nf4(weight)

    def rows(self, tokens: Tensor) -> Tensor:
        """The dequantized rows of some tokens, (…,) int64 -> (…, columns)."""
        columns, scales = self.shape[1], self._all_scales()
        place = tokens[..., None] * columns + torch.arange(columns, device=tokens.device)  # (…,) -> (…, columns)
        code = (self.codes[place // 2] >> (4 * (1 - place % 2)).to(torch.uint8)) & 15
        return formats.NF4_LEVELS.to(scales)[code.long()] * scales[place // NF4_BLOCK]

    def _all_scales(self) -> Tensor:
        return self.absmax

    def _between(self, scales: Tensor, first: int, end: int) -> Tensor:
        columns = self.shape[1]
        start, stop = first * columns // NF4_BLOCK * NF4_BLOCK, end * columns  # a block may begin inside a row
        codes, scales = self.codes[start // 2 : ceil(stop / 2)], scales[start // NF4_BLOCK : ceil(stop / NF4_BLOCK)]
        flat = formats.from_nf4(codes, scales, (stop - start,))
        return flat[first * columns - start :].view(end - first, columns)


class DoubleNF4Weight(NF4Weight):
    """NF4 with double quantization: the scales have a byte each."""

    scheme = "nf4-double"

    def _make_scales(self, blocks: int) -> None:
        self.register_buffer("absmax", torch.empty(blocks, dtype=torch.int8))
        self.register_buffer("steps", torch.empty(ceil(blocks / DOUBLE_BLOCK)))
        self.register_buffer("mean", torch.empty(1))

    def write(self, weight: Tensor) -> None:
        """Keep the codes and the scales of a weight (rows, columns)."""
        self.codes, absmax = formats.nf4(weight)
        self.absmax, self.steps, self.mean = formats.double_quantize(absmax)

    def _all_scales(self) -> Tensor:
        return formats.from_double_quantized(self.absmax, self.steps, self.mean)


WEIGHT_CLASSES = {weight.scheme: weight for weight in (Int8Weight, NF4Weight, DoubleNF4Weight)}
