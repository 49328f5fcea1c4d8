"""Our GPT as a language model that ranks: candidates stand in a prompt, and logits score them; nothing is generated.

There are two readings. After a candidate's question mark, the score is the logit of *yes* less that of *no*. After the
whole list, it is the logit of the candidate's token as the first token of the answer. A causal model reads from left to
right and knows positions, so the same candidates in another order get other scores. Attention itself has no order: it
is a sum over a set, of values weighted by products of queries and keys. Order enters in two ways only, by the position
embeddings and by the mask. So in the *invariant* layout all candidates begin at the same position, and each sees what
is before the list and itself, but no other candidate. The end of the prompt sees them all, as a set.

Nogueira & Cho (2019); Gangi Reddy et al. (2024); Lee et al. (2019); Ratner et al. (2023).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbook.gpt.cross_entropy import IGNORE_INDEX
from recbook.gpt.model import GPT
from recbook.llm_ranking.prompts import RankingPrompt, fitted_prompt
from recbook.llm_ranking.training_lists import TrainingList
from recbook.lora.layers import DEFAULT_LORA, LoRAConfig, add_adapter
from recbook.ranking.rankers import Ranker, Shopper
from recbook.tokens.vocabulary import Vocabulary
from recbook.training.config import TrainingConfig
from recbook.training.loop import train

AFTER_QUESTION, AFTER_LIST = "after each question", "after the list"  # where a score is read
OPENING, CLOSING, PADDING = -1, -2, -3  # the part of the prompt that a position belongs to, if not a candidate


class PromptBatch(NamedTuple):
    """Prompts as tensors: B prompts of at most T tokens about at most K candidates."""

    tokens: Tensor  # (B, T) int64
    positions: Tensor  # (B, T) int64: the position whose embedding each token gets
    blocks: Tensor  # (B, T) int64: the candidate that each token belongs to, 0 to K - 1, or OPENING, CLOSING, PADDING
    candidates: Tensor  # (B, K) int64: their tokens
    ends: Tensor  # (B, K) int64: the last token of each candidate's block
    last: Tensor  # (B,) int64: the last token of the prompt
    targets: Tensor  # (B, K) int64: 1 bought, 0 not, -1 no candidate


def lay_out(
    prompts: Sequence[RankingPrompt], pad: int, invariant: bool, targets: Sequence[Sequence[bool]] = ()
) -> PromptBatch:
    """Prompts as one batch, padded with `pad`. `invariant`: all candidates of a prompt begin at one position."""
    B, K = len(prompts), max(len(prompt.blocks) for prompt in prompts)
    T = max(len(prompt.tokens) for prompt in prompts)
    widths = ((T, pad), (T, 0), (T, PADDING), (K, pad), (K, 0))  # of tokens, positions, blocks, candidates, ends
    tokens, positions, blocks, candidates, ends = (torch.full((B, width), value) for width, value in widths)
    last = torch.tensor([len(prompt.tokens) - 1 for prompt in prompts])
    made = PromptBatch(tokens, positions, blocks, candidates, ends, last, torch.full((B, K), IGNORE_INDEX))
    for row, prompt in enumerate(prompts):
        count, sizes = len(prompt.blocks), np.array([len(block) for block in prompt.blocks])
        owner = np.repeat([OPENING, *range(count), CLOSING], [len(prompt.opening), *sizes, len(prompt.closing)])
        places = _shared_positions(prompt, sizes) if invariant else np.arange(len(owner))
        made.tokens[row, : len(owner)] = torch.tensor(prompt.tokens)
        made.blocks[row, : len(owner)], made.positions[row, : len(owner)] = map(torch.from_numpy, (owner, places))
        made.candidates[row, :count] = torch.tensor([block[-2] for block in prompt.blocks])  # before the question mark
        made.ends[row, :count] = torch.from_numpy(len(prompt.opening) + sizes.cumsum() - 1)
        made.targets[row, :count] = torch.tensor(targets[row]).long() if len(targets) else 0
    return made


def _shared_positions(prompt: RankingPrompt, sizes: np.ndarray) -> np.ndarray:
    """Positions without the candidates' order: each candidate's begin where the opening ends."""
    first = len(prompt.opening)
    within = [first + np.arange(size) for size in sizes]
    closing = first + sizes.max() + np.arange(len(prompt.closing))
    return np.concatenate([np.arange(first), *within, closing])


def visible_positions(blocks: Tensor) -> Tensor:
    """The attention mask of the invariant layout: (B, T) -> (B, 1, T, T) bool.

    A position sees, of those before it, the opening and its own block; the closing sees all.
    """
    query, key = blocks[:, :, None], blocks[:, None, :]  # (B, T, 1), (B, 1, T)
    before = torch.ones(blocks.shape[1], blocks.shape[1], dtype=torch.bool, device=blocks.device).tril()
    return (before & ((key == OPENING) | (key == query) | (query == CLOSING)))[:, None]


def prompt_states(model: GPT, lists: PromptBatch, invariant: bool) -> Tensor:
    """The hidden states after the last norm, (B, T, C), in the plain layout or the invariant one."""
    if not invariant:
        return model.hidden(lists.tokens)  # padding comes last, so no token that is read sees it
    # `hidden` adds the embeddings of positions 0, 1, 2 …: subtract them, and add those of the shared positions.
    counted = model.position_embedding.weight[: lists.tokens.shape[1]]  # (T, C)
    vectors = model.token_embedding(lists.tokens) + model.position_embedding(lists.positions) - counted
    return model.hidden(vectors, mask=visible_positions(lists.blocks))


def read_scores(model: GPT, lists: PromptBatch, invariant: bool, reading: str, yes: int, no: int) -> Tensor:
    """The candidates' scores, (B, K): AFTER_QUESTION logits of yes less no, or AFTER_LIST logits of their tokens."""
    x, rows = prompt_states(model, lists, invariant), torch.arange(len(lists.tokens), device=lists.tokens.device)
    if reading == AFTER_QUESTION:
        logits = model.logits(x[rows[:, None], lists.ends])  # (B, K, C) -> (B, K, vocabulary)
        return logits[..., yes] - logits[..., no]
    return model.logits(x[rows, lists.last]).gather(1, lists.candidates)  # (B, vocabulary) -> (B, K)


