"""The network behind `baskets`: a GPT that reads a shopper's baskets, and a head that also sees what the shop counted.

A basket is one opening token and its products. Where a basket opens, the GPT's state is asked for the whole set that
follows. A product's score adds up what its own vector says, what the clues about every product say, and, for a product
that this shopper has bought before, what a pointer makes of how often and how long ago.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbook.baskets.item_features import RELATED_FEATURES, FeatureBatch
from recbook.baskets.shopper_features import (
    ITEM_FEATURES,
    USER_COUNTED,
    USER_FEATURES,
    USER_ITEM_COUNTED,
    USER_ITEM_FEATURES,
)
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT

NETWORK_PARTS = frozenset(
    {"reading", "pointer", "time", "text", "together"}
)  # of the model: what an ablation takes away


@dataclass(frozen=True)
class BasketGPTConfig:
    """How a BasketGPT is built and trained; chosen on the real log at cuts in August to October."""

    context: int = 256  # tokens that the GPT reads; counts and dates come from the whole history
    layers: int = 2
    heads: int = 4
    width: int = 64
    dropout: float = 0.4
    pointer: int = 64  # hidden units of the pointer
    clues: int = 16  # hidden units that look at the clues of every product
    parts: frozenset[str] = NETWORK_PARTS  # what the network has: an ablation takes some away
    epochs: float = 6.0
    batch: int = 4  # full windows a step, or as many tokens of shorter ones
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    forget: float = 0.3  # share of the products read that are left blank in training
    repeats: float = 3.0  # how much more a target counts that the shopper has bought before
    ahead: float = 10.0  # days at most, before a basket, that it is asked for
    start: float = 90.0  # days of the log (half of them at most) that are only looked back on: trends need a past
    min_shoppers: int = 5  # a product is asked for once so many have bought it
    nearest: int = 50  # neighbours of each product
    solved: int = 4000  # products with most buyers, for which EASE is solved: it costs the cube of their number
    refresh: float = 14.0  # days between two looks at which products are bought together
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.parts) - NETWORK_PARTS):
            raise ValueError(f"no such part: {', '.join(unknown)}; there are {', '.join(sorted(NETWORK_PARTS))}")
        if self.context < 2 or min(self.epochs, self.learning_rate) <= 0 or self.min_shoppers < 1:
            raise ValueError(f"context is at least 2, min_shoppers 1, epochs and learning_rate are above 0: {self}")


class Standardize(nn.Module):
    """Columns to mean zero and spread one, those that are not used to zero."""

    def __init__(self, used: list[bool]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(used)))
        self.register_buffer("factor", torch.tensor(used, dtype=torch.float32))
        self.used = torch.tensor(used, dtype=torch.float32)

    def fit(self, values: Tensor) -> None:
        """Take mean and spread from examples, (…, columns)."""
        values = values.flatten(0, -2).float()
        self.mean.copy_(values.mean(0))
        spread = values.std(0, correction=min(1, len(values) - 1))
        self.factor.copy_(self.used * (spread > 1e-6) / spread.clamp_min(1e-3))  # what never varies says nothing

    def forward(self, values: Tensor) -> Tensor:
        """(…, columns) -> (…, columns)."""
        return (values.float() - self.mean) * self.factor


class BasketNetwork(nn.Module):
    """Scores of all products at the openings of baskets. `text` (N, d) are unit vectors of the descriptions."""

    def __init__(self, text: Tensor, config: GPTConfig, pointer: int, clues: int, parts: frozenset[str], seed: int):
        """Sizes: `pointer` and `clues` are hidden units; `config.vocabulary` is not used: products have own vectors."""
        super().__init__()
        products, width = len(text), config.width
        self.parts = parts
        self.register_buffer("text", text if "text" in parts else torch.zeros_like(text))
        timed, related = "time" in parts, ["together" in parts] * 3 + ["text" in parts] * 2
        self.bought_scale = Standardize(
            [column < USER_ITEM_COUNTED or timed for column in range(len(USER_ITEM_FEATURES))]
        )
        self.shopper_scale = Standardize([column < USER_COUNTED or timed for column in range(len(USER_FEATURES))])
        self.trend_scale, self.related_scale = Standardize([timed] * len(ITEM_FEATURES)), Standardize(related)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.gpt = GPT(config)
            self.read = nn.Embedding(products, width)  # a product as it is read
            self.write = nn.Embedding(products, width)  # a product as it is predicted
            self.read_text, self.write_text = (nn.Linear(text.shape[1], width, bias=False) for _ in range(2))
            self.opening = nn.Linear(len(USER_FEATURES), width)
            self.bias = nn.Parameter(torch.zeros(products))
            columns = len(RELATED_FEATURES) + len(ITEM_FEATURES)
            self.weigh = nn.Linear(width, columns)  # how much each clue counts for this shopper now
            self.mix, self.mix_state = nn.Linear(columns, clues), nn.Linear(width, clues, bias=False)
            self.mixed = nn.Linear(clues, 1)
            self.point, self.point_state = (
                nn.Linear(columns + len(USER_ITEM_FEATURES), pointer),
                nn.Linear(width, pointer, False),
            )
            self.pointed, self.pointed_plainly = nn.Linear(pointer, 1), nn.Linear(len(USER_ITEM_FEATURES), 1)
            for layer, spread in ((self.read, 0.02), (self.read_text, 0.05), (self.write_text, 0.05)):
                nn.init.normal_(layer.weight, 0.0, spread)
            # A product that no basket teaches keeps a zero vector of its own, and is known by its text.
            nn.init.zeros_(self.write.weight)
            nn.init.zeros_(self.weigh.weight)

    def fit_scales(self, known: FeatureBatch, shoppers: Tensor) -> None:
        """Learn from examples how the clues are spread, so that all reach the network at the same size."""
        self.related_scale.fit(known.related)
        self.trend_scale.fit(known.trend)
        self.bought_scale.fit(known.bought)
        self.shopper_scale.fit(shoppers)

    def vectors(self, tokens: Tensor, shoppers: Tensor, forget: float = 0.0) -> Tensor:
        """What the GPT reads, (B, T, C): products, openings (the token N, told what is known of the shopper), padding.

        `shoppers` (B, T, len(SHOPPER)) counts at openings; a share `forget` of the products is left blank.
        """
        products = len(self.text)
        table = self.read.weight + self.read_text(self.text)
        x = F.embedding(tokens.clamp(max=products - 1), table)  # (B, T) -> (B, T, C)
        kept = tokens < products
        if forget:
            kept = kept & (torch.rand(tokens.shape, device=tokens.device) >= forget)
        opening = self.opening(self.shopper_scale(shoppers))
        return torch.where((tokens == products)[..., None], opening, x * kept[..., None])

    def states(self, tokens: Tensor, shoppers: Tensor, forget: float = 0.0) -> Tensor:
        """The GPT's state at every position, (B, T, C); without the part "reading", what is known of the shopper."""
        vectors = self.vectors(tokens, shoppers, forget)
        return self.gpt.hidden(vectors) if "reading" in self.parts else vectors

    def scores(self, state: Tensor, known: FeatureBatch) -> Tensor:
        """Logits of every product from states (n, C): (n, N). `known` holds tensors on the state's device."""
        state = F.dropout(state, self.gpt.config.dropout, self.training)
        clues = torch.cat([self.related_scale(known.related), self.trend_scale(known.trend)], dim=2)  # (n, N, columns)
        scores = state @ (self.write.weight + self.write_text(self.text)).T + self.bias
        scores = scores + torch.einsum("nk,npk->np", self.weigh(state), clues)
        hidden = F.gelu(self.mix(clues) + self.mix_state(state)[:, None])  # (n, N, clues)
        scores = scores + self.mixed(hidden)[..., 0]
        if "pointer" not in self.parts:
            return scores
        bought = self.bought_scale(known.bought)  # (pairs, columns)
        seen = torch.cat([bought, clues[known.row, known.item]], dim=1)
        hidden = F.gelu(self.point(seen) + self.point_state(state)[known.row])
        pointed = self.pointed(hidden) + self.pointed_plainly(bought)  # (pairs, 1)
        return scores.index_put((known.row, known.item), pointed[:, 0], accumulate=True)

    @torch.no_grad()
    def attention(self, tokens: Tensor, shoppers: Tensor) -> Tensor:
        """Where the last position looks, every layer and head: (layers, B, heads, T), each summing to one over T."""
        projected = []
        layers = [block.attention.query_key_value for block in self.gpt.blocks]
        hooks = [layer.register_forward_hook(lambda *call: projected.append(call[2])) for layer in layers]
        self.states(tokens, shoppers)
        for hook in hooks:
            hook.remove()
        B, T = tokens.shape
        heads, width = self.gpt.config.heads, self.gpt.config.width
        query, key, _ = torch.stack(projected).view(-1, B, T, 3, heads, width // heads).unbind(3)
        product = torch.einsum("lbhd,lbthd->lbht", query[:, :, -1], key)  # (layers, B, heads, T)
        return (product / (width // heads) ** 0.5).softmax(dim=-1)
