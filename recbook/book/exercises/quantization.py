"""Checks of Chapter 11: int8 by row, two codes in a byte, the nearest level, bytes with double scales, the roofline."""

from math import ceil

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _weights(*shape: int, seed: int, outlier: float = 0.0) -> np.ndarray:
    weights = 0.02 * np.random.default_rng(seed).standard_normal(shape)
    weights[0, -1] += outlier
    return weights


# 11.1: int8, a scale a row


def by_row(weights):
    """Codes, integers from -127 to 127, and the step of each row, (R, 1)."""
    steps = np.abs(weights).max(axis=1, keepdims=True) / 127
    return np.rint(weights / steps).astype(int), steps


def _one_step_for_all(weights):
    steps = np.full((len(weights), 1), np.abs(weights).max() / 127)
    return np.rint(weights / steps).astype(int), steps


def _by_column(weights):
    steps = np.abs(weights).max(axis=0, keepdims=True) / 127
    return np.rint(weights / steps).astype(int), steps


def _cut_off(weights):
    steps = by_row(weights)[1]
    return np.trunc(weights / steps).astype(int), steps


def _largest_without_its_sign(weights):
    steps = weights.max(axis=1, keepdims=True) / 127
    return np.rint(weights / steps).astype(int), steps


def _divided_by_128(weights):
    steps = np.abs(weights).max(axis=1, keepdims=True) / 128
    return np.rint(weights / steps).astype(int), steps


# 11.2: two codes in a byte


def pack(codes):
    """Codes from 0 to 15, an even number of them: half as many bytes, the first code in the high half."""
    return codes[0::2] * 16 + codes[1::2]


def _first_in_the_low_half(codes):
    return codes[0::2] + codes[1::2] * 16


def _three_bits(codes):
    return codes[0::2] * 8 + codes[1::2]


def _halves_of_the_list(codes):
    half = len(codes) // 2
    return codes[:half] * 16 + codes[half:]


# 11.3: the nearest level


def nearest(block, levels):
    """The code of each number of a block, and the block's largest absolute value."""
    largest = np.abs(block).max()
    return np.abs(block[:, None] / largest - levels).argmin(axis=1), largest


def _not_divided(block, levels):
    return np.abs(block[:, None] - levels).argmin(axis=1), np.abs(block).max()


def _level_below(block, levels):
    largest = np.abs(block).max()
    return np.clip(np.searchsorted(levels, block / largest, side="right") - 1, 0, len(levels) - 1), largest


def _largest_of_the_positive(block, levels):
    largest = block.max()
    return np.abs(block[:, None] / largest - levels).argmin(axis=1), largest


# 11.4: bytes with double quantization


def double_bytes(weights, block, group):
    """Codes of four bits; a byte for each block's scale; for each group of scales a step of four bytes; one mean."""
    blocks = ceil(weights / block)
    return ceil(weights / 2) + blocks + 4 * ceil(blocks / group) + 4


def _scales_of_four_bytes(weights, block, group):
    return ceil(weights / 2) + 4 * ceil(weights / block)


def _a_byte_a_weight(weights, block, group):
    return double_bytes(weights, block, group) - ceil(weights / 2) + weights


def _without_the_mean(weights, block, group):
    return double_bytes(weights, block, group) - 4


def _groups_of_weights(weights, block, group):
    return ceil(weights / 2) + ceil(weights / block) + 4 * ceil(weights / group) + 4


# 11.5: the roofline


def least_seconds(rows, columns, batch, bytes_a_weight, bandwidth, peak):
    """The longer of: reading the weights, and multiplying them with `batch` vectors."""
    weights = rows * columns
    return max(weights * bytes_a_weight / bandwidth, 2 * weights * batch / peak)


def _one_after_the_other(rows, columns, batch, bytes_a_weight, bandwidth, peak):
    weights = rows * columns
    return weights * bytes_a_weight / bandwidth + 2 * weights * batch / peak


def _read_for_each_vector(rows, columns, batch, bytes_a_weight, bandwidth, peak):
    weights = rows * columns
    return max(batch * weights * bytes_a_weight / bandwidth, 2 * weights * batch / peak)


