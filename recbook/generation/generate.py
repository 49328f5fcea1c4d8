"""Controlled text from a GPT: in batches, as a stream, with seeds, stop tokens and constrained decoding.

One loop serves all: the prompts fill a preallocated key-value cache, then each step feeds one token per row. A step
does little beyond the model: the head for the last position only, no work for knobs that are not in use, and one
uniform number per row, drawn before the first step from the row's own seed. So a text depends on its prompt, its row,
the seed and the settings, and on the other rows only as far as a larger matrix product rounds differently.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from recbook.generation.sampling import GREEDY, Sampling, choose_tokens
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT, KVCache

Constraint = Callable[[list[int]], Sequence[int] | None]  # tokens generated so far -> those allowed next; None: all


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    tokens: int = 64,
    sampling: Sampling = GREEDY,
    *,
    stop: Iterable[int] = (),
    seed: int = 0,
    constraint: Constraint | Sequence[Constraint | None] | None = None,
) -> list[list[int]]:
    """Continue each prompt by at most `tokens` tokens, without the one in `stop` that ends it; lengths may differ.

    Row i draws with the seed (seed, i). `constraint` is one for all rows, or one per row. ValueError for prompts
    that are empty, hold unknown ids or leave too little of the context, and for a constraint that allows nothing.
    """
    texts: list[list[int]] = [[] for _ in prompts]
    for step in _steps(model, prompts, tokens, sampling, stop, seed, constraint):
        for row, token in step:
            texts[row].append(token)
    return texts


def stream(
    model: GPT,
    prompt: Sequence[int],
    tokens: int = 64,
    sampling: Sampling = GREEDY,
    *,
    stop: Iterable[int] = (),
    seed: int = 0,
    constraint: Constraint | None = None,
) -> Iterator[int]:
    """The tokens that `generate` gives for one prompt, each as soon as it is drawn."""
    for ((_, token),) in _steps(model, [prompt], tokens, sampling, stop, seed, constraint):
        yield token


@torch.inference_mode()
def _steps(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    sampling: Sampling,
    stop: Iterable[int],
    seed: int,
    constraint: Constraint | Sequence[Constraint | None] | None,
) -> Iterator[list[tuple[int, int]]]:
    """Each step's new tokens as (row, token), for the rows that go on. Ends when no row does."""
    batch = _Batch(model, prompts, tokens, seed)
    constraints = list(constraint) if isinstance(constraint, Sequence) else [constraint] * len(prompts)
    if len(constraints) != len(prompts):
        raise ValueError(f"{len(constraints)} constraints for {len(prompts)} prompts; give one, or one a prompt")
    texts: list[list[int]] = [[] for _ in prompts]
    stop, constrained = frozenset(stop), any(each is not None for each in constraints)
    for step in range(tokens):
        logits = batch.logits()
        if step == 0 and not logits.isfinite().all():
            raise ValueError("the model's logits are not finite: its weights are damaged, or its training diverged")
        if constrained:
            for place, row in batch.rows.items():
                _constrain(logits[place], constraints[row], texts[row], row)
        drawn = choose_tokens(logits, sampling, batch.uniforms[step], batch.seen())
        listed = drawn.tolist()
        new = [(row, listed[place]) for place, row in batch.rows.items() if listed[place] not in stop]
        if not new:
            return
        if constrained:
            for row, token in new:
                texts[row].append(token)
        yield new
        batch.append(drawn, {row for row, _ in new})


class _Batch:
    """The rows that are still generated: their tokens, cache and uniform numbers. When half have ended, those leave.

    `rows` maps the place in the batch to the prompt's number, for the rows that go on.
    """

    def __init__(self, model: GPT, prompts: Sequence[Sequence[int]], tokens: int, seed: int):
        if model.training and model.config.dropout:
            raise ValueError("the model is in training mode: dropout would garble the text. Call model.eval() first")
        if seed < 0:
            raise ValueError(f"the seed is {seed}; give 0 or more")
        config, device, dtype = model.config, model.device, model.dtype
        padded, starts = _padded(prompts, tokens, config)
        self.model, self.length, self.rows = model, padded.shape[1], {row: row for row in range(len(prompts))}
        self.tokens = torch.nn.functional.pad(padded, (0, tokens)).to(device)  # (B, longest + tokens)
        self.new = self.tokens[:, : self.length]
        uniforms = [np.random.default_rng((seed, row)).random(tokens) for row in self.rows]
        self.uniforms = torch.tensor(np.minimum(uniforms, 1 - 2**-52).T.copy(), device=device)  # (tokens, B)
        self.cache = KVCache(config, len(prompts), device, dtype, size=self.tokens.shape[1])
        self.cache.start = starts.to(device)

    def logits(self) -> Tensor:
        """Of the next token of each row, (B, V)."""
        return self.model.logits(self.model.hidden(self.new, self.cache)[:, -1]).float()

    def seen(self) -> Tensor:
        """Each row's text so far, (B, length); the padding repeats its first token."""
        return self.tokens[:, : self.length]

    def append(self, drawn: Tensor, going: set[int]) -> None:
        """Add one token per row, (B,), and note which rows go on."""
        self.tokens[:, self.length] = drawn
        self.length, self.new = self.length + 1, drawn[:, None]
        if len(going) < len(self.rows):
            self.rows = {place: row for place, row in self.rows.items() if row in going}
            if 2 * len(self.rows) <= len(drawn):
                self._leave()

    def _leave(self) -> None:
        places = torch.tensor(list(self.rows), device=self.model.device)
        self.tokens, self.new, self.uniforms = self.tokens[places], self.new[places], self.uniforms[:, places]
        self.cache.keep(places)
        self.rows = dict(enumerate(self.rows.values()))


