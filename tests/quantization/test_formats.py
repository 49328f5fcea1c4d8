"""formats: codes and levels are bitsandbytes', errors are within the bounds, sizes are right to the byte."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from recbook.quantization import formats
from recbook.quantization.formats import NF4_BORDERS, NF4_LEVELS

SHAPES = [(64, 64), (3, 20), (37, 50), (5, 192), (1, 130), (2, 1), (128, 512)]


def weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return 0.02 * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@st.composite
def matrices(draw) -> torch.Tensor:
    """Weights of all kinds: sizes from denormal to huge, with outliers and rows of zeros."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 90))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = rng.standard_normal((rows, columns)) * 10.0 ** draw(st.integers(-45, 35))
    matrix *= 10.0 ** rng.integers(0, draw(st.integers(1, 4)), (rows, columns))
    matrix[rng.random(rows) < draw(st.sampled_from([0, 0.3]))] = 0
    return torch.from_numpy(matrix).float()


# Eight bits


def test_int8_by_hand():
    weight = torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0, 0.0], [-254.0, 2.0, 3.1]])
    codes, scales = formats.int8(weight)
    assert codes.tolist() == [[127, -50, 0], [0, 0, 0], [-127, 1, 2]]
    assert torch.allclose(scales, torch.tensor([[0.01], [0.0], [2.0]]))
    assert torch.allclose(formats.from_int8(codes, scales)[2], torch.tensor([-254.0, 2.0, 4.0]))
    codes, scales = formats.int8(weight, "tensor")
    assert codes.tolist() == [[1, 0, 0], [0, 0, 0], [-127, 1, 2]] and scales.tolist() == [[2.0]]
    codes, scales = formats.int8(weight, 2)
    assert codes.tolist() == [[127, -50, 127], [0, 0, 0], [-127, 1, 127]] and scales.shape == (3, 2)


@settings(max_examples=300, deadline=None)
@given(matrices(), st.sampled_from(["tensor", "row", 1, 7, 64]))
@example(torch.full((1, 1), 1e-45), "row")
@example(torch.full((2, 3), -3.4e38), 2)
@example(torch.zeros(2, 5), "tensor")
def test_int8_moves_no_weight_by_more_than_half_a_step_of_its_block(weight, block):
    codes, scales = formats.int8(weight, block)
    again = formats.from_int8(codes, scales, block)
    assert codes.dtype == torch.int8 and codes.min() >= -127 and again.shape == weight.shape
    for row in range(len(weight)):
        for column in range(weight.shape[1]):
            place = {"tensor": (0, 0), "row": (row, 0)}.get(block) or (
                row,
                column // (block if block != "tensor" else 1),
            )
            error = (again[row, column] - weight[row, column]).abs()
            assert error <= scales[place] * (0.5 + 1e-4) + 127e-38  # rounding of the arithmetic; what counts as zero


def test_a_finer_block_is_nearer_where_there_is_an_outlier():
    weight = weights(32, 256)
    weight[3, 7] = 4.0
    errors = [
        (formats.from_int8(*formats.int8(weight, block), block) - weight).square().mean()
        for block in ("tensor", "row", 64)
    ]
    assert errors[0] > 20 * errors[1] > 20 * errors[2]


@pytest.mark.parametrize("block", ["column", 0, -3, 2.0])
def test_an_unknown_block_is_refused(block):
    with pytest.raises(ValueError, match="number of columns"):
        formats.int8(weights(2, 4), block)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("quantized", [formats.int8, formats.nf4])
def test_numbers_that_are_not_finite_are_refused_with_their_place(quantized, bad):
    weight = weights(3, 8)
    weight[1, 2] = bad
    with pytest.raises(ValueError, match=f"{bad}.*finite"):
        quantized(weight)


# Four bits


def test_the_levels_are_quantiles_of_the_normal_distribution():
    from scipy.stats import norm

    assert NF4_LEVELS[[0, 7, 15]].tolist() == [-1.0, 0.0, 1.0] and (NF4_LEVELS.diff() > 0).all()
    outermost = norm.ppf(0.9677083)
    steps = np.diff(norm.cdf(NF4_LEVELS.numpy() * outermost))
    assert np.allclose(steps[:7], steps[0], atol=1e-6) and np.allclose(steps[7:], steps[7], atol=1e-6)
    assert np.isclose(0.9677083, 1 - (1 / 32 + 1 / 30) / 2)


def bitsandbytes():
    return pytest.importorskip("bitsandbytes.functional")


def test_the_levels_are_those_of_bitsandbytes():
    assert torch.equal(NF4_LEVELS, bitsandbytes().get_4bit_type("nf4", device="cpu"))