def list_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Listwise softmax loss: the mean over lists of the mean negative log-probability of its targets, in nats.

    scores (B, K), targets (B, K): 1, 0, or -1 where there is no candidate. Lists without a target do not count. This is
    ListNet, Cao et al. (2007), with the targets sharing the probability equally.
    """
    logs = scores.float().masked_fill(targets == IGNORE_INDEX, -torch.inf).log_softmax(dim=1)
    bought = (targets == 1).float()
    each = -(logs.masked_fill(bought == 0, 0.0)).sum(1) / bought.sum(1).clamp_min(1)
    return each.sum() / (bought.sum(1) > 0).sum().clamp_min(1)


def yes_and_no(vocabulary: Vocabulary) -> tuple[int, int]:
    """The first tokens of the words yes and no, after a question mark; ValueError if they are the same."""
    yes, no = (vocabulary.encode(word)[0] for word in ("yes", "no"))
    if yes == no:
        raise ValueError("this vocabulary's yes and no begin with the same token")
    return yes, no


class GPTRanker:
    """A ranker: our GPT over a prompt of all candidates. `pointwise` gives each a prompt of its own instead."""

    def __init__(
        self,
        model: GPT,
        vocabulary: Vocabulary,
        reading: str = AFTER_LIST,
        invariant: bool = False,
        pointwise: bool = False,
        positions: int = 0,
    ):
        """`reading`: AFTER_QUESTION or AFTER_LIST, else ValueError. `positions`: most tokens of a prompt, 0: all."""
        if reading not in (AFTER_QUESTION, AFTER_LIST):
            raise ValueError(f"there is no reading {reading!r}: give {AFTER_QUESTION!r} or {AFTER_LIST!r}")
        self.model, self.vocabulary, self.reading, self.invariant = model, vocabulary, reading, invariant
        self.pointwise, self.positions = pointwise, positions or model.config.context
        self.yes, self.no = yes_and_no(vocabulary)

    def prompts(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> list[RankingPrompt]:
        """What the model reads: one prompt, or one for each candidate."""
        lists = [[code] for code in candidates] if self.pointwise else [candidates]
        return [fitted_prompt(shopper, query, codes, self.vocabulary, self.positions) for codes in lists]

    @torch.inference_mode()
    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`; ValueError names candidates without a token, or says that the list does not fit."""
        if not len(candidates):
            return np.zeros(0)
        lists = lay_out(self.prompts(shopper, query, candidates), self.vocabulary.control["<|pad|>"], self.invariant)
        lists = PromptBatch(*(tensor.to(self.model.device) for tensor in lists))
        return self.read(lists).flatten().float().cpu().numpy()

    def read(self, lists: PromptBatch) -> Tensor:
        """The scores of prompts as tensors, (B, K)."""
        return read_scores(self.model, lists, self.invariant, self.reading, self.yes, self.no)


