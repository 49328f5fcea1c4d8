"""Checkpoints: all that a run needs to resume to the identical weights, and models on disk, without pickle.

A checkpoint is a folder `step-0000100` with two safetensors files, the model and its optimizers, and a JSON file with
the settings, the metrics and the checksums of the other two. It is written beside its place, forced to the disk and
renamed, so after a kill at any moment each is there whole or not at all. Checksums find what was damaged later.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from recbook.gpt.config import GPTConfig
from recbook.gpt.model import GPT
from recbook.quantization.layers import prepare_quantized, quantized_schemes
from recbook.storage import force_to_disk, sha256_of, whole_path

CHECKPOINTS_KEPT = 2  # checkpoints a run keeps: the newest, and one to fall back on
MODEL, OPTIMIZERS, STATE = "model.safetensors", "optimizers.safetensors", "state.json"


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
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"step-{reached.step:07d}"
    states = _flat(optimizers)
    _check_finite(model.state_dict() | states, reached.step)
    beside = Path(tempfile.mkdtemp(dir=folder, prefix=f".{place.name}-"))
    _write_model(model, beside / MODEL)
    save_file(states, beside / OPTIMIZERS)
    state = {"step": reached.step, "settings": settings or {}, "metrics": reached.metrics}
    state["sha256"] = {name: sha256_of(beside / name) for name in (MODEL, OPTIMIZERS)}
    (beside / STATE).write_text(json.dumps(state), encoding="utf-8")
    for path in (*beside.iterdir(), beside):
        force_to_disk(path)
    if place.exists():
        _forget(place)
    beside.rename(place)
    force_to_disk(folder)
    for old in list_checkpoints(folder)[:-CHECKPOINTS_KEPT]:
        _forget(old)
    return place


def resume_checkpoint(
    folder: str | Path,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    settings: dict[str, Any] | None = None,
) -> RunState:
    """Bring model and optimizers to the newest whole checkpoint, and say how far that is: (0, []) where there is none.

    A damaged checkpoint is named (printed), and the one before it taken. ValueError if the checkpoint is of a run with
    other settings, which it names, or of another model.
    """
    for path in reversed(list_checkpoints(folder)):
        try:
            state, weights, states = _read(path, next(model.parameters()).device)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            print(f"checkpoint {path} is damaged ({error}); going on from the one before it")
            continue
        _check_settings(path, state["settings"], settings or {})
        _load_weights(model, weights, path)
        _restore(optimizers, states)
        return RunState(state["step"], state["metrics"])
    return RunState(0, [])


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in a run's folder, oldest first."""
    return sorted(path for path in Path(folder).glob("step-*") if path.is_dir())


def remove_partial_checkpoints(folder: str | Path) -> None:
    """Remove the checkpoints that a killed process left half-written. Only while no other process writes there."""
    for half in Path(folder).glob(".step-*"):
        shutil.rmtree(half, ignore_errors=True)


def _read(path: Path, device: torch.device) -> tuple[dict, dict[str, Tensor], dict[str, Tensor]]:
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    for name, digest in state["sha256"].items():
        if sha256_of(path / name) != digest:
            raise ValueError(f"{name} does not have the checksum that {STATE} states")
    return state, load_file(path / MODEL, str(device)), load_file(path / OPTIMIZERS, str(device))


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


def _forget(path: Path) -> None:
    """Remove a checkpoint, so that a kill meanwhile leaves no half of it under its name."""
    gone = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    shutil.rmtree(path.rename(gone / path.name).parent)


# --- A model alone -----------------------------------------------------------------------------------------------


def save_gpt(model: GPT, folder: str | Path) -> Path:
    """Write a model as `model.safetensors`: its weights, and its configuration as JSON in the file's header.

    The header also holds the schemes of quantized layers. One file, so that these always belong together; it is there
    whole or not at all. Returns its path.
    """
    path = Path(folder) / MODEL
    with whole_path(path) as beside:
        _write_model(model, beside)
    return path


def load_gpt(folder: str | Path) -> GPT:
    """The GPT that `save_gpt` wrote in a folder, or that a checkpoint's folder holds, in evaluation mode, on the CPU.

    A quantized one comes back as it was, without ever taking the memory of its float weights. FileNotFoundError if
    there is none; ValueError if the file is damaged, or holds no GPT of the shape that it names.
    """
    path = Path(folder) / MODEL
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no model in {folder}: save one there with recbook.training.checkpoints.save_gpt"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
        with torch.device("meta"), _Undrawn():  # shapes alone
            model = GPT(GPTConfig(**json.loads(about["config"])))
        prepare_quantized(model, json.loads(about.get("quantized", "{}")))
        weights = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or holds no GPT of recbook ({error}): save it again") from error
    _load_weights(model, weights, path, assign=True)
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
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path, about or None)


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
