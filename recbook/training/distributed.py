"""The device of a training, the number format of its matrix products, and the processes that share the work."""

import atexit
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


def available_device(device: torch.device | str | None = None) -> torch.device:
    """The device asked for, or by default what is there: this process's own CUDA GPU, else the CPU.

    ValueError if CUDA is asked for and PyTorch finds none.
    """
    cuda = torch.cuda.is_available()
    if device is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    device = torch.device(device)
    if device.type == "cuda" and not cuda:
        raise ValueError(f"device={str(device)!r}: PyTorch finds no CUDA GPU here; give 'cpu', or leave `device` out")
    return device


def has_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has instructions for bfloat16: newer GPUs; CPUs with AVX512-BF16 or AMX, on Linux."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # older ones emulate it, and are slower for it
    try:
        return kind == "cpu" and bool({"avx512_bf16", "amx_bf16"} & set(Path("/proc/cpuinfo").read_text().split()))
    except OSError:
        return False


def join_processes(device: torch.device | str = "cpu") -> tuple[int, int]:
    """The rank of this process and the number of all: (0, 1), unless `torchrun` started several."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
        atexit.register(dist.destroy_process_group)
    return (dist.get_rank(), processes) if processes > 1 else (0, 1)


def all_reduce_gradients(parameters: list[nn.Parameter], total: Tensor) -> None:
    """Replace the parameters' gradients, and `total`, by their sums over all processes, in one message."""
    gradients: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:  # no target of this process counted
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    flat = torch.cat([gradient.flatten() for gradient in gradients] + [total.reshape(1)])
    dist.all_reduce(flat)
    *sums, whole = flat.split([gradient.numel() for gradient in gradients] + [1])
    for gradient, summed in zip(gradients, sums, strict=True):
        gradient.copy_(summed.view_as(gradient))  # (numbers,) -> the parameter's shape
    total.copy_(whole[0])


def broadcast_weights(model: nn.Module) -> None:
    """Copy the weights of the first process to the models of all others."""
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)
