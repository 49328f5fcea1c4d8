"""Which examples of different lengths share a batch: those of like length, for padding costs as much as text."""

from collections.abc import Sequence

import numpy as np


def batch_of_like_length(lengths: Sequence[int] | np.ndarray, step: int, size: int, seed: int) -> np.ndarray:
    """The examples of a step, (size,) row numbers (all there are, if fewer); an epoch brings no example twice.

    A function of its arguments. Lengths are blurred by a fifth, so that an example meets others in every epoch.
    """
    size = min(size, len(lengths))
    steps = len(lengths) // size
    epoch, place = divmod(step, steps)
    rng = np.random.default_rng([seed, epoch])
    drawn = rng.permutation(len(lengths))[: steps * size]
    order = np.argsort(np.asarray(lengths)[drawn] * np.exp(rng.normal(0, 0.2, len(drawn))), kind="stable")
    return drawn[order].reshape(steps, size)[rng.permutation(steps)[place]]
