"""The network of the BasketGPT: a GPT that reads a shopper's baskets, and a head that also gets counted features.

A basket is one opening token and its products. Where a basket opens, the GPT's state predicts the whole set that
follows. The score of a product is a sum: its own vector times the state, what the features of every product add, and,
for a product that this shopper has bought before, what the pointer adds from its user-item features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbook.baskets.features import (
    ITEM_FEATURES,
    USER_COUNTED,
    USER_FEATURES,
    USER_ITEM_COUNTED,
    USER_ITEM_FEATURES,
)
from recbook.baskets.shop_features import EASE_PRODUCTS, RELATED_FEATURES, FeatureBatch
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT

NETWORK_PARTS = frozenset({"reading", "pointer", "time", "text", "together"})  # an ablation takes some away


@dataclass(frozen=True)
class BasketGPTConfig:
    """How a BasketGPT is built and trained; chosen on the real log at cuts in August to October."""

    context: int = 256  # tokens that the GPT reads; the features come from the whole history
    layers: int = 2
    heads: int = 4
    width: int = 64
    dropout: float = 0.4
    pointer: int = 64  # hidden units of the pointer
    features: int = 16  # hidden units that read the features of every product
    parts: frozenset[str] = NETWORK_PARTS  # that the network has
    epochs: float = 6.0
    batch: int = 4  # full windows per step, or as many tokens of shorter ones
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    forget: float = 0.3  # share of the products read that are left blank in training
    repeats: float = 3.0  # how much more a target counts that the shopper has bought before
    ahead: float = 10.0  # days at most from a prediction point to its basket, in training
    start: float = 90.0  # first days of the log (half of it at most) without predictions: trends need a past
    min_shoppers: int = 5  # a product counts as on sale once so many shoppers have bought it
    nearest: int = 50  # neighbours of each product
    solved: int = EASE_PRODUCTS  # products with most buyers, for which EASE is solved
    refresh: float = 14.0  # days between two counts of which products are bought together
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.parts) - NETWORK_PARTS):
            raise ValueError(f"no such part: {', '.join(unknown)}; there are {', '.join(sorted(NETWORK_PARTS))}")
        if self.context < 2 or min(self.epochs, self.learning_rate) <= 0 or self.min_shoppers < 1:
            raise ValueError(f"context is at least 2, min_shoppers 1, epochs and learning_rate are above 0: {self}")


class Standardize(nn.Module):
    """Columns to mean zero and standard deviation one; those that are not used become zero."""

    mean: Tensor
    factor: Tensor
    used: Tensor

    def __init__(self, used: list[bool]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(len(used)))
        self.register_buffer("factor", torch.tensor(used, dtype=torch.float32))
        self.register_buffer("used", torch.tensor(used, dtype=torch.float32), persistent=False)

    def fit(self, values: Tensor) -> None:
        """Take mean and standard deviation from examples, (…, columns)."""
        values = values.flatten(0, -2).float()
        self.mean.copy_(values.mean(0))
        spread = values.std(0, correction=min(1, len(values) - 1))
        self.factor.copy_(self.used * (spread > 1e-6) / spread.clamp_min(1e-3))  # a constant column becomes zero

    def forward(self, values: Tensor) -> Tensor:
        """(…, columns) -> (…, columns)."""
        return torch.addcmul(-self.mean * self.factor, values.float(), self.factor)  # (values - mean) · factor, at once


class BasketNetwork(nn.Module):
    """Scores of all products at the openings of baskets. `text` (N, d) are unit vectors of the descriptions."""

    text: Tensor

    def __init__(self, text: Tensor, config: GPTConfig, pointer: int, features: int, parts: frozenset[str], seed: int):
        """`pointer` and `features` are hidden units. `config.vocabulary` is not used: products have own vectors."""
        super().__init__()
        products, width = len(text), config.width
        self.parts = parts
        self.register_buffer("text", text if "text" in parts else torch.zeros_like(text))
        timed, related = "time" in parts, ["together" in parts] * 3 + ["text" in parts] * 2
        used = [column < USER_ITEM_COUNTED or timed for column in range(len(USER_ITEM_FEATURES))]
        self.bought_scale = Standardize(used)
        self.shopper_scale = Standardize([column < USER_COUNTED or timed for column in range(len(USER_FEATURES))])
        self.trend_scale, self.related_scale = Standardize([timed] * len(ITEM_FEATURES)), Standardize(related)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.gpt = GPT(config)
            self.read = nn.Embedding(products, width)  # input vectors: a product as it is read
            self.write = nn.Embedding(products, width)  # output vectors: a product as it is predicted
            self.read_text, self.write_text = (nn.Linear(text.shape[1], width, bias=False) for _ in range(2))
            self.opening = nn.Linear(len(USER_FEATURES), width)
            self.bias = nn.Parameter(torch.zeros(products))
            columns = len(RELATED_FEATURES) + len(ITEM_FEATURES)
            self.weigh = nn.Linear(width, columns)  # the weight of each feature for this shopper now
            self.mix, self.mix_state = nn.Linear(columns, features), nn.Linear(width, features, bias=False)
            self.mixed = nn.Linear(features, 1)
            self.point = nn.Linear(columns + len(USER_ITEM_FEATURES), pointer)
            self.point_state = nn.Linear(width, pointer, bias=False)
            self.pointed, self.pointed_plainly = nn.Linear(pointer, 1), nn.Linear(len(USER_ITEM_FEATURES), 1)
            for layer, spread in ((self.read, 0.02), (self.read_text, 0.05), (self.write_text, 0.05)):
                nn.init.normal_(layer.weight, 0.0, spread)
            # A product that is in no basket keeps a zero vector of its own: only its text tells what it is.
            nn.init.zeros_(self.write.weight)
            nn.init.zeros_(self.weigh.weight)

    def fit_scales(self, batch: FeatureBatch[Tensor], shoppers: Tensor) -> None:
        """Standardize all features by the means and standard deviations of examples."""
        self.related_scale.fit(batch.related)
        self.trend_scale.fit(batch.trend)
        self.bought_scale.fit(batch.bought)
        self.shopper_scale.fit(shoppers)

    def vectors(self, tokens: Tensor, shoppers: Tensor, forget: float = 0.0) -> Tensor:
        """The GPT's input, (B, T, C): vectors of products, of openings (the token N: the user features), of padding.

        `shoppers` (B, T, len(USER_FEATURES)) counts only at openings. A share `forget` of the products is left blank.
        """
        products = len(self.text)
        read, place = tokens.clamp(max=products - 1).unique(return_inverse=True)  # one shopper reads few of them
        table = self.read(read) + self.read_text(self.text[read])
        x = F.embedding(place, table)  # (B, T) -> (B, T, C)
        kept = tokens < products
        if forget:
            kept = kept & (torch.rand(tokens.shape, device=tokens.device) >= forget)
        opening = self.opening(self.shopper_scale(shoppers))
        return torch.where((tokens == products)[..., None], opening, x * kept[..., None])

    def states(self, tokens: Tensor, shoppers: Tensor, forget: float = 0.0) -> Tensor:
        """The GPT's state at every position, (B, T, C); without the part "reading", its input."""
        vectors = self.vectors(tokens, shoppers, forget)
        return self.gpt.hidden(vectors) if "reading" in self.parts else vectors

    def scores(self, state: Tensor, batch: FeatureBatch[Tensor]) -> Tensor:
        """Logits of every product from states (n, C): (n, N). `batch` holds tensors on the state's device."""
        state = F.dropout(state, self.gpt.config.dropout, self.training)
        counted = [self.related_scale(batch.related), self.trend_scale(batch.trend)]
        features = torch.cat(counted, dim=2)  # (n, N, columns)
        scores = state @ (self.write.weight + self.write_text(self.text)).T + self.bias
        scores = scores + torch.einsum("nk,npk->np", self.weigh(state), features)
        hidden = F.gelu(self.mix(features) + self.mix_state(state)[:, None])  # (n, N, features)
        scores = scores + self.mixed(hidden)[..., 0]
        if "pointer" not in self.parts:
            return scores
        bought = self.bought_scale(batch.bought)  # (pairs, columns)
        pairs = torch.cat([bought, features[batch.row, batch.item]], dim=1)
        hidden = F.gelu(self.point(pairs) + self.point_state(state)[batch.row])
        pointed = self.pointed(hidden) + self.pointed_plainly(bought)  # (pairs, 1)
        return scores.index_put((batch.row, batch.item), pointed[:, 0], accumulate=True)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.bias.device

    @torch.no_grad()
    def attention(self, tokens: Tensor, shoppers: Tensor) -> Tensor:
        """The attention of the last position in every layer and head: (layers, B, heads, T), summing to one over T."""
        projected = []
        layers = [block.get_submodule("attention.query_key_value") for block in self.gpt.blocks]
        hooks = [layer.register_forward_hook(lambda *call: projected.append(call[2])) for layer in layers]
        self.states(tokens, shoppers)
        for hook in hooks:
            hook.remove()
        B, T = tokens.shape
        heads, width = self.gpt.config.heads, self.gpt.config.width
        query, key, _ = torch.stack(projected).view(-1, B, T, 3, heads, width // heads).unbind(3)
        product = torch.einsum("lbhd,lbthd->lbht", query[:, :, -1], key)  # (layers, B, heads, T)
        return (product / (width // heads) ** 0.5).softmax(dim=-1)
