"""LoRA, low-rank adapters: a few trained parameters beside frozen matrices, that can be switched, merged and unmerged.

A frozen layer x W' + b gets a low-rank path beside it: x A' B' times alpha / rank, with A (rank, in) and B (out, rank).
B starts at zero, so a new adapter changes nothing. A base may have several adapters; one is in use, or none.
Hu et al. (2022).
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ALL_TARGETS = ("query_key_value", "output", "expand", "contract")  # every matrix inside a block


@dataclass(frozen=True)
class LoRAConfig:
    """The shape of an adapter."""

    rank: int = 16
    alpha: float = 32.0  # the adapter's output is scaled by alpha / rank
    dropout: float = 0.0  # share of the adapter's inputs dropped in training
    targets: tuple[str, ...] = ALL_TARGETS  # the layers it adapts, by the last part of their names

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1 or not self.targets:
            raise ValueError(f"rank is at least 1, alpha above 0, dropout from 0 to below 1, some targets: {self}")

    @property
    def scale(self) -> float:
        """The factor of B A: alpha / rank."""
        return self.alpha / self.rank


DEFAULT_LORA = LoRAConfig()


class LoRALinear(nn.Module):
    """A frozen linear layer `base` with adapters beside it: A (rank, in) and B (out, rank) by the adapter's name."""

    def __init__(self, base: nn.Module):
        """`base` has in_features and out_features; its weights may be floats or quantized codes."""
        super().__init__()
        self.base = base
        self.out_features, self.in_features = layer_shape(base)
        self.A, self.B = nn.ParameterDict(), nn.ParameterDict()
        self.settings: dict[str, LoRAConfig] = {}
        self.used: str | None = None
        self.merged: str | None = None
        self.plain: Tensor | None = None  # the base's weight, while an adapter is merged into it

    def add(self, name: str, settings: LoRAConfig, generator: torch.Generator) -> None:
        """Add an adapter: A uniform as in PyTorch's linear layers, B zero; both in the base's type of floats."""
        like = next(tensor for tensor in self.base.state_dict().values() if tensor.is_floating_point())
        A = (2 * torch.rand(settings.rank, self.in_features, generator=generator) - 1) / math.sqrt(self.in_features)
        self.A[name] = nn.Parameter(A.to(like))
        self.B[name] = nn.Parameter(torch.zeros(self.out_features, settings.rank).to(like))
        self.settings[name] = settings

    def delta(self, name: str) -> Tensor:
        """The change of the weight that adapter `name` makes, (out, in)."""
        return self.settings[name].scale * self.B[name] @ self.A[name]

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) -> (…, out)."""
        y = self.base(x)
        if self.used is None or self.merged is not None:
            return y
        settings = self.settings[self.used]
        low_rank = F.linear(F.dropout(x, settings.dropout, self.training), self.A[self.used])  # (…, in) -> (…, rank)
        return y + settings.scale * F.linear(low_rank, self.B[self.used])  # (…, rank) -> (…, out)


# --- On a model --------------------------------------------------------------------------------------------------


def add_adapter(
    model: nn.Module, name: str = "default", settings: LoRAConfig = DEFAULT_LORA, seed: int = 0
) -> nn.Module:
    """Add a new adapter to a model, in place. From then on it alone is in use and trained; all else is frozen.

    ValueError if the name is taken or cannot be one, if no layer has a target's name, or while an adapter is merged.
    """
    if not name or "." in name or hasattr(nn.ParameterDict(), name):  # it becomes an attribute of the layers
        raise ValueError(f"an adapter cannot be called {name!r}: give a name without dots that PyTorch does not use")
    if any(name in layer.settings for layer in adapted_layers(model).values()):
        raise ValueError(f"there is an adapter {name!r} already: give another name")
    check_not_merged(model)
    wanted = target_layers(model, settings)
    if missing := sorted(set(settings.targets) - {place.split(".")[-1] for place in wanted}):
        there = sorted({place.split(".")[-1] for place in _linear(model)})
        raise ValueError(f"no linear layer is called {', '.join(missing)}; this model has {', '.join(there)}")
    generator = torch.Generator().manual_seed(seed)
    for place, layer in wanted.items():
        adapted = layer if isinstance(layer, LoRALinear) else LoRALinear(layer).train(layer.training)
        adapted.add(name, settings, generator)
        _replace(model, place, adapted)
    use_adapter(model, name)
    return model


def adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """The adapted layers, by their names in the model."""
    return {place: layer for place, layer in model.named_modules() if isinstance(layer, LoRALinear)}


def target_layers(model: nn.Module, settings: LoRAConfig) -> dict[str, nn.Module]:
    """The linear layers that an adapter of these settings adapts, by their names in the model."""
    return {place: layer for place, layer in _linear(model).items() if place.split(".")[-1] in settings.targets}


def layer_shape(layer: Any) -> tuple[int, int]:
    """(out, in) of a linear layer of any class: plain, quantized or adapted."""
    return layer.out_features, layer.in_features


def use_adapter(model: nn.Module, name: str | None) -> None:
    """Switch to adapter `name`, or to none; it alone is trained from then on. No weight moves, so this costs nothing.

    ValueError if there is no such adapter, or while one is merged.
    """
    check_not_merged(model)
    if name is not None:
        check_known(model, name)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for layer in adapted_layers(model).values():
        layer.used = name if name in layer.settings else None
        if layer.used is not None:
            layer.A[layer.used].requires_grad_(True)
            layer.B[layer.used].requires_grad_(True)


@torch.no_grad()
def merge_adapter(model: nn.Module, name: str) -> None:
    """Add adapter `name` into the frozen weights: the same outputs, as fast as the plain model.

    The plain weights are kept aside until `unmerge_adapter`. ValueError for a quantized base: its codes cannot hold the
    sum.
    """
    check_not_merged(model)
    check_known(model, name)
    for place, layer in adapted_layers(model).items():
        if name in layer.settings and not isinstance(layer.base, nn.Linear):
            raise ValueError(f"{place} is quantized: merge into the float32 model, and quantize the result")
    for layer in adapted_layers(model).values():
        if name in layer.settings:
            weight = layer.base.get_parameter("weight")
            layer.plain = weight.clone()  # subtracting the change again would round
            weight.add_(layer.delta(name))
        layer.merged = name


@torch.no_grad()
def unmerge_adapter(model: nn.Module) -> None:
    """Take the merged adapter out of the weights again, to the last bit, and switch to it.

    ValueError if none is merged.
    """
    name = _merged(model)
    if name is None:
        raise ValueError("no adapter is merged into the weights: merge_adapter(model, name) puts one there")
    for layer in adapted_layers(model).values():
        if layer.plain is not None:
            layer.base.get_parameter("weight").copy_(layer.plain)
        layer.merged = layer.plain = None
    use_adapter(model, name)


def merge_and_unload(model: nn.Module, name: str) -> nn.Module:
    """Merge adapter `name` for good: the layers are plain and frozen, to be saved or quantized; no adapter is left."""
    merge_adapter(model, name)
    for place, layer in adapted_layers(model).items():
        _replace(model, place, layer.base)
    return model


def trained_parameters(model: nn.Module) -> int:
    """The number of parameters that are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def adapter_parameters(model: nn.Module, settings: LoRAConfig = DEFAULT_LORA) -> int:
    """The number of parameters of an adapter, by the formula: rank times (in + out), summed over the target layers."""
    return sum(settings.rank * sum(layer_shape(layer)) for layer in target_layers(model, settings).values())