# --- Fine-tuning -------------------------------------------------------------------------------------------------

# Chosen on the embedded shop.
RANKER_TRAINING = TrainingConfig(
    steps=400, batch=16, learning_rate=5e-3, warmup=20, weight_decay=0.0, evaluate_every=400, save_every=400
)
RANKER_POSITIONS = 112  # tokens of a training prompt at most: its list is shorter than those ranked, and so quicker


class TrainingListBatches:
    """Training lists as batches for `train`, each prompt laid out as the ranker reads it."""

    def __init__(self, ranker: GPTRanker, lists: Sequence[TrainingList], positions: int = RANKER_POSITIONS):
        self.ranker, self.lists, vocabulary = ranker, lists, ranker.vocabulary
        self.prompts = [fitted_prompt(each.shopper, None, each.candidates, vocabulary, positions) for each in lists]

    def batch(self, step: int, size: int, seed: int = 0) -> PromptBatch:
        """`size` lists, the same for the same step and seed, no list twice."""
        rows = np.random.default_rng((seed, step)).permutation(len(self.prompts))[:size]
        targets = [self.lists[row].bought for row in rows]
        pad = self.ranker.vocabulary.control["<|pad|>"]
        return lay_out([self.prompts[row] for row in rows], pad, self.ranker.invariant, targets)


def teach_ranker(
    ranker: GPTRanker,
    lists: Sequence[TrainingList],
    settings: TrainingConfig = RANKER_TRAINING,
    shape: LoRAConfig = DEFAULT_LORA,
    name: str = "ranker",
    positions: int = RANKER_POSITIONS,
) -> list[dict]:
    """Fine-tune a ranker: put an adapter on its model, in place, and train it on `lists`; returns the metrics.

    The prompts hold no query, because receipts hold none; so the ranker does not learn to use one. All candidates of a
    prompt are scored in one pass. ValueError for a pointwise ranker: train an invariant one that reads AFTER_QUESTION,
    whose scores are the same.
    """
    if ranker.pointwise:
        raise ValueError("a pointwise ranker reads one candidate at a time, and learns nothing from lists: teach an "
                         f"invariant one that reads {AFTER_QUESTION!r}; its model ranks pointwise as well")  # fmt: skip
    add_adapter(ranker.model, name, shape)

    def loss(model: GPT, batch: tuple[Tensor, ...]) -> Tensor:
        prompts = PromptBatch(*batch)
        scores = read_scores(model, prompts, ranker.invariant, ranker.reading, ranker.yes, ranker.no)
        return list_loss(scores, prompts.targets)

    metrics = train(ranker.model, TrainingListBatches(ranker, lists, positions), settings, loss=loss, progress=False)
    ranker.model.eval()
    return metrics


# --- Position bias -----------------------------------------------------------------------------------------------


def permuted_scores(
    ranker: Ranker, shopper: Shopper, query: str | None, candidates: Sequence[str], orders: int = 20, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the same candidates in several orders: places (orders, K) int64, scores (orders, K).

    Column j is candidate j: where in the list it stood, and what score it got there. A random order is rotated, so that
    over K orders each candidate stands at each place once (a Latin square): the mean rank of an order-invariant ranker
    is then the same at all places.
    """
    rng, K, places, scores = np.random.default_rng(seed), len(candidates), [], []
    for turn in range(orders):
        if turn % K == 0:
            drawn = rng.permutation(K)
        order = np.roll(drawn, turn if orders >= K else turn * K // orders)
        place = np.argsort(order)  # candidate order[p] stands at place p
        scores.append(np.asarray(ranker.score(shopper, query, [candidates[j] for j in order]))[place])
        places.append(place)
    return np.stack(places), np.stack(scores)


def order_sensitivity(scores: np.ndarray) -> float:
    """The share of the scores' variance that is due to the order: 0, it does not matter; 1, nothing else does.

    scores (orders, K), of the same K candidates in each row. A constant that is added to a whole row changes no rank,
    and does not count.
    """
    scores = scores - scores.mean(axis=1, keepdims=True)
    total = (scores**2).mean()
    return float(scores.var(axis=0).mean() / total) if total > 0 else 0.0


def rank_by_place(places: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The mean rank, from 1, of what stood at each place of the list, (K,); without position bias all (K + 1) / 2."""
    ranks = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1) + 1
    return np.bincount(places.ravel(), ranks.ravel(), minlength=places.shape[1]) / len(places)
