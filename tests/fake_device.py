"""A device that is not there: tensors that say they are elsewhere, and refuse to meet those of the CPU, as on a GPU.

The tensors are PyTorch's "meta" tensors to whoever looks at them; behind each stands one on the CPU that computes.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ELSEWHERE = torch.device("meta")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)  # what may have tensors of both devices


class Elsewhere(torch.Tensor):
    """A tensor that is on the fake device."""

    held: torch.Tensor  # on the CPU

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=ELSEWHERE
        )

    def __init__(self, held: torch.Tensor):
        self.held = held

    def tolist(self) -> list:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, _types, args=(), kwargs=None):
        raise RuntimeError(f"{operation} outside of the fake device's mode")


class FakeDevice(TorchDispatchMode):
    """While it is on, tensors can be made on ELSEWHERE and moved there; RuntimeError where they meet the CPU's.

    As on a GPU, a number without dimensions may be anywhere, and CPU indices may pick from a tensor elsewhere.
    """

    def __torch_dispatch__(self, operation, _types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode, operations that consist of others come here whole
            if (result := operation.decompose(*args, **kwargs)) is not NotImplemented:
                return result
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
        picks = operation is torch.ops.aten.index.Tensor and isinstance(args[0], Elsewhere)
        here = [tensor for tensor in tensors if tensor.ndim and not isinstance(tensor, Elsewhere)]
        if there and here and not picks and operation not in MOVES:
            raise RuntimeError(f"{operation}: expected all tensors to be on the same device")
        asked = kwargs.get("device")
        if asked is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        held_args, held_kwargs = tree_map(_held, (args, kwargs))
        result = operation(*held_args, **held_kwargs)
        if asked is not None and asked != ELSEWHERE or asked is None and not there:
            return result
        owners = {id(tensor.held): tensor for tensor in there}  # what is changed in place stays the same tensor
        return tree_map(lambda made: owners.get(id(made), _there(made)), result)


def _held(value):
    return value.held if isinstance(value, Elsewhere) else value


def _there(value):
    with torch.inference_mode(False):  # a view of what was made before that mode is no tensor of it
        return Elsewhere(value) if isinstance(value, torch.Tensor) else value
