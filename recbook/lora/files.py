"""Adapters on disk, without their base, in the format of `peft`: either library reads the files of the other.

A file of ours also holds the fingerprint of the base that the adapter was trained on. On another base an adapter would
run and give wrong outputs without an error, so a wrong base is refused.
"""

import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from recbook.lora.layers import (
    LoRAConfig,
    adapted_layers,
    add_adapter,
    base_fingerprint,
    check_known,
    check_not_merged,
    layer_shape,
    target_layers,
)
from recbook.storage import whole_file

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names


def save_adapter(model: nn.Module, name: str, folder: str | Path) -> Path:
    """Save one adapter alone, as `peft` does, with the fingerprint of its base. Returns the path of the weights.

    It writes two files. Neither appears before both are written, and the weights come last: a folder with weights is
    complete.
    """
    check_not_merged(model)
    check_known(model, name)
    tensors, folder = {}, Path(folder)
    for place, layer in adapted_layers(model).items():
        if name in layer.settings:
            settings = layer.settings[name]
            tensors[_key(place, "A")] = layer.A[name].detach().cpu().contiguous()
            tensors[_key(place, "B")] = layer.B[name].detach().cpu().contiguous()
    description = {
        "peft_type": "LORA",
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
    }
    description |= {"target_modules": list(settings.targets), "bias": "none", "fan_in_fan_out": False}
    content = safetensors.torch.save(tensors, {"base": base_fingerprint(model)})
    # Both files appear when both are written.
    with whole_file(folder / ADAPTER_WEIGHTS) as weights, whole_file(folder / ADAPTER_CONFIG) as config:
        weights.write(content)
        config.write(json.dumps(description, indent=2).encode())
    return folder / ADAPTER_WEIGHTS


def load_adapter(model: nn.Module, folder: str | Path, name: str = "default", any_base: bool = False) -> nn.Module:
    """Add a saved adapter, ours or one of `peft`, to a model under `name`, in place, and switch to it.

    ValueError if it belongs to another base, or does not say to which (files of `peft` do not), unless `any_base`; if
    its shapes do not fit, if it is damaged, or of a kind that is not supported. FileNotFoundError if there is none.
    """
    folder = Path(folder)
    check_not_merged(model)  # merged weights would look like another base
    settings, tensors, base = _read(folder)
    if not any_base and base != base_fingerprint(model):
        whose = "does not say which base it belongs to" if base is None else "belongs to another base"
        raise ValueError(
            f"the adapter in {folder} {whose}: load it where it was trained, or with any_base=True if you know better"
        )
    expected: dict[str, tuple[int, ...]] = {}
    for place, layer in target_layers(model, settings).items():
        outputs, inputs = layer_shape(layer)
        expected[_key(place, "A")] = (settings.rank, inputs)
        expected[_key(place, "B")] = (outputs, settings.rank)
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            shapes = f"{found.get(key, 'not there')} in the file, {expected.get(key, 'not there')} in the model"
            raise ValueError(f"the adapter in {folder} does not fit this model: {key} is {shapes}")
    add_adapter(model, name, settings)
    with torch.no_grad():
        for place, layer in adapted_layers(model).items():
            if name in layer.settings:
                layer.A[name].copy_(tensors[_key(place, "A")])
                layer.B[name].copy_(tensors[_key(place, "B")])
    return model


PLAIN_PEFT = dict(  # the entries of peft's configuration that make it plain LoRA, the kind that is supported here
    peft_type="LORA", bias="none", fan_in_fan_out=False, use_dora=False, use_rslora=False, modules_to_save=None,
    layers_to_transform=None, rank_pattern={}, alpha_pattern={}, lora_bias=False, alora_invocation_tokens=None,
    use_qalora=False, layer_replication=None,
)  # fmt: skip
CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initializations that also change the base's weights


def _read(folder: Path) -> tuple[LoRAConfig, dict[str, Tensor], str | None]:
    """Settings, weights and the base's fingerprint of an adapter on disk."""
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"there is no {name} in {folder}: save one there with save_adapter, or with peft")
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        changed = [key for key, value in PLAIN_PEFT.items() if config.get(key, value) not in (value, None)]
        other = [f"{key}={config[key]!r}" for key in changed]
        if str(config.get("init_lora_weights")).startswith(CHANGED_BASES):
            other.append(f"init_lora_weights={config['init_lora_weights']!r}")
        if other:
            raise ValueError(f"only plain LoRA can be loaded, and it has {', '.join(other)}")
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            base = (file.metadata() or {}).get("base")
        tensors = load_file(folder / ADAPTER_WEIGHTS)
        targets = sorted({key.split(".")[-3] for key in tensors})  # peft's target_modules may be a pattern
        return LoRAConfig(config["r"], config["lora_alpha"], config["lora_dropout"], tuple(targets)), tensors, base
    except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder} is damaged, or holds no adapter that is known here ({error})") from error


def _key(place: str, letter: str) -> str:
    """The name in peft's files of one matrix of the layer at `place`."""
    return f"base_model.model.{place}.lora_{letter}.weight"
