"""A GPU where there is none: its tensors are computed on the CPU, and whoever asks is told that they lie on `cuda:0`.

- What CUDA refuses is refused: an operation on tensors of both devices, unless the one of the CPU is a number for an elementwise operation, or an
  index.
- What makes the host wait is noted where a test asks for it (`PretendedGpu.waits`): values that are read, copies to and fro, indices of booleans.
- Nothing else is CUDA's: not its kernels, their memory, their order of sums or their types.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
_COPIES = ("aten::copy_", "aten::_to_copy")
_INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index")
_READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")
_SHAPED_BY_VALUES = ("aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::repeat_interleave")


class OnGpu(Tensor):
    """A tensor of the pretended GPU. To the parts of torch that are not in Python it lies on `meta`, the one other device that every build has."""

    held: Tensor
    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        place: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype, "device": "meta"}
        made: OnGpu = torch.Tensor._make_wrapper_subclass(cls, held.size(), **place)
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec)


class PretendedGpu(TorchDispatchMode):
    """While it is entered, what is asked for on the GPU is made there.

    Attributes:
        waits: None, or a list that takes what the host would wait for.
    """

    waits: list[str] | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.waits is not None:
            self.waits += _waits(func, args, kwargs)
        return _computed(func, args, kwargs)


def to_gpu(module: nn.Module) -> nn.Module:
    """`module.to(GPU)`: parameters and buffers, shared ones once, also where a module keeps a list of its parameters."""
    there: dict[int, Any] = {}
    own = {id(value): value for part in module.modules() for value in (*part._parameters.values(), *part._buffers.values()) if value is not None}
    for key, value in own.items():
        there[key] = value if isinstance(value, OnGpu) else OnGpu(value.detach())
        if isinstance(value, nn.Parameter) and value is not there[key]:
            there[key] = nn.Parameter(there[key], requires_grad=value.requires_grad)
            vars(there[key]).update(vars(value))
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            tensors.update({name: None if value is None else there[id(value)] for name, value in tensors.items()})
        for listed in vars(part).values():
            if isinstance(listed, list):
                listed[:] = [there.get(id(entry), entry) for entry in listed]
    return module


@pytest.fixture
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """To be entered when the test has what it wants on the CPU."""
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state())  # asked for by torch.random.fork_rng
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: None)
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor([1], device=...) goes by way of the CPU, as it does on a GPU
    yield PretendedGpu()
    torch._C._set_only_lift_cpu_tensors(before)


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    name, (there, here) = func._schema.name, _tensors(args, kwargs)
    if there and here and name not in _COPIES:
        indices = _indices(name, args) if isinstance(args[0], OnGpu) else []
        number = torch.Tag.pointwise in func.tags or name in _INDEXED
        refused = [tuple(value.shape) for value in here if not (number and value.dim() == 0) and not any(value is index for index in indices)]
        assert not refused, f"{func}: {refused} on the CPU with {[tuple(value.shape) for value in there]} on the GPU"
    found = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if name in _READS or not (isinstance(args[0], OnGpu) if name == "aten::copy_" else _goes_there(kwargs, bool(there))):
        return found
    return return_and_correct_aliasing(func, args, kwargs, tree_map(lambda value: OnGpu(value) if isinstance(value, Tensor) else value, found))


def _waits(func: Any, args: Any, kwargs: Any) -> list[str]:
    name, (there, here) = func._schema.name, _tensors(args, kwargs)
    if not there and not (name == "aten::_to_copy" and _goes_there(kwargs, False)):
        return []
    waits = name in (*_READS, *_SHAPED_BY_VALUES) or (name == "aten::copy_" and bool(here))
    waits = waits or (name == "aten::_to_copy" and bool(there) != _goes_there(kwargs, bool(there)))
    waits = waits or any(index.dtype == torch.bool or not isinstance(index, OnGpu) for index in _indices(name, args))
    return [f"{func} of {[tuple(value.shape) for value in (*there, *here)]}"] if waits else []


def _tensors(args: Any, kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Those on the GPU, and those on the CPU."""
    tensors = [value for value in tree_flatten([args, kwargs])[0] if isinstance(value, Tensor)]
    return [value for value in tensors if isinstance(value, OnGpu)], [value for value in tensors if not isinstance(value, OnGpu)]


def _indices(name: str, args: Any) -> list[Tensor]:
    return [index for index in args[1] if index is not None] if name in _INDEXED else []


def _goes_there(kwargs: Any, otherwise: bool) -> bool:
    """Whether an operation makes its tensors on the GPU."""
    return otherwise if kwargs.get("device") is None else torch.device(kwargs["device"]).type != "cpu"


def _held(value: Any) -> Any:
    if isinstance(value, OnGpu):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) else value