@pytest.mark.parametrize("kind", ["plain", "zeros", "denormal", "outliers", "one value", "levels and borders"])
@pytest.mark.parametrize("shape", SHAPES)
def test_codes_and_weights_are_those_of_bitsandbytes(shape, kind):
    """Bit by bit, but for one scale: where a short last block has nothing above 1e-38, bitsandbytes writes 1e-38."""
    library, weight = bitsandbytes(), weights(*shape)
    flat = weight.view(-1)
    if kind == "zeros":
        flat[: len(flat) // 2] = 0
    elif kind == "denormal":
        weight *= 1e-38
    elif kind == "outliers":
        flat[:: max(1, len(flat) // 5)] *= 1000
    elif kind == "one value":
        flat[:] = -0.3
    elif kind == "levels and borders":
        flat[:] = torch.cat([NF4_LEVELS, NF4_BORDERS]).repeat(len(flat) // 31 + 1)[: len(flat)]
    packed, state = library.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    ours, absmax = formats.nf4(weight)
    assert torch.equal(ours, packed.flatten())
    last = -1 if weight.numel() % 64 and absmax[-1] < 1e-38 else len(absmax)
    assert torch.equal(absmax[:last], state.absmax[:last]) and (absmax - state.absmax).abs().max() <= 1e-38
    if len(packed) > 1 and shape[-1] % 2 == 0:  # theirs turns a weight of one byte, and compiles for odd rows
        assert torch.equal(formats.from_nf4(ours, state.absmax, shape), library.dequantize_4bit(packed, state))


@settings(max_examples=100, deadline=None)
@given(matrices(), st.sampled_from([2, 16, 64]))
def test_nf4_takes_the_nearest_level(weight, block):
    packed, absmax = formats.nf4(weight, block)
    again = formats.from_nf4(packed, absmax, weight.shape, block)
    assert len(absmax) == -(-weight.numel() // block) and len(packed) == -(-weight.numel() // 2)
    scale = absmax.repeat_interleave(block)[: weight.numel()].double()
    flat = weight.flatten().double()
    nearest = (flat[:, None] - scale[:, None] * NF4_LEVELS.double()).abs().amin(1)
    error = (again.flatten().double() - flat).abs()
    assert (error <= nearest + 1e-6 * scale + 1e-38).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=50))
def test_codes_packed_two_a_byte_come_back(codes):
    codes = torch.tensor(codes, dtype=torch.uint8)
    packed = formats.pack(codes)
    assert packed.dtype == torch.uint8 and len(packed) == (len(codes) + 1) // 2
    assert torch.equal(formats.unpack(packed, len(codes)), codes)


def test_the_first_code_is_the_high_half():
    packed = formats.pack(torch.tensor([1, 15, 4], dtype=torch.uint8))
    assert packed.tolist() == [16 + 15, 4 * 16 + 7]


# The scales' own bits


def test_double_quantization_by_hand():
    codes, steps, mean = formats.double_quantize(torch.tensor([1.0, 2.0, 6.0]))
    assert mean.tolist() == [3.0] and codes.tolist() == [-85, -42, 127]
    assert torch.allclose(steps, torch.tensor([3 / 127]))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_scales_move_by_half_a_step_at_most(blocks, seed):
    absmax = torch.rand(blocks, generator=torch.Generator().manual_seed(seed))
    codes, steps, mean = formats.double_quantize(absmax)
    again = formats.from_double_quantized(codes, steps, mean)
    assert len(codes) == blocks and len(steps) == -(-blocks // 256)
    assert ((again - absmax).abs() <= steps.repeat_interleave(256)[:blocks] * 0.5001 + 1e-7).all()


def test_double_quantization_errs_little_more_than_the_library_does():
    """Its 8-bit code for scales is another; the weights' errors are alike, and both near those of exact scales."""
    library, weight = bitsandbytes(), weights(256, 512)
    packed, absmax = formats.nf4(weight)
    ours = formats.from_nf4(packed, formats.from_double_quantized(*formats.double_quantize(absmax)), weight.shape)
    theirs = library.dequantize_4bit(
        *library.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    )
    errors = [(again - weight).square().mean().item() for again in (ours, theirs)]
    exact = (formats.from_nf4(packed, absmax, weight.shape) - weight).square().mean().item()
    assert errors[0] < 1.01 * exact and errors[0] < 1.01 * errors[1]


# Sizes


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_those_of_the_tensors(shape):
    def added(*tensors):
        return sum(tensor.nbytes for tensor in tensors)

    weight = weights(*shape)
    packed, absmax = formats.nf4(weight)
    assert formats.weight_bytes(*shape, "float32") == added(weight)
    assert formats.weight_bytes(*shape, "bfloat16") == added(weight.bfloat16())
    assert formats.weight_bytes(*shape, "int8") == added(*formats.int8(weight))
    assert formats.weight_bytes(*shape, "nf4") == added(packed, absmax)
    assert formats.weight_bytes(*shape, "nf4-double") == added(packed, *formats.double_quantize(absmax))


def test_sizes_by_hand():
    assert formats.weight_bytes(2, 128, "nf4") == 128 + 4 * 4
    assert formats.weight_bytes(64, 512, "nf4-double") == 16384 + 512 + 4 * 2 + 4
    with pytest.raises(ValueError, match="int4"):
        formats.weight_bytes(1, 1, "int4")
