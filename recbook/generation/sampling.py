"""How the next token is drawn from logits: temperature, top-k, top-p, the repetition penalty, and one uniform number.

`shape_logits` is the definition: logits in, logits out, and a token is drawn from the softmax of the result.
`choose_tokens` draws with the same chances and less work: it takes the k most likely first, and works on those alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from the logits; the knobs act in this order."""

    repetition: float = 1.0  # above 1: tokens already in the text become less likely
    temperature: float = 1.0  # 0: always the most likely token, and the next two knobs have no say
    top_k: int = 0  # only the k most likely; 0: all
    top_p: float = 1.0  # only the fewest most likely that together have this probability

    def __post_init__(self) -> None:
        good = self.temperature >= 0 and self.repetition > 0 and self.top_k >= 0 and 0 < self.top_p <= 1
        if not good or max(self.temperature, self.repetition) == np.inf:
            raise ValueError(f"temperature and top_k are 0 or more, repetition is above 0, 0 < top_p <= 1; got {self}")


GREEDY = Sampling(temperature=0.0)


def penalise(logits: Tensor, seen: Tensor, repetition: float) -> Tensor:
    """Divide the positive logits of seen tokens by `repetition`, multiply the negative ones. Keskar et al. (2019).

    logits (B, V), seen (B, n) ids of the tokens in each row's text, repeats allowed -> (B, V).
    """
    found = logits.gather(-1, seen)  # (B, n)
    return logits.scatter(-1, seen, torch.where(found > 0, found / repetition, found * repetition))


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits over the temperature, each row's largest at zero: no temperature is so small that they overflow."""
    return (logits - logits.max(dim=-1, keepdim=True).values) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Minus infinity for all but the k largest logits of each row, (B, V) -> (B, V); of equals, those found first."""
    values, kept = logits.topk(min(k, logits.shape[-1]), dim=-1)  # (B, k)
    return torch.full_like(logits, -torch.inf).scatter(-1, kept, values)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Minus infinity for all but the nucleus: the fewest most likely tokens whose probabilities reach p.

    logits (B, V) -> (B, V). Holtzman et al. (2020).
    """
    ordered, order = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities  # probability of all that are more likely
    return torch.empty_like(logits).scatter(-1, order, ordered.masked_fill(before >= p, -torch.inf))


def shape_logits(logits: Tensor, sampling: Sampling, seen: Tensor | None = None) -> Tensor:
    """Logits (B, V) after the knobs: their softmax is the distribution that the next token is drawn from.

    `seen` (B, n): the tokens that the repetition penalty is for. At temperature 0 only that penalty acts.
    """
    if sampling.repetition != 1.0 and seen is not None:
        logits = penalise(logits, seen, sampling.repetition)
    if sampling.temperature == 0:
        return logits
    if sampling.temperature != 1.0:
        logits = tempered(logits, sampling.temperature)
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    return keep_top_p(logits, sampling.top_p) if sampling.top_p < 1 else logits


def choose_tokens(logits: Tensor, sampling: Sampling, uniforms: Tensor, seen: Tensor | None = None) -> Tensor:
    """The next token of each row, (B,): logits (B, V), uniforms as in `draw_tokens`, seen as in `shape_logits`.

    The chances are those of `shape_logits`, but the k most likely are taken first, so that the rest of the work is on k
    numbers and not on V.
    """
    if sampling.repetition != 1.0 and seen is not None:
        logits = penalise(logits, seen, sampling.repetition)
    if sampling.temperature == 0:
        return likeliest(logits)
    tokens = None
    if 0 < sampling.top_k < logits.shape[-1]:
        logits, tokens = logits.topk(sampling.top_k, dim=-1)  # (B, k) both
    if sampling.temperature != 1.0:
        logits = tempered(logits, sampling.temperature)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    place = draw_tokens(logits, uniforms)
    return place if tokens is None else tokens.gather(-1, place[:, None])[:, 0]


def likeliest(logits: Tensor) -> Tensor:
    """The token with the largest logit of each row, the first of equals: (B, V) -> (B,).

    On a CPU by numpy, which is ten times as fast as PyTorch at several rows: a tenth of a small model's step.
    """
    if logits.device.type == "cpu":
        return torch.from_numpy(logits.detach().numpy().argmax(-1))
    return logits.argmax(-1)


def draw_tokens(logits: Tensor, uniforms: Tensor) -> Tensor:
    """One token per row with the chances of the softmax, by inverse transform sampling: (B, V), (B,) -> (B,).

    It is the first token whose cumulative probability exceeds the row's uniform number (float64, from 0 to 1 - 2**-52),
    so a token without probability is never drawn.
    """
    cumulative = logits.softmax(-1).double().cumsum(-1)  # in float64 no small chance is lost in a long sum
    return torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