def base_fingerprint(model: nn.Module) -> str:
    """The sha256 of the frozen weights and their names, the same with adapters and without."""
    digest = hashlib.sha256()
    for place, tensor in sorted(_frozen(model)):
        digest.update(f"{place} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_known(model: nn.Module, name: str) -> None:
    """ValueError if the model has no adapter of this name."""
    known = sorted({each for layer in adapted_layers(model).values() for each in layer.settings})
    if name not in known:
        raise ValueError(f"there is no adapter {name!r} on this model; it has {', '.join(known) or 'none'}")


def check_not_merged(model: nn.Module) -> None:
    """ValueError while an adapter is merged into the weights."""
    if (merged := _merged(model)) is not None:
        raise ValueError(f"the adapter {merged!r} is merged into the weights: unmerge_adapter(model) first")


# --- Inside ------------------------------------------------------------------------------------------------------


def _replace(model: nn.Module, place: str, layer: nn.Module) -> None:
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)


def _merged(model: nn.Module) -> str | None:
    """The adapter that is merged into the weights, or None. Merging marks all layers."""
    return next((layer.merged for layer in adapted_layers(model).values()), None)


def _linear(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers, adapted or not, by name, without those inside an adapted layer."""
    adapted = tuple(f"{place}." for place in adapted_layers(model))
    return {
        place: layer
        for place, layer in model.named_modules()
        if hasattr(layer, "in_features") and not place.startswith(adapted)
    }


def _frozen(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the model without its adapters."""
    adapted = tuple(adapted_layers(model))
    for name, tensor in model.state_dict().items():
        place = next((place for place in adapted if name.startswith(f"{place}.")), None)
        if place is None:
            yield name, tensor
        elif name.startswith(f"{place}.base."):
            yield f"{place}.{name.removeprefix(f'{place}.base.')}", tensor
