"""Checks of Chapter 7: the schedule, AdamW, clipping, accumulation, the time that training takes."""

import math

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 7.1: warm-up, then a cosine


def rate(step, steps, warmup, highest, lowest):
    """The learning rate of a step: a line up to `highest`, then half a cosine down to `lowest`."""
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = (step - warmup) / (steps - warmup)
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2


def _from_zero(step, steps, warmup, highest, lowest):
    return highest * step / warmup if step < warmup else rate(step, steps, warmup, highest, lowest)


def _down_to_zero(step, steps, warmup, highest, lowest):
    return rate(step, steps, warmup, highest, 0.0)


def _straight_down(step, steps, warmup, highest, lowest):
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest + (lowest - highest) * (step - warmup) / (steps - warmup)


def _warmup_forgotten_in_the_cosine(step, steps, warmup, highest, lowest):
    if step < warmup:
        return highest * (step + 1) / warmup
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * step / steps)) / 2


# 7.2: a step of AdamW


def adamw(weight, gradient, first, second, step, rate, decay):
    """One step of AdamW with betas 0.9 and 0.95: the new weight and the two running means."""
    first = 0.9 * first + 0.1 * gradient
    second = 0.95 * second + 0.05 * gradient**2
    direction = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.95**step)) + 1e-8)
    return weight * (1 - rate * decay) - rate * direction, first, second


def _uncorrected(weight, gradient, first, second, step, rate, decay):
    first = 0.9 * first + 0.1 * gradient
    second = 0.95 * second + 0.05 * gradient**2
    return weight * (1 - rate * decay) - rate * first / (np.sqrt(second) + 1e-8), first, second


def _decay_in_the_gradient(weight, gradient, first, second, step, rate, decay):
    return adamw(weight, gradient + decay * weight, first, second, step, rate, 0.0)


def _no_root(weight, gradient, first, second, step, rate, decay):
    first = 0.9 * first + 0.1 * gradient
    second = 0.95 * second + 0.05 * gradient**2
    direction = (first / (1 - 0.9**step)) / (second / (1 - 0.95**step) + 1e-8)
    return weight * (1 - rate * decay) - rate * direction, first, second


def _uphill(weight, gradient, first, second, step, rate, decay):
    new, first, second = adamw(weight, gradient, first, second, step, rate, decay)
    shrunk = weight * (1 - rate * decay)
    return 2 * shrunk - new, first, second


# 7.3: clipping


def clip(gradients, largest):
    """All gradients, shortened together so that their common norm is at most `largest`."""
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    return [gradient * min(1.0, largest / norm) for gradient in gradients]


def _each_by_itself(gradients, largest):
    return [gradient * min(1.0, largest / np.linalg.norm(gradient)) for gradient in gradients]


def _each_number(gradients, largest):
    return [np.clip(gradient, -largest, largest) for gradient in gradients]


def _always(gradients, largest):
    norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
    return [gradient * largest / norm for gradient in gradients]


# 7.4: parts of a batch


def whole_gradient(gradients, targets):
    """The gradient of the whole batch's mean loss from those of its parts' mean losses."""
    return sum(count * gradient for gradient, count in zip(gradients, targets, strict=True)) / sum(targets)


def _mean_of_means(gradients, targets):
    return sum(gradients) / len(gradients)


def _sum_of_means(gradients, targets):
    return sum(gradients)


def _not_divided(gradients, targets):
    return sum(count * gradient for gradient, count in zip(gradients, targets, strict=True))


# 7.5: hours


def hours(weights, tokens, peak, utilisation):
    """Hours to train: six operations per weight and token, at a share of the peak's operations per second."""
    return 6 * weights * tokens / (peak * utilisation) / 3600


def _forward_only(weights, tokens, peak, utilisation):
    return hours(weights, tokens, peak, utilisation) / 3


def _at_the_peak(weights, tokens, peak, utilisation):
    return hours(weights, tokens, peak, 1.0)


def _seconds(weights, tokens, peak, utilisation):
    return 3600 * hours(weights, tokens, peak, utilisation)


_RNG = np.random.default_rng(0)
_MATRIX, _VECTOR = _RNG.standard_normal((3, 4)), _RNG.standard_normal(5)

EXERCISES = [
    Exercise(
        "7.1",
        rate,
        [
            (0, 100, 10, 3e-3, 3e-4),
            (9, 100, 10, 3e-3, 3e-4),
            (30, 100, 10, 3e-3, 3e-4),
            (99, 100, 10, 3e-3, 3e-4),
            (55, 100, 10, 1.0, 0.2),
        ],
        [
            Mistake(_from_zero, "the first step has a rate of zero and teaches nothing: count steps from one."),
            Mistake(_down_to_zero, "the cosine ends at zero; it should end at `lowest`."),
            Mistake(_straight_down, "that is a straight line down: half a cosine is flat at both ends."),
            Mistake(_warmup_forgotten_in_the_cosine, "the cosine begins where the warm-up ends, not at step zero."),
        ],
        tolerance=1e-9,
    ),
    Exercise(
        "7.2",
        adamw,
        [
            (2.0, 0.5, 0.0, 0.0, 1, 0.01, 0.1),
            (-1.5, 300.0, 0.2, 4.0, 2, 0.003, 0.1),
            (np.array([1.0, -2.0]), np.array([0.01, -4.0]), np.zeros(2), np.ones(2), 50, 0.1, 0.0),
        ],
        [
            Mistake(_uncorrected, "both means begin at zero: divide them by 1 - 0.9**step and 1 - 0.95**step."),
            Mistake(_decay_in_the_gradient, "that is Adam with L2: in AdamW the decay shrinks the weight itself."),
            Mistake(_no_root, "divide by the *root* of the second mean, or the units do not cancel."),
            Mistake(_uphill, "the step goes against the gradient: subtract it."),
        ],
    ),
    Exercise(
        "7.3",
        clip,
        [([_MATRIX, _VECTOR], 1.0), ([_MATRIX, 0.1 * _VECTOR], 2.0), ([0.01 * _MATRIX, 0.01 * _VECTOR], 1.0)],
        [
            Mistake(_each_by_itself, "one norm for all arrays together: else the step's direction changes."),
            Mistake(_each_number, "you cut single numbers: that changes the direction. Scale all by one factor."),
            Mistake(_always, "a gradient that is short enough stays as it is."),
        ],
    ),
    Exercise(
        "7.4",
        whole_gradient,
        [
            ([np.array([1.0, 2.0]), np.array([3.0, -2.0])], [30, 10]),
            ([_VECTOR, 2 * _VECTOR, -_VECTOR], [1, 5, 100]),
            ([_MATRIX, -_MATRIX], [7, 0]),
        ],
        [
            Mistake(_mean_of_means, "a part with few targets must count for little: weigh each by its targets."),
            Mistake(_sum_of_means, "a sum grows with the number of parts; and the parts differ in their targets."),
            Mistake(_not_divided, "divide by all targets together, or the step is as many times too long."),
        ],
    ),
    Exercise(
        "7.5",
        hours,
        [(53e6, 262e6, 1e12, 0.4), (1.2e6, 1.6e6, 2e11, 0.25), (124e6, 1e10, 3.12e14, 0.5)],
        [
            Mistake(_forward_only, "backward costs twice as much as forward: six operations per weight, not two."),
            Mistake(_at_the_peak, "nobody reaches the peak: divide by the share that is reached."),
            Mistake(_seconds, "that is seconds."),
        ],
    ),
]
