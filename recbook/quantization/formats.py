"""Formats of quantized weights: int8 (absmax), NF4 (quantiles of the normal distribution), and how to dequantize each.

Functions from tensors to tensors; `weights` and `layers` use them. Codes, their order in a byte and the levels of NF4
are those of `bitsandbytes`. Dettmers et al. (2022), (2023).
"""

from math import ceil, prod

import numpy as np
import torch
from scipy.special import ndtri  # the quantiles of the normal distribution
from torch import Tensor
from torch.nn import functional as F

LARGEST_CODE = 127  # of the int8 codes; -128 is left out, so that zero is in the middle
NF4_BLOCK = 64  # weights that share a scale in NF4
DOUBLE_BLOCK = 256  # scales that share a scale when they are quantized themselves
SMALLEST = 1e-38  # a block of smaller numbers becomes zero: the inverse of its largest may be infinite
SCHEMES = ("int8", "nf4", "nf4-double")

BlockSize = str | int  # which weights share a scale: "tensor", "row", or a number of columns of a row


# --- Eight bits --------------------------------------------------------------------------------------------------


def int8(weight: Tensor, block: BlockSize = "row") -> tuple[Tensor, Tensor]:
    """Round weights (R, C) to whole steps of their block's largest absolute value / 127: codes int8 (R, C), scales.

    Scales are the steps, float32 (1, 1) for "tensor", (R, 1) for "row", (R, ceil(C / block)) for a number of columns.
    No weight moves by more than half a step. A block whose largest is below 127e-38 becomes zeros. ValueError for
    weights that are not finite.
    """
    weight = _finite(weight)
    steps = _largest(weight, block) / LARGEST_CODE
    steps = torch.where(steps < SMALLEST, torch.zeros_like(steps), steps)
    codes = weight / _spread(torch.where(steps == 0, torch.inf, steps), weight.shape, block)
    return codes.round_().clamp_(-LARGEST_CODE, LARGEST_CODE).to(torch.int8), steps


def from_int8(codes: Tensor, scales: Tensor, block: BlockSize = "row") -> Tensor:
    """Dequantize the codes of `int8`: each code times its step, (R, C), in the type of the scales."""
    return codes.to(scales.dtype) * _spread(scales, codes.shape, block)


def _largest(weight: Tensor, block: BlockSize) -> Tensor:
    """The largest absolute value of each block."""
    if block == "tensor":
        return weight.abs().amax().view(1, 1)
    if block == "row":
        return weight.abs().amax(1, keepdim=True)  # (R, C) -> (R, 1)
    rows, columns = weight.shape
    size = _columns(block)
    blocks = ceil(columns / size)
    padded = F.pad(weight, (0, blocks * size - columns))
    return padded.view(rows, blocks, size).abs().amax(2)  # (R, blocks, size) -> (R, blocks)


def _spread(scales: Tensor, shape: torch.Size, block: BlockSize) -> Tensor:
    """Scales that broadcast to the shape of the weight."""
    if block in ("tensor", "row"):
        return scales
    return scales.repeat_interleave(_columns(block), dim=1)[:, : shape[1]]  # (R, blocks) -> (R, C)


def _columns(block: BlockSize) -> int:
    if not isinstance(block, int) or block < 1:
        raise ValueError(f'block is {block!r}; what shares a scale is "tensor", "row", or a number of columns')
    return block


# --- Four bits ---------------------------------------------------------------------------------------------------


def normal_levels() -> Tensor:
    """NF4's sixteen levels from -1 to 1, float32 (16,): quantiles of the normal distribution, divided by the outermost.

    Seven below zero and eight above, each side at equal steps of probability from one half to NF4_TAIL; and zero.
    Dettmers et al. (2023), section 3; in float32 throughout, so that they are those of `bitsandbytes` to the last bit.
    """
    below, above = (ndtri(torch.linspace(NF4_TAIL, 0.5, count + 1)[:-1].double().numpy()) for count in (7, 8))
    levels = torch.from_numpy(np.concatenate([-below, [0.0], above[::-1]])).float()
    return levels / levels.max()


NF4_TAIL = 0.9677083  # the mean of 1 - 1/32 and 1 - 1/30: half a share short of one, for sixteen levels and for fifteen
NF4_LEVELS = normal_levels()
NF4_ZERO = 7  # the code of 0.0
# Half-way between neighbours, where the nearest level changes: (15,).
NF4_BORDERS = (NF4_LEVELS[:-1] + NF4_LEVELS[1:]) / 2
# The two levels of each byte, side by side in one number of eight bytes: (256,).
NF4_PAIRS = torch.cartesian_prod(NF4_LEVELS, NF4_LEVELS).view(torch.int64).flatten()


