"""A GPT: a decoder-only transformer with GPT-2's architecture and a key-value cache.

Learned positions, pre-norm blocks, a head tied to the token embedding, scaled dot-product attention from PyTorch. The
weights of GPT-2 in `transformers` load into it and give the same logits (`from_transformers`). `GPT.hidden` gives
the hidden states without the head, and inputs may be vectors instead of tokens: recommenders and rankers need both.
Radford et al. (2019); Vaswani et al. (2017).
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbook.gpt.config import GPTConfig
from recbook.gpt.cross_entropy import linear_cross_entropy

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel


class KVCache:
    """The keys and values of the positions already seen, preallocated: (2, batch, heads, size, C / heads) per layer.

    `start` (batch,) is where each row's text begins: rows of different lengths are padded on the left.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        size: int = 0,
    ):
        """Room for `size` positions of `batch` rows; 0: for the whole context."""
        self.size, self.length = min(size or config.context, config.context), 0  # positions: room for, filled
        shape = (2, batch, config.heads, self.size, config.width // config.heads)
        self.layers = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.layers)]
        self.start = torch.zeros(batch, dtype=torch.long, device=device)

    @property
    def start(self) -> Tensor:
        """Where each row's text begins, (batch,) int64."""
        return self._start

    @start.setter
    def start(self, start: Tensor) -> None:
        """Set it, before the first position is read."""
        self._start, self.padded = start, bool(start.any())  # asked here once: at every step it would hold up a GPU

    def append(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new positions of one layer, (2, B, heads, T, C / heads); return all of its keys and values so far."""
        T = keys_values.shape[3]
        so_far = self.layers[layer].narrow(3, 0, self.length + T)
        so_far.narrow(3, self.length, T).copy_(keys_values)
        keys, values = so_far.unbind(0)
        return keys, values

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order: (rows,) int64."""
        self.layers, self.start = [layer[:, rows] for layer in self.layers], self.start[rows]

    def visible(self, T: int) -> Tensor | None:
        """Which positions the T new ones may look at, bool (B, 1, T, length + T); None: all before each of them."""
        if not self.padded and (T == 1 or not self.length):
            return None
        keys = torch.arange(self.length + T, device=self.start.device)
        queries = keys[self.length :, None]  # (T, 1)
        seen = (keys <= queries) & (keys >= self.start[:, None, None])  # (B, T, length + T)
        return (seen | (keys == queries))[:, None]  # padding sees itself: a softmax over nothing would be NaN


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int) -> Tensor:
        """What each position takes from those that it may see, (B, T, C); `layer` is its place in the cache."""
        B, T, C = x.shape
        projected = self.query_key_value(x).view(B, T, 3, self.heads, C // self.heads)  # (B, T, 3C) -> parts and heads
        projected = projected.permute(2, 0, 3, 1, 4)  # -> (3, B, heads, T, C / heads)
        query, key, value = projected.unbind(0)
        if cache is not None:
            key, value = cache.append(layer, projected[1:])  # (B, heads, past + T, C / heads)
        y = scaled_dot_product_attention(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.output(y.transpose(1, 2).reshape(B, T, C))  # (B, heads, T, C / heads) -> (B, T, C)


def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Each query's mean of the values it may see, weighted by softmax(query · key / sqrt(d)): (B, heads, T, d)."""
    causal = mask is None and query.shape[2] > 1
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        # On CPUs the bfloat16 kernel's backward pass takes 2.5 times as long as the float32 one.
        query, key, value = query.float(), key.float(), value.float()
    with torch.autocast("cpu", enabled=False):
        if causal and dropout and query.device.type == "cpu":
            return _causal_attention(query, key, value, dropout)
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, causal)


def _causal_attention(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> Tensor:
    """The same in plain products: with dropout, on a CPU, twice as fast as PyTorch's, whose draws are slow."""
    T, d = query.shape[-2:]
    later = torch.full((T, T), -math.inf, dtype=query.dtype).triu(1)
    scores = torch.baddbmm(later, query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), alpha=d**-0.5)
    weights = scores.softmax(-1)  # (B · heads, T, T)
    kept = torch.rand(weights.shape) >= dropout  # F.dropout draws three times as slowly
    weights = weights * kept.to(weights.dtype).div_(1 - dropout)
    return (weights @ value.flatten(0, 1)).view(query.shape)


class Block(nn.Module):
    """Attention, then a two-layer network on each position; each reads a normed copy and adds to the stream."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.dropout = config.dropout
        self.norm1, self.norm2 = nn.LayerNorm(config.width), nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.expand = nn.Linear(config.width, 4 * config.width)
        self.contract = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor, mask: Tensor | None, cache: KVCache | None, layer: int) -> Tensor:
        """The stream after this block, (B, T, C) -> (B, T, C)."""
        x = x + F.dropout(self.attention(self.norm1(x), mask, cache, layer), self.dropout, self.training)
        y = F.gelu(self.expand(self.norm2(x)), approximate="tanh")  # (B, T, C) -> (B, T, 4C)
        return x + F.dropout(self.contract(y), self.dropout, self.training)


class TokenEmbedding(nn.Embedding):
    """One vector per token, used twice: as the token's input, and in the head, to score it as the next token."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Inner products with all vectors, (…, C) -> (…, vocabulary)."""
        return F.linear(hidden, self.weight)


class GPT(nn.Module):
    """The model: `model(tokens)` gives logits (B, T, vocabulary); `model.hidden(tokens)` what comes before the head."""

    def __init__(self, config: GPTConfig, seed: int | None = None):
        """Build with GPT-2's initialisation; `seed` fixes it, None takes PyTorch's global state."""
        super().__init__()
        self.config = config
        self.token_embedding = TokenEmbedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.initialise(seed)

    @torch.no_grad()
    def initialise(self, seed: int | None) -> None:
        """Weights from N(0, 0.02), biases zero; what writes to the residual stream is smaller by sqrt(2 layers)."""
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif "norm" not in name:
                into_stream = name.endswith(("output.weight", "contract.weight"))
                spread = 0.02 / math.sqrt(2 * self.config.layers) if into_stream else 0.02
                parameter.normal_(0.0, spread, generator=generator)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Logits of the next token at every position: (B, T) int64 -> (B, T, vocabulary)."""
        return self.logits(self.hidden(tokens, cache))

    def hidden(self, tokens: Tensor, cache: KVCache | None = None, mask: Tensor | None = None) -> Tensor:
        """The stream after the last norm, (B, T, C), from tokens (B, T) or from vectors (B, T, C) in their place.

        With a cache, the T positions follow those that the cache holds, and are added to it. `mask` (B, 1, T, past + T)
        bool says which positions each may look at, instead of all before it. ValueError if they do not fit.
        """
        x = tokens if tokens.is_floating_point() else self.token_embedding(tokens)
        rows, T = x.shape[:2]
        past, room = 0, (rows, self.config.context)
        if cache is not None:
            past, room = cache.length, (len(cache.start), cache.size)
            mask = cache.visible(T) if mask is None else mask
        if rows != room[0] or past + T > room[1]:
            remedy = "keep the last positions, or make a larger cache"
            raise ValueError(f"{rows} rows of {past + T} positions do not fit {room[0]} of {room[1]}: {remedy}")
        x = F.dropout(x + self._positions(past, past + T, cache), self.config.dropout, self.training)
        for layer, block in enumerate(self.blocks):
            x = block(x, mask, cache, layer)
        if cache is not None:
            cache.length += T
        return self.norm(x)

    def _positions(self, first: int, end: int, cache: KVCache | None) -> Tensor:
        """The vectors of positions `first` to `end`: (T, C), or (B, T, C) where each row counts from its own start."""
        if cache is None or not cache.padded:
            return self.position_embedding.weight[first:end]
        positions = torch.arange(first, end, device=cache.start.device) - cache.start[:, None]  # (B, T)
        return self.position_embedding(positions.clamp_min(0))

    def logits(self, hidden: Tensor) -> Tensor:
        """The head: inner products with the token embeddings, (…, C) -> (…, vocabulary)."""
        return self.token_embedding.logits(hidden)

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of `targets` (B, T), without those at -1. The logits are never held whole."""
        hidden = self.hidden(tokens).flatten(0, 1)  # (B, T, C) -> (B · T, C)
        return linear_cross_entropy(hidden, self.token_embedding.weight, targets.flatten())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the activations between layers; a quantized model's weights have other types."""
        return self.norm.weight.dtype


# --- The same weights in transformers ----------------------------------------------------------------------------

TRANSFORMERS_NAMES = {  # the parts of a parameter's name: ours -> those of transformers' GPT2LMHeadModel
    "token_embedding": "wte", "position_embedding": "wpe", "norm": "ln_f", "norm1": "ln_1", "norm2": "ln_2",
    "blocks": "h", "attention": "attn", "query_key_value": "c_attn", "output": "c_proj",
    "expand": "mlp.c_fc", "contract": "mlp.c_proj",
}  # fmt: skip
PLAIN_GPT2 = dict(  # the settings of transformers' GPT-2 that this architecture implements
    activation_function="gelu_new", layer_norm_epsilon=1e-5, scale_attn_weights=True, tie_word_embeddings=True,
    scale_attn_by_inverse_layer_idx=False, add_cross_attention=False,
)  # fmt: skip


def _theirs(name: str) -> str:
    return "transformer." + ".".join(TRANSFORMERS_NAMES.get(part, part) for part in name.split("."))


def _turned(name: str, weight: Tensor) -> Tensor:
    """A copy of a parameter; a linear layer's matrix transposed, since theirs (Conv1D) is (in, out)."""
    return weight.T.contiguous() if weight.ndim == 2 and "embedding" not in name else weight.clone()


def from_transformers(theirs: "GPT2LMHeadModel") -> GPT:
    """Our GPT, in evaluation mode, with the weights of a `GPT2LMHeadModel`; ValueError if that is not plain GPT-2."""
    c = theirs.config
    other = [f"{name}={getattr(c, name)}" for name, value in PLAIN_GPT2.items() if getattr(c, name, value) != value]
    other += [f"n_inner={c.n_inner}"] * (c.n_inner not in (None, 4 * c.n_embd))
    if other:
        raise ValueError(f"only plain GPT-2 can be loaded; this one has {', '.join(other)}")
    model = GPT(GPTConfig(c.vocab_size, c.n_positions, c.n_layer, c.n_head, c.n_embd, c.resid_pdrop))
    weights = theirs.state_dict()
    model.load_state_dict({name: _turned(name, weights[_theirs(name)]) for name in model.state_dict()})
    return model.eval()


def to_transformers(model: GPT) -> "GPT2LMHeadModel":
    """A `transformers.GPT2LMHeadModel` with our weights, in evaluation mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    c = model.config
    config = GPT2Config(
        vocab_size=c.vocabulary, n_positions=c.context, n_layer=c.layers, n_head=c.heads, n_embd=c.width,
        resid_pdrop=c.dropout, embd_pdrop=c.dropout, attn_pdrop=c.dropout, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config)
    weights = {_theirs(name): _turned(name, weight) for name, weight in model.state_dict().items()}
    theirs.load_state_dict(weights | {"lm_head.weight": model.token_embedding.weight.detach().clone()})
    return theirs.eval()
