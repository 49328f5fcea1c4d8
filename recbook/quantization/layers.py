"""Quantized linear layers and embeddings, and `quantize`, which replaces those of any module by them."""

from collections.abc import Sequence

from torch import Tensor, nn

from recbook.quantization.weights import WEIGHT_CLASSES, QuantizedWeight

NEVER_QUANTIZED = ("position_embedding",)  # small, and a slice of it is read at every step
SMALLEST_QUANTIZED = 4096  # weights: smaller layers would save little, and their weights often matter most


# --- Layers ------------------------------------------------------------------------------------------------------


class _QuantizedLayer(nn.Module):
    """A layer with a quantized weight."""

    def __init__(self, quantized_weight: QuantizedWeight):
        super().__init__()
        self.quantized_weight = quantized_weight

    @property
    def weight(self) -> Tensor:
        """The weight, dequantized at each call; it has no gradient."""
        return self.quantized_weight.dequantized()

    def extra_repr(self) -> str:
        """The shape and the scheme."""
        return f"{self.quantized_weight.shape}, {self.quantized_weight.scheme}"


class QuantizedLinear(_QuantizedLayer):
    """Replaces an nn.Linear."""

    bias: nn.Parameter | None

    def __init__(self, quantized_weight: QuantizedWeight, bias: nn.Parameter | None = None):
        """The weight is (out, in); the bias (out,) stays in floats."""
        super().__init__(quantized_weight)
        self.out_features, self.in_features = quantized_weight.shape
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y = self.quantized_weight.linear(x)
        return y if self.bias is None else y + self.bias


class QuantizedEmbedding(_QuantizedLayer):
    """Replaces an nn.Embedding, or the token embedding of a GPT with its tied head."""

    def __init__(self, quantized_weight: QuantizedWeight):
        """The weight is (tokens, channels)."""
        super().__init__(quantized_weight)
        self.num_embeddings, self.embedding_dim = quantized_weight.shape

    def forward(self, tokens: Tensor) -> Tensor:
        """The vectors of tokens, (…,) int64 -> (…, channels)."""
        return self.quantized_weight.rows(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """Inner products with all vectors, (…, channels) -> (…, tokens)."""
        return self.quantized_weight.linear(hidden)


# --- Whole models ------------------------------------------------------------------------------------------------


def quantize(model: nn.Module, scheme: str, skip: Sequence[str] = NEVER_QUANTIZED) -> nn.Module:
    """Quantize the weights of a module's linear layers and embeddings, in place, and return the module.

    `scheme` is "int8", "nf4" or "nf4-double". Layers of fewer than 4,096 weights stay as they are; so do those whose
    name, or its last part, is in `skip`. ValueError, and nothing is changed, if the scheme is unknown, the model is
    quantized already, has no such layer, or has a weight that is not finite: the message names the place.
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
    quantized: dict[int, QuantizedWeight] = {}  # by weight: one that two layers share stays shared
    for layer in layers.values():
        key = id(layer.weight)
        quantized[key] = quantized[key] if key in quantized else WEIGHT_CLASSES[scheme].of(layer.weight)
        model = _replace(model, layer, quantized[key])
    return model


def quantized_schemes(model: nn.Module) -> dict[str, str]:
    """The scheme of each quantized layer, by its name; empty for a model that is not quantized."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _QuantizedLayer)}
    return {name: layer.quantized_weight.scheme for name, layer in layers.items()}


def prepare_quantized(model: nn.Module, named: dict[str, str]) -> nn.Module:
    """Replace layers by empty quantized ones in the schemes `named`, for a state_dict to fill; returns the model.

    ValueError if a name is not that of a linear layer or an embedding, or a scheme is unknown.
    """
    layers = dict(model.named_modules())
    for name, scheme in named.items():
        layer = layers.get(name)
        if scheme not in WEIGHT_CLASSES or not isinstance(layer, nn.Linear | nn.Embedding):
            raise ValueError(f"there is no layer {name!r} to hold as {scheme!r}")
        with layer.weight.device:
            model = _replace(model, layer, WEIGHT_CLASSES[scheme](*layer.weight.shape))
    return model


def _wanted(name: str, layer: nn.Module, skip: Sequence[str]) -> bool:
    if not isinstance(layer, nn.Linear | nn.Embedding) or getattr(layer, "max_norm", None) is not None:
        return False  # with max_norm, a forward pass changes the weights
    return layer.weight.numel() >= SMALLEST_QUANTIZED and not {name, name.rpartition(".")[2]} & set(skip)


def _check_finite(name: str, weight: Tensor) -> None:
    if not weight.isfinite().all():
        row, column = (~weight.isfinite()).nonzero()[0].tolist()
        value = weight[row, column].item()
        raise ValueError(f"{name or 'the layer'} has the weight {value} at [{row}, {column}]: its training diverged")


def _replace(model: nn.Module, layer: nn.Module, weight: QuantizedWeight) -> nn.Module:
    """Replace `layer` by a quantized layer with this weight, wherever it stands in the model."""
    new = QuantizedLinear(weight, layer.bias) if isinstance(layer, nn.Linear) else QuantizedEmbedding(weight)
    new.train(layer.training)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is layer:
                setattr(module, name, new)
    return new if model is layer else model