def nf4(weight: Tensor, block: int = NF4_BLOCK) -> tuple[Tensor, Tensor]:
    """Round each weight to the nearest NF4 level times its block's largest absolute value.

    Blocks run over the flattened weight; the last may be shorter. Returns the codes, two a byte, uint8
    (ceil(n / 2),), and the largest values float32 (ceil(n / block),). ValueError for weights that are not finite.
    """
    flat = _finite(weight).flatten()
    blocks = F.pad(flat, (0, -len(flat) % block)).view(-1, block)  # (n,) -> (blocks, block)
    absmax = blocks.abs().amax(1)
    shares = (blocks * (1 / absmax.clamp_min(SMALLEST))[:, None]).flatten()[: len(flat)]
    codes = torch.bucketize(shares, NF4_BORDERS.to(flat.device), out_int32=True)
    return pack(codes.to(torch.uint8)), absmax


def from_nf4(packed: Tensor, absmax: Tensor, shape: tuple[int, ...], block: int = NF4_BLOCK) -> Tensor:
    """Dequantize the codes of `nf4`: weights of this shape, in the type of `absmax`."""
    count = prod(shape)
    # Both levels of a byte are fetched as one number of eight bytes: four times as fast as two of four.
    levels = NF4_PAIRS.to(packed.device).index_select(0, packed.int()).view(torch.float32)  # (bytes,) -> (2 · bytes,)
    levels = F.pad(levels[:count], (0, -count % block)) if count % block else levels
    return levels.view(-1, block).mul_(absmax[:, None]).flatten()[:count].view(shape).to(absmax.dtype)


def pack(codes: Tensor) -> Tensor:
    """Pack codes of four bits, uint8 (n,), two per byte, the first in the high half. An odd number is padded."""
    codes = F.pad(codes, (0, len(codes) % 2), value=NF4_ZERO)
    return (codes[0::2] << 4) | codes[1::2]


def unpack(packed: Tensor, count: int) -> Tensor:
    """Unpack the first `count` codes of such bytes, uint8 (count,)."""
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count]


# --- Double quantization -----------------------------------------------------------------------------------------


def double_quantize(absmax: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize NF4's scales (blocks,) too: int8 codes (blocks,), steps (ceil(blocks / 256),), their mean (1,).

    Scales are all above zero, so their mean is subtracted first. `bitsandbytes` does the same with a code that is not
    linear: it needs as many bytes, but they differ. Dettmers et al. (2023), section 3.
    """
    mean = absmax.mean().view(1)
    rest = (absmax - mean).view(1, -1)
    codes, steps = int8(rest, DOUBLE_BLOCK)
    return codes.flatten(), steps.flatten(), mean


def from_double_quantized(codes: Tensor, steps: Tensor, mean: Tensor) -> Tensor:
    """Dequantize the scales of `double_quantize`, (blocks,)."""
    return from_int8(codes.view(1, -1), steps.view(1, -1), DOUBLE_BLOCK).flatten() + mean


# --- Sizes -------------------------------------------------------------------------------------------------------


def weight_bytes(rows: int, columns: int, scheme: str) -> int:
    """The bytes of a weight (rows, columns) in a scheme, codes and scales; also in "float32" and "bfloat16"."""
    count = rows * columns
    blocks = ceil(count / NF4_BLOCK)
    sizes = {
        "float32": 4 * count,
        "bfloat16": 2 * count,
        "int8": count + 4 * rows,
        "nf4": ceil(count / 2) + 4 * blocks,
        "nf4-double": ceil(count / 2) + blocks + 4 * ceil(blocks / DOUBLE_BLOCK) + 4,
    }
    if scheme not in sizes:
        raise ValueError(f"no scheme {scheme!r}; there are {', '.join(sizes)}")
    return sizes[scheme]


def _finite(weight: Tensor) -> Tensor:
    """The weight as float32; ValueError if a number is not finite."""
    weight = weight.detach().float()
    if not weight.isfinite().all():
        place = (~weight.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"the weight at {place} is {weight[tuple(place)].item()}: only finite numbers have codes")
    return weight