def _padded(prompts: Sequence[Sequence[int]], tokens: int, config: GPTConfig) -> tuple[Tensor, Tensor]:
    """Prompts as one array, (B, longest), padded on the left with their own first token; where each begins, (B,)."""
    if tokens < 1 or not len(prompts):
        raise ValueError(f"{len(prompts)} prompts and {tokens} tokens to generate: give at least one of each")
    for row, prompt in enumerate(prompts):
        _check(row, prompt, tokens, config)
    lengths = [len(prompt) for prompt in prompts]
    rows = [[int(prompt[0])] * (max(lengths) - len(prompt)) + [int(t) for t in prompt] for prompt in prompts]
    return torch.tensor(rows), max(lengths) - torch.tensor(lengths)


def _check(row: int, prompt: Sequence[int], tokens: int, config: GPTConfig) -> None:
    if not hasattr(prompt, "__len__"):
        raise ValueError(f"prompt {row} is {prompt!r}, not a list of token ids; for one prompt give [[1, 2, 3]]")
    if not len(prompt):
        raise ValueError(f"prompt {row} is empty; begin with a control token such as <|end|>")
    if len(prompt) + tokens > config.context:
        raise ValueError(
            f"prompt {row} of {len(prompt)} tokens and {tokens} new ones do not fit the context of "
            f"{config.context}; keep the prompt's last tokens, or ask for fewer"
        )
    for place, token in enumerate(prompt):
        if not 0 <= token < config.vocabulary:
            raise ValueError(
                f"prompt {row} holds token {token} at place {place}; ids are 0 to {config.vocabulary - 1}. "
                "Was it encoded with the vocabulary that the model was trained on?"
            )


# --- Constraints -------------------------------------------------------------------------------------------------


def _constrain(logits: Tensor, constraint: Constraint | None, text: list[int], row: int) -> None:
    """Set one row's logits, (V,), to minus infinity where its constraint does not allow the token; in place."""
    allowed = constraint(list(text)) if constraint is not None else None
    if allowed is None:
        return
    ids = torch.tensor(list(allowed), dtype=torch.long, device=logits.device)
    if not len(ids):
        raise ValueError(f"row {row}: the constraint allows no token after {text}; let it allow a stop token there")
    if ids.min() < 0 or ids.max() >= len(logits):
        raise ValueError(f"row {row}: the constraint allows a token that is not among the vocabulary's {len(logits)}")
    kept = logits[ids]
    logits.fill_(-torch.inf)
    logits[ids] = kept


class Trie:
    """Token sequences as a prefix tree, which says what may follow a prefix: real products, real prices, no others.

    Called with the text so far it is a constraint for `generate`: of all texts, only the sequences remain possible.
    """

    def __init__(self, sequences: Iterable[Sequence[int]], end: int):
        """`end` is the token allowed where a sequence is complete; what comes after it is free."""
        self.root: dict[int, dict] = {}
        closed = [[*map(int, sequence), end] for sequence in sequences]
        last = [self._grow(sequence) for sequence in closed]
        for sequence, node in zip(closed, last, strict=True):
            if node or len(sequence) == 1:
                raise ValueError(f"{sequence[:-1]} is empty, or with the closing {end} begins another sequence")

    def _grow(self, sequence: list[int]) -> dict[int, dict]:
        node = self.root
        for token in sequence:
            node = node.setdefault(token, {})
        return node

    def __call__(self, text: Sequence[int]) -> list[int] | None:
        """The tokens that may come after `text`: none if it has left the tree, None (all) if a sequence has ended."""
        node = self.root
        for token in text:
            if token not in node:
                return []
            node = node[token]
            if not node:  # only the closing token has nothing below it
                return None
        return list(node)


def constrained_after(opening: int, constraint: Constraint) -> Constraint:
    """A constraint on what follows the last `opening` in the text; until there is one, all is free.

    A constraint sees what was generated, not the prompt: if the prompt ends in `opening`, pass the constraint itself.
    """

    def allowed(text: list[int]) -> Sequence[int] | None:
        if opening not in text:
            return None
        return constraint(text[len(text) - text[::-1].index(opening) :])

    return allowed
