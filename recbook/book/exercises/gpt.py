"""Checks of Chapter 6: the causal mask, attention's scale, rotary positions, counts of parameters and bytes."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _numbers(*shape: int, seed: int, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal(shape)


def _softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _past(T: int) -> np.ndarray:
    return np.tri(T, dtype=bool)


# 6.1: the causal mask


def causal_weights(scores):
    """Each row's softmax over itself and what comes before: (T, T)."""
    return _softmax(np.where(_past(len(scores)), scores, -np.inf))


def _mask_afterwards(scores):
    return _softmax(scores) * _past(len(scores))


def _scores_of_zero(scores):
    return _softmax(np.where(_past(len(scores)), scores, 0.0))


def _only_the_future(scores):
    return _softmax(np.where(_past(len(scores)).T, scores, -np.inf))


def _columns_that_sum_to_one(scores):
    masked = np.where(_past(len(scores)), scores, -np.inf)
    return _softmax(masked, axis=0)


# 6.2: one head


def attend(queries, keys, values):
    """One causal head: (T, d) three times -> (T, d)."""
    return causal_weights(queries @ keys.T / np.sqrt(queries.shape[1])) @ values


def _without_the_scale(queries, keys, values):
    return causal_weights(queries @ keys.T) @ values


def _divided_by_d(queries, keys, values):
    return causal_weights(queries @ keys.T / queries.shape[1]) @ values


def _divided_by_the_length(queries, keys, values):
    return causal_weights(queries @ keys.T / np.sqrt(len(queries))) @ values


def _sees_the_future(queries, keys, values):
    return _softmax(queries @ keys.T / np.sqrt(queries.shape[1])) @ values


def _keys_that_ask(queries, keys, values):
    return causal_weights(keys @ queries.T / np.sqrt(queries.shape[1])) @ values


# 6.3: parameters


def count_parameters(vocabulary, context, layers, width):
    """All trainable numbers of a GPT-2 with a tied head."""
    block = 12 * width**2 + 13 * width
    return (vocabulary + context) * width + layers * block + 2 * width


def _head_counted_twice(vocabulary, context, layers, width):
    return count_parameters(vocabulary, context, layers, width) + vocabulary * width


def _matrices_only(vocabulary, context, layers, width):
    return (vocabulary + context) * width + layers * 12 * width**2


def _without_the_last_norm(vocabulary, context, layers, width):
    return count_parameters(vocabulary, context, layers, width) - 2 * width


def _without_positions(vocabulary, context, layers, width):
    return count_parameters(vocabulary, context, layers, width) - context * width


# 6.4: the cache's bytes


def cache_bytes(batch, positions, layers, heads, width, bytes_a_number):
    """Keys and values of every layer, position and row. The heads share the width, so their number does not matter."""
    return 2 * batch * positions * layers * width * bytes_a_number


def _keys_alone(batch, positions, layers, heads, width, bytes_a_number):
    return batch * positions * layers * width * bytes_a_number


def _a_whole_width_a_head(batch, positions, layers, heads, width, bytes_a_number):
    return 2 * batch * positions * layers * heads * width * bytes_a_number


def _one_row(batch, positions, layers, heads, width, bytes_a_number):
    return 2 * positions * layers * width * bytes_a_number


def _weights_kept(batch, positions, layers, heads, width, bytes_a_number):
    return batch * positions**2 * layers * heads * bytes_a_number


# 6.5: rotary positions


def rotate(x, positions):
    """Number i and number i + d/2 of each row, turned together by its position times 10000^(-2i/d): (T, d)."""
    half = x.shape[1] // 2
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / half)  # (T, d/2)
    first, second = x[:, :half], x[:, half:]
    turned = [first * np.cos(angles) - second * np.sin(angles), first * np.sin(angles) + second * np.cos(angles)]
    return np.concatenate(turned, axis=1)


def _the_other_way(x, positions):
    return rotate(x, -positions)


def _one_speed(x, positions):
    half = x.shape[1] // 2
    cosine, sine = np.cos(positions)[:, None], np.sin(positions)[:, None]
    first, second = x[:, :half], x[:, half:]
    return np.concatenate([first * cosine - second * sine, first * sine + second * cosine], axis=1)


