"""Layers that hold their weights in few bits, and `quantize`, which puts them in the place of any module's own."""

from collections.abc import Sequence

from torch import Tensor, nn

from recbook.quantization.weights import WEIGHT_CLASSES, QuantizedWeight

NEVER_QUANTIZED = ("position_embedding",)  # read a slice at every step, and small
SMALLEST_QUANTIZED = (
    4096  # weights: what has fewer keeps them, since it saves a few kilobytes and its numbers often matter most
)


# --- Layers ------------------------------------------------------------------------------------------------------


class _Quantized(nn.Module):
    """What both layers share: a store."""

    def __init__(self, store: QuantizedWeight):
        super().__init__()
        self.store = store

    @property
    def weight(self) -> Tensor:
        """The dequantized weight, made anew at each call; it has no gradient."""
        return self.store.dequantized()

    def extra_repr(self) -> str:
        """The shape and the scheme."""
        return f"{self.store.shape}, {self.store.scheme}"


class QuantizedLinear(_Quantized):
    """In the place of an nn.Linear."""

    def __init__(self, store: QuantizedWeight, bias: nn.Parameter | None = None):
        """Store (out, in); the bias (out,) stays as it is."""
        super().__init__(store)
        self.out_features, self.in_features = store.shape
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y = self.store.linear(x)
        return y if self.bias is None else y + self.bias


class QuantizedEmbedding(_Quantized):
    """In the place of an nn.Embedding, or of a GPT's token embedding with its tied head."""

    def __init__(self, store: QuantizedWeight):
        """Store (tokens, channels)."""
        super().__init__(store)
        self.num_embeddings, self.embedding_dim = store.shape

    def forward(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens, (…,) int64 -> (…, channels)."""
        return self.store.rows(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """Inner products with all vectors, (…, channels) -> (…, tokens)."""
        return self.store.linear(hidden)


# --- Whole models ------------------------------------------------------------------------------------------------


def quantize(model: nn.Module, scheme: str, skip: Sequence[str] = NEVER_QUANTIZED) -> nn.Module:
    """Put the weights of a module's linear layers and embeddings in few bits, in place, and return the module.

    `scheme` is "int8", "nf4" or "nf4-double". Left as they are: layers whose name, or its last part, is in `skip`, and
    those of fewer than 4,096 weights. ValueError, and nothing changed, if the scheme is unknown, the model is quantized
    already, has no such layer, or has a weight that is not finite: the message names the place.
    """
    if scheme not in WEIGHT_CLASSES:
        raise ValueError(f"no scheme {scheme!r}; there are {', '.join(WEIGHT_CLASSES)}")
    if done := quantized_schemes(model):
        first, its = next(iter(done.items()))
        raise ValueError(f"the model is quantized already ({first} in {its}): quantize it as it was trained")
    layers = {name: layer for name, layer in model.named_modules() if _wanted(name, layer, skip)}
    if not layers:
        raise ValueError(
            f"no linear layer or embedding here has {SMALLEST_QUANTIZED:,} weights or more: there is nothing to gain"
        )
    for name, layer in layers.items():
        _check_finite(name, layer.weight)
    made: dict[int, QuantizedWeight] = {}  # by weight: one that two layers share stays shared
    for layer in layers.values():
        key = id(layer.weight)
        made[key] = made[key] if key in made else WEIGHT_CLASSES[scheme].of(layer.weight)
        model = _put(model, layer, made[key])
    return model


def quantized_schemes(model: nn.Module) -> dict[str, str]:
    """The scheme of each quantized layer, by its name; empty for a model that is not quantized."""
    return {name: layer.store.scheme for name, layer in model.named_modules() if isinstance(layer, _Quantized)}


def prepare_quantized(model: nn.Module, named: dict[str, str]) -> nn.Module:
    """Put empty quantized layers in the schemes `named` in place of its layers, for a state_dict to fill; returns it.

    ValueError if a name is not that of a linear layer or an embedding, or a scheme is unknown.
    """
    layers = dict(model.named_modules())
    for name, scheme in named.items():
        layer = layers.get(name)
        if scheme not in WEIGHT_CLASSES or not isinstance(layer, nn.Linear | nn.Embedding):
            raise ValueError(f"there is no layer {name!r} to hold as {scheme!r}")
        with layer.weight.device:
            model = _put(model, layer, WEIGHT_CLASSES[scheme](*layer.weight.shape))
    return model


def _wanted(name: str, layer: nn.Module, skip: Sequence[str]) -> bool:
    if not isinstance(layer, nn.Linear | nn.Embedding) or getattr(layer, "max_norm", None) is not None:
        return False  # with max_norm, reading changes the weights
    return layer.weight.numel() >= SMALLEST_QUANTIZED and not {name, name.rpartition(".")[2]} & set(skip)


def _check_finite(name: str, weight: Tensor) -> None:
    if not weight.isfinite().all():
        row, column = (~weight.isfinite()).nonzero()[0].tolist()
        value = weight[row, column].item()
        raise ValueError(f"{name or 'the layer'} has the weight {value} at [{row}, {column}]: its training diverged")


def _put(model: nn.Module, layer: nn.Module, store: QuantizedWeight) -> nn.Module:
    """A quantized layer with this store wherever `layer` stands in the model."""
    new = QuantizedLinear(store, layer.bias) if isinstance(layer, nn.Linear) else QuantizedEmbedding(store)
    new.train(layer.training)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is layer:
                setattr(module, name, new)
    return new if model is layer else model
