"""Checks of Chapter 10: what an adapter counts, computes and adds, the rank that is enough, a loss on answers alone."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _numbers(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


# 10.1: what is trained


def count_trained(shapes, rank):
    """A is (rank, in) and B is (out, rank): rank times (in + out) a layer."""
    return sum(rank * (inputs + outputs) for inputs, outputs in shapes)


def _whole_matrices(shapes, rank):
    return sum(inputs * outputs for inputs, outputs in shapes)


def _the_product_counted(shapes, rank):
    return sum(rank * inputs * outputs for inputs, outputs in shapes)


def _one_matrix(shapes, rank):
    return sum(rank * inputs for inputs, _ in shapes)


def _biases_too(shapes, rank):
    return sum(rank * (inputs + outputs) + outputs for inputs, outputs in shapes)


# 10.2: a layer with an adapter. In all cases in = out, or an exchange of A and B would fail before it is told apart.


def lora_forward(x, W, b, A, B, alpha):
    """The output of the frozen layer and its adapter: (n, in) -> (n, out)."""
    return x @ W.T + b + alpha / len(A) * (x @ A.T @ B.T)


def _without_the_scale(x, W, b, A, B, alpha):
    return x @ W.T + b + x @ A.T @ B.T


def _alpha_alone(x, W, b, A, B, alpha):
    return x @ W.T + b + alpha * (x @ A.T @ B.T)


def _over_the_width(x, W, b, A, B, alpha):
    return x @ W.T + b + alpha / A.shape[1] * (x @ A.T @ B.T)


def _exchanged(x, W, b, A, B, alpha):
    return x @ W.T + b + alpha / len(A) * (x @ B @ A)


def _frozen_layer_scaled(x, W, b, A, B, alpha):
    return alpha / len(A) * (x @ W.T + x @ A.T @ B.T) + b


def _in_place_of_the_frozen_layer(x, W, b, A, B, alpha):
    return alpha / len(A) * (x @ A.T @ B.T) + b


# 10.3: merged


def merge(W, A, B, alpha):
    """The weight that does both at once, (out, in)."""
    return W + alpha / len(A) * B @ A


def _merged_without_the_scale(W, A, B, alpha):
    return W + B @ A


def _merged_turned(W, A, B, alpha):
    return W + alpha / len(A) * (B @ A).T


def _change_alone(W, A, B, alpha):
    return alpha / len(A) * B @ A


# 10.4: the rank that is enough


def smallest_rank(W, share):
    """The fewest singular values whose squares hold `share` of all squares."""
    energy = np.linalg.svd(W, compute_uv=False) ** 2
    kept = np.cumsum(energy) / energy.sum()  # of the first 1, 2, … values
    return int(np.argmax(kept >= share - 1e-9)) + 1


def _unsquared(W, share):
    values = np.linalg.svd(W, compute_uv=False)
    return int(np.argmax(np.cumsum(values) / values.sum() >= share)) + 1


def _a_place_for_a_number(W, share):
    return smallest_rank(W, share) - 1


def _one_too_many(W, share):
    return smallest_rank(W, share) + 1


def _smallest_first(W, share):
    energy = np.sort(np.linalg.svd(W, compute_uv=False) ** 2)
    return int(np.argmax(np.cumsum(energy) / energy.sum() >= share)) + 1


# 10.5: a loss on answers alone


def answer_targets(ids, given):
    """What each position but the last is to predict; -1 where that is still the prompt."""
    return np.where(np.arange(1, len(ids)) < given, -1, np.asarray(ids)[1:])


def _prompt_counted(ids, given):
    return np.asarray(ids)[1:]


def _first_of_the_answer_lost(ids, given):
    return np.where(np.arange(len(ids) - 1) < given, -1, np.asarray(ids)[1:])


def _last_of_the_prompt_counted(ids, given):
    return np.where(np.arange(2, len(ids) + 1) < given, -1, np.asarray(ids)[1:])


def _not_moved(ids, given):
    return np.where(np.arange(len(ids)) < given, -1, np.asarray(ids))[:-1]


def _zero_for_nothing(ids, given):
    return np.where(np.arange(1, len(ids)) < given, 0, np.asarray(ids)[1:])


def _layer(n: int, width: int, rank: int, seed: int) -> tuple:
    """x, W, b, A and B of a layer with as many outputs as inputs."""
    shapes = [(n, width), (width, width), (width,), (rank, width), (width, rank)]
    return tuple(_numbers(*shape, seed=seed + place) for place, shape in enumerate(shapes))


def _matrices(width: int, rank: int, seed: int) -> tuple:
    """W, A and B of such a layer."""
    _, W, _, A, B = _layer(1, width, rank, seed)
    return W, A, B


EXERCISES = [
    Exercise(
        "10.1",
        count_trained,
        [
            ([(128, 384), (128, 128), (128, 512), (512, 128)], 16),
            ([(10, 10)], 1),
            ([(3, 5), (7, 2)], 4),
        ],
        [
            Mistake(_whole_matrices, "those are the frozen numbers, in times out: A and B are two narrow matrices."),
            Mistake(
                _the_product_counted, "rank · in · out would be one large block; A has rank · in numbers, B out · rank."
            ),
            Mistake(_one_matrix, "that is A alone: B has out · rank numbers more."),
            Mistake(_biases_too, "an adapter has no bias: the layer's own stays as it is, frozen."),
        ],
    ),
    Exercise(
        "10.2",
        lora_forward,
        [
            (*_layer(2, 3, 1, seed=0), 2.0),
            (*_layer(5, 8, 2, seed=10), 16.0),
            (*_layer(4, 6, 4, seed=20), 1.0),
        ],
        [
            Mistake(_without_the_scale, "the adapter's output is not scaled: multiply it by alpha / rank."),
            Mistake(_alpha_alone, "the scale is alpha / rank, and the rank is the number of A's rows."),
            Mistake(_over_the_width, "you divided alpha by the number of inputs; the rank is the number of A's rows."),
            Mistake(
                _exchanged, "A and B are exchanged: x meets A first, which makes it narrow, then B: x @ A.T @ B.T."
            ),
            Mistake(_frozen_layer_scaled, "the frozen layer has no scale: alpha / rank is for what the adapter adds."),
            Mistake(_in_place_of_the_frozen_layer, "the adapter adds to the frozen layer: x @ W.T is missing."),
        ],
    ),
    Exercise(
        "10.3",
        merge,
        [
            (*_matrices(3, 1, seed=30), 3.0),
            (*_matrices(8, 2, seed=40), 16.0),
            (*_matrices(5, 4, seed=50), 2.0),
        ],
        [
            Mistake(_merged_without_the_scale, "the product is not scaled: multiply it by alpha / rank."),
            Mistake(
                _merged_turned, "what you add is turned round: W is (out, in), and so is B @ A, without transposing."
            ),
            Mistake(_change_alone, "that is the change; the merged weight is W and the change together."),
        ],
    ),
    Exercise(
        "10.4",
        smallest_rank,
        [
            (np.diag([4.0, 3.0, 2.0, 1.0]), 0.8),
            (_numbers(20, 3, seed=60) @ _numbers(3, 30, seed=61) + _numbers(20, 30, seed=62, scale=0.05), 0.99),
            (_numbers(16, 16, seed=63), 0.5),
            (_numbers(12, 40, seed=64), 0.95),
        ],
        [
            Mistake(
                _unsquared, "the share is one of the squares of the singular values, not of the values themselves."
            ),
            Mistake(_a_place_for_a_number, "one too few: the value at place 0 makes rank 1."),
            Mistake(_one_too_many, "one too many: the share is reached one value earlier, and reaching it is enough."),
            Mistake(
                _smallest_first, "you began with the smallest values; truncation keeps the largest, which come first."
            ),
        ],
    ),
    Exercise(
        "10.5",
        answer_targets,
        [
            ([11, 12, 13, 21, 22, 9], 3),
            ([5, 6], 1),
            (list(range(40, 60)), 12),
            ([7, 1, 2, 3, 4], 4),
        ],
        [
            Mistake(_prompt_counted, "the prompt counts too: where the next token is still the prompt's, put -1."),
            Mistake(
                _first_of_the_answer_lost,
                "the answer's first token is not learned: the last position of the prompt predicts it, so it counts.",
            ),
            Mistake(
                _last_of_the_prompt_counted,
                "the prompt's last token is given, yet it is a target here: position t predicts token t + 1.",
            ),
            Mistake(_not_moved, "each position predicts the token after it: targets are the ids moved by one."),
            Mistake(_zero_for_nothing, "0 is a token like any other; what does not count is marked -1."),
        ],
    ),
]