def _neighbours_paired(x, positions):
    turned = rotate(np.concatenate([x[:, 0::2], x[:, 1::2]], axis=1), positions)
    half = x.shape[1] // 2
    return np.stack([turned[:, :half], turned[:, half:]], axis=2).reshape(x.shape)


def _half_the_speeds(x, positions):
    half = x.shape[1] // 2
    angles = positions[:, None] * 10000.0 ** (-np.arange(half) / x.shape[1])
    first, second = x[:, :half], x[:, half:]
    turned = [first * np.cos(angles) - second * np.sin(angles), first * np.sin(angles) + second * np.cos(angles)]
    return np.concatenate(turned, axis=1)


EXERCISES = [
    Exercise(
        "6.1",
        causal_weights,
        [
            (np.zeros((3, 3)),),
            (_numbers(5, 5, seed=0),),
            (_numbers(4, 4, seed=1, scale=5.0) + 3,),
            (np.array([[2.0]]),),
        ],
        [
            Mistake(
                _mask_afterwards,
                "the future is gone, but what is left of a row no longer sums to one: mask before the softmax.",
            ),
            Mistake(_scores_of_zero, "a score of zero still has the weight exp(0): the future needs minus infinity."),
            Mistake(
                _only_the_future, "you kept the future and masked the past: row t may see columns 0 to t, `np.tri`."
            ),
            Mistake(
                _columns_that_sum_to_one, "the columns sum to one; it is each row, a position that asks, that should."
            ),
        ],
    ),
    Exercise(
        "6.2",
        attend,
        [
            (_numbers(3, 2, seed=2), _numbers(3, 2, seed=3), _numbers(3, 2, seed=4)),
            (_numbers(6, 16, seed=5), _numbers(6, 16, seed=6), _numbers(6, 16, seed=7)),
            (_numbers(4, 8, seed=8, scale=4.0), _numbers(4, 8, seed=9, scale=4.0), _numbers(4, 8, seed=10)),
        ],
        [
            Mistake(_without_the_scale, "the scores are not divided by the square root of d, the numbers in a query."),
            Mistake(_divided_by_d, "divide by the square root of d: the scores spread by that much, not by d."),
            Mistake(
                _divided_by_the_length,
                "you divided by the square root of the number of positions; what counts is d, the numbers in a query.",
            ),
            Mistake(_sees_the_future, "every position sees the whole sequence: the mask is missing."),
            Mistake(_keys_that_ask, "keys ask and queries answer here: row t of the scores belongs to query t."),
        ],
    ),
    Exercise(
        "6.3",
        count_parameters,
        [(50_257, 1024, 12, 768), (4096, 128, 4, 128), (10, 4, 1, 2)],
        [
            Mistake(
                _head_counted_twice, "the head is the token embedding itself, used a second time: it has no numbers."
            ),
            Mistake(_matrices_only, "the linear layers have biases, and the norms two vectors each."),
            Mistake(_without_the_last_norm, "one norm is missing: the last one, after all blocks."),
            Mistake(_without_positions, "the positions have vectors too, one for each place of the context."),
        ],
    ),
    Exercise(
        "6.4",
        cache_bytes,
        [(1, 128, 4, 4, 128, 4), (16, 512, 8, 8, 512, 2), (3, 10, 1, 2, 6, 4)],
        [
            Mistake(_keys_alone, "that is the keys; the values are kept as well."),
            Mistake(_a_whole_width_a_head, "the heads share the width: each keeps width / heads numbers per position."),
            Mistake(_one_row, "every row of the batch has a text of its own, and so its own keys and values."),
            Mistake(_weights_kept, "nobody needs the attention weights again: what is kept are keys and values."),
        ],
    ),
    Exercise(
        "6.5",
        rotate,
        [
            (np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1])),
            (_numbers(5, 8, seed=11), np.arange(5)),
            (_numbers(3, 6, seed=12), np.array([7, 0, 100])),
        ],
        [
            Mistake(
                _the_other_way, "turned the wrong way round: first · cos - second · sin, first · sin + second · cos."
            ),
            Mistake(_one_speed, "all pairs turn at one speed: pair i turns 10000^(-2i/d) as fast as pair 0."),
            Mistake(_neighbours_paired, "you paired neighbours, 0 with 1; here number i goes with number i + d/2."),
            Mistake(_half_the_speeds, "the speeds fall too slowly: 10000^(-2i/d), and i runs to d/2."),
        ],
    ),
]
