"""Checkpoints: all that a run needs to resume to the identical weights, and models on disk, without pickle.

A checkpoint is a kept folder `step-0000100` (see `recbook.storage`) with two safetensors files, the model and its
optimizers; the settings and the metrics stand in its manifest. After a kill at any moment each is there whole or not at
all. Checksums find what was damaged later.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recbook import storage
from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.quantization.layers import prepare_quantized, quantized_schemes

CHECKPOINTS_KEPT = 2  # checkpoints a run keeps: the newest, and one to fall back on
MODEL, OPTIMIZERS = "model.safetensors", "optimizers.safetensors"
GPT_KIND, CHECKPOINT_KIND = "GPT", "checkpoint"  # in the manifests


class RunState(NamedTuple):
    """How far a run has come."""

    step: int  # steps done
    metrics: list[dict]  # up to there


class NotFinite(ValueError):
    """A tensor to be saved holds an infinite number or NaN."""


# --- A run's checkpoints -----------------------------------------------------------------------------------------


def save_checkpoint(
    folder: str | Path,
    reached: RunState,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write the checkpoint of a step, whole or not at all, remove all but the last two, and return its folder.

    NotFinite if a weight or an optimizer's state is not finite: such a checkpoint would only carry the damage on.
    """
    states = _flat(optimizers)
    _check_finite(model.state_dict() | states, reached.step)

    def write(fresh: Path) -> None:
        _write_model(model, fresh / MODEL)
        write_tensors(states, fresh / OPTIMIZERS)

    state = {"settings": settings or {}, **reached._asdict()}
    place = storage.save_folder(Path(folder) / f"step-{reached.step:07d}", CHECKPOINT_KIND, write, state)
    storage.sweep(Path(folder))  # what a killed run had begun
    for old in list_checkpoints(folder)[:-CHECKPOINTS_KEPT]:
        storage.remove(old)
    return place


def resume_checkpoint(
    folder: str | Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    settings: dict[str, Any] | None = None,
) -> RunState:
    """Bring model and optimizers to the newest whole checkpoint, and say how far that is: (0, []) where there is none.

    A damaged checkpoint is named (printed) and removed, and the one before it taken. ValueError if the checkpoint is
    of a run with other settings, which it names, or of another model.
    """
    device = str(next(model.parameters()).device)

    def read(path: Path, state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
        return state, load_file(path / MODEL, device), load_file(path / OPTIMIZERS, device)

    for path in reversed(list_checkpoints(folder)):
        try:
            state, weights, states = storage.load_folder(path, read, CHECKPOINT_KIND)
        except storage.Damaged as error:
            print(f"checkpoint {path} is damaged ({error}); going on from the one before it")
            storage.remove(path)  # or the run would stop at it: nothing unknown is overwritten
            continue
        _check_settings(path, state["settings"], settings or {})
        _load_weights(model, weights, path)
        _restore(optimizers, states)
        return RunState(state["step"], state["metrics"])
    return RunState(0, [])


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step-*") if path.is_dir())


def _check_settings(path: Path, theirs: dict, ours: dict) -> None:
    theirs, ours = (json.loads(json.dumps(each)) for each in (theirs, ours))  # both as JSON has them
    changed = [name for name in sorted(theirs.keys() | ours.keys()) if theirs.get(name) != ours.get(name)]
    if changed:
        pairs = ", ".join(f"{name} {theirs.get(name)}, now {ours.get(name)}" for name in changed)
        raise ValueError(f"{path} is of a run with other settings ({pairs}): use another folder, or those settings")


def _check_finite(tensors: dict[str, Tensor], step: int) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise NotFinite(f"{name} is not finite after step {step}, so no checkpoint was written")


def _flat(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimizers' states, all tensors, as `optimizer.parameter.name`; the rest follows from the settings."""
    return {
        f"{index}.{parameter}.{name}": value.contiguous()
        for index, optimizer in enumerate(optimizers)
        for parameter, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore(optimizers: Sequence[torch.optim.Optimizer], flat: dict[str, Tensor]) -> None:
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in flat.items():
        index, parameter, name = key.split(".", 2)
        states[int(index)].setdefault(int(parameter), {})[name] = value.clone()  # let go of the file
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


# --- A model alone -----------------------------------------------------------------------------------------------


def save_gpt(model: GPT, folder: str | Path) -> Path:
    """Keep a model in a folder of its own, as `model.safetensors`, whole or not at all; returns that file's path.

    The file's header holds the configuration as JSON, and the schemes of quantized layers. ValueError if the folder
    holds anything else.
    """
    return storage.save_folder(folder, GPT_KIND, lambda fresh: _write_model(model, fresh / MODEL)) / MODEL


def load_gpt(folder: str | Path) -> GPT:
    """The GPT that `save_gpt` wrote in a folder, or that a checkpoint's folder holds, in evaluation mode, on the CPU.

    A quantized one comes back as it was, without ever taking the memory of its float weights. ValueError if the folder
    is damaged, or holds no GPT of the shape that it names; it is a FileNotFoundError too if there is none.
    """
    with storage.readable(folder, "a GPT of recbook", "save one there with recbook.training.checkpoints.save_gpt"):
        return storage.load_folder(folder, lambda place, _: _read_gpt(place / MODEL), GPT_KIND, CHECKPOINT_KIND)


def _read_gpt(path: Path) -> GPT:
    with safe_open(path, framework="pt") as file:
        about, tensors = file.metadata() or {}, len(file.keys())
    config = GPTConfig(**json.loads(about["config"]))
    if config.layers > tensors:  # before hours go into layers without weights
        raise ValueError(f"{path} names {config.layers} layers, and holds {tensors} tensors")
    with torch.device("meta"), _Undrawn():  # shapes alone
        model = GPT(config)
    prepare_quantized(model, json.loads(about.get("quantized", "{}")))
    _load_weights(model, load_file(path), path, assign=True)
    return model.eval()


class _Undrawn(TorchFunctionMode):
    """Draws no weights: for a model without memory, that would import PyTorch's compiler, and take a second or more."""

    def __torch_function__(
        self, function: Callable, _types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function.__name__ == "normal_":
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


def _write_model(model: nn.Module, path: Path) -> None:
    config, schemes = getattr(model, "config", None), quantized_schemes(model)
    about = {"config": json.dumps(asdict(config))} if isinstance(config, GPTConfig) else {}
    about |= {"quantized": json.dumps(schemes)} if schemes else {}
    write_tensors(model.state_dict(), path, about)


def write_tensors(tensors: dict[str, Tensor], path: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors as safetensors, with texts about them in the header. OSError if the disk is full, for one."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about or None)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written ({error})") from error


def _load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path, assign: bool = False) -> None:
    """Fill a model; with `assign` the tensors themselves become its weights, copied out of the file."""
    ours, theirs = ({name: _kind(tensor) for name, tensor in each.items()} for each in (model.state_dict(), weights))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            shapes = f"{theirs.get(name, 'not there')} in the file, {ours.get(name, 'not there')} in the model"
            raise ValueError(f"{path} is of another model: {name} is {shapes}. Build the model that was saved.")
    if assign:
        weights = {name: tensor.clone() for name, tensor in weights.items()}  # let go of the file
    model.load_state_dict(weights, assign=assign)


def _kind(tensor: Tensor) -> str:
    """A tensor's shape, and its type where only that one will do: for codes."""
    return f"{tuple(tensor.shape)}" + ("" if tensor.is_floating_point() else f" {tensor.dtype}")
