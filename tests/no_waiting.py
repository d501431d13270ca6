"""Refuses, on any device, what makes the host wait for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_READS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero, torch.ops.aten.masked_select)
_WRITES = (torch.ops.aten.lift_fresh,)
_INDEXED = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_, torch.ops.aten._unsafe_index)


class NoWaiting(TorchDispatchMode):
    """Refuses what would read a value back from a device (an index of booleans asks how many there are), or copy one to it from the host: neither is
    allowed in a captured CUDA graph."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = func.overloadpacket
        assert operation not in (*_READS, *_WRITES), func
        assert operation not in _INDEXED or not any(isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]), func
        return func(*args, **(kwargs or {}))
