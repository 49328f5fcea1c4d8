"""Adapters on disk, without their base, in the format of `peft`: either library reads the files of the other.

A folder of ours also has a manifest with checksums, and its weights the fingerprint of the base that the adapter was
trained on. On another base an adapter would run and give wrong outputs without an error, so a wrong base is refused.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from recbook import storage
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
from recbook.training.checkpoints import write_tensors

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"  # peft's names
ADAPTER_KIND = "adapter"  # in the manifest


def save_adapter(model: nn.Module, name: str, folder: str | Path) -> Path:
    """Keep one adapter alone in a folder, as `peft` does, with its base's fingerprint. Returns the path of the weights.

    The folder is there whole or not at all. ValueError if it holds anything but an adapter of ours.
    """
    check_not_merged(model)
    check_known(model, name)
    tensors = {}
    for place, layer in adapted_layers(model).items():
        if name in layer.settings:
            settings = layer.settings[name]
            tensors[_key(place, "A")] = layer.A[name].detach().cpu()
            tensors[_key(place, "B")] = layer.B[name].detach().cpu()
    description = {
        "peft_type": "LORA",
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
    }
    description |= {"target_modules": list(settings.targets), "bias": "none", "fan_in_fan_out": False}

    def write(fresh: Path) -> None:
        write_tensors(tensors, fresh / ADAPTER_WEIGHTS, {"base": base_fingerprint(model)})
        (fresh / ADAPTER_CONFIG).write_text(json.dumps(description, indent=2), encoding="utf-8")

    return storage.save_folder(folder, ADAPTER_KIND, write) / ADAPTER_WEIGHTS


def load_adapter(model: nn.Module, folder: str | Path, name: str = "default", any_base: bool = False) -> nn.Module:
    """Add a saved adapter, ours or one of `peft`, to a model under `name`, in place, and switch to it.

    ValueError if it belongs to another base, or does not say to which (files of `peft` do not), unless `any_base`; if
    its shapes do not fit, if it is damaged, or of a kind that is not supported; a FileNotFoundError too if there is
    none.
    """
    folder = Path(folder)
    check_not_merged(model)  # merged weights would look like another base
    with storage.readable(folder, "an adapter that is known here", "save one there with save_adapter, or with peft"):
        settings, tensors, base = _ours_or_of_peft(folder)
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


Adapter = tuple[LoRAConfig, dict[str, Tensor], str | None]  # settings, weights, the base's fingerprint


def _ours_or_of_peft(folder: Path) -> Adapter:
    """An adapter on disk; Damaged if it is ours and not as it was written, or if there is none."""
    try:
        return storage.load_folder(folder, lambda place, _: _read(place), ADAPTER_KIND)
    except storage.Missing as error:
        adapter = _read(folder)
        if adapter[2] is not None:  # peft knows no such thing
            raise storage.Damaged("it is one of ours, and its manifest is missing") from error
        return adapter


def _read(folder: Path) -> Adapter:
    config = storage.read_json(folder / ADAPTER_CONFIG)
    changed = [key for key, value in PLAIN_PEFT.items() if config.get(key, value) not in (value, None)]
    other = [f"{key}={config[key]!r}" for key in changed]
    if str(config.get("init_lora_weights")).startswith(CHANGED_BASES):
        other.append(f"init_lora_weights={config['init_lora_weights']!r}")
    if other:
        raise ValueError(f"only plain LoRA can be loaded, and it has {', '.join(other)}")
    storage.check_file(folder / ADAPTER_WEIGHTS)
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        base = (file.metadata() or {}).get("base")
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    targets = sorted({key.split(".")[-3] for key in tensors})  # peft's target_modules may be a pattern
    return LoRAConfig(config["r"], config["lora_alpha"], config["lora_dropout"], tuple(targets)), tensors, base


def _key(place: str, letter: str) -> str:
    """The name in peft's files of one matrix of the layer at `place`."""
    return f"base_model.model.{place}.lora_{letter}.weight"