def _one_operation_a_weight(rows, columns, batch, bytes_a_weight, bandwidth, peak):
    weights = rows * columns
    return max(weights * bytes_a_weight / bandwidth, weights * batch / peak)


def _the_shorter(rows, columns, batch, bytes_a_weight, bandwidth, peak):
    weights = rows * columns
    return min(weights * bytes_a_weight / bandwidth, 2 * weights * batch / peak)


LEVELS = np.array([-1.0, -0.5, -0.2, 0.0, 0.1, 0.3, 0.6, 1.0])

EXERCISES = [
    Exercise(
        "11.1",
        by_row,
        [
            (np.array([[1.27, -0.508, 0.013], [-2.54, 0.03, 1.0]]),),
            (_weights(5, 8, seed=0),),
            (_weights(8, 5, seed=1, outlier=-1.5),),
        ],
        [
            Mistake(_one_step_for_all, "one step for the whole matrix: take the largest of each row."),
            Mistake(_by_column, "the steps are those of the columns; a row is what one output is made of."),
            Mistake(
                _cut_off, "the codes are cut off towards zero: round them, and no weight moves by over half a step."
            ),
            Mistake(_largest_without_its_sign, "a row's largest may be negative: take absolute values first."),
            Mistake(_divided_by_128, "divided by 128, the largest gets a code that int8 does not have: 127."),
        ],
    ),
    Exercise(
        "11.2",
        pack,
        [
            (np.array([1, 15]),),
            (np.array([0, 7, 15, 0, 9, 3]),),
            (np.random.default_rng(2).integers(0, 16, 40),),
        ],
        [
            Mistake(_first_in_the_low_half, "the first code of each pair belongs in the high half: times 16."),
            Mistake(_three_bits, "a code has four bits, so the first moves up by four: times 16, not 8."),
            Mistake(_halves_of_the_list, "neighbours share a byte: codes 0 and 1, then 2 and 3."),
        ],
    ),
    Exercise(
        "11.3",
        nearest,
        [
            (np.array([0.4, -2.0, 0.1, 0.9]), LEVELS),
            (np.random.default_rng(3).standard_normal(64) * 0.02, LEVELS),
            (-np.abs(np.random.default_rng(4).standard_normal(16)) - 0.01 + np.eye(16)[0] * 1.5, LEVELS),
        ],
        [
            Mistake(_not_divided, "the levels go from -1 to 1: divide the block by its largest absolute value first."),
            Mistake(_level_below, "that is the level below each number; the one above may be nearer."),
            Mistake(_largest_of_the_positive, "the largest may be negative: take absolute values before the maximum."),
        ],
    ),
    Exercise(
        "11.4",
        double_bytes,
        [(64 * 256, 64, 256), (54_304 * 512, 64, 256), (1001, 32, 16)],
        [
            Mistake(_scales_of_four_bytes, "these scales are still float32: quantized, each takes one byte."),
            Mistake(_a_byte_a_weight, "two codes share a byte."),
            Mistake(_without_the_mean, "the mean of the scales has to be kept too, once."),
            Mistake(_groups_of_weights, "a group is one of scales, not of weights: count the blocks first."),
        ],
    ),
    Exercise(
        "11.5",
        least_seconds,
        [
            (1000, 1000, 1, 4.0, 10e9, 100e9),
            (1000, 1000, 64, 4.0, 10e9, 100e9),
            (54_304, 512, 16, 1.0, 20e9, 150e9),
            (512, 512, 200, 0.5, 20e9, 150e9),
        ],
        [
            Mistake(_one_after_the_other, "reading and multiplying go on at the same time: the longer counts."),
            Mistake(_read_for_each_vector, "the weights are read once for all vectors of the batch."),
            Mistake(_one_operation_a_weight, "a weight and a vector make two operations: a product and a sum."),
            Mistake(_the_shorter, "both have to be done: the longer one is the bound."),
        ],
        tolerance=1e-12,
    ),
]
