"""Training FLOPs, counted on the real step.

torch's counter sees every matrix product and convolution but not the fused attention kernel of the CPU (an MAE-base image: 56.3 instead of 58.7
GFLOP), so the counted pass runs attention in its unfused form, which is two ordinary products; nor oneDNN's products (`headstart.core.products`),
whose formula stands here. A multiply-add is two operations; embedding look-ups, norms and activations are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from headstart.core import products


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products and convolutions that `work` runs, its backward pass included when it runs one."""
    more: dict[Any, Any] = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if products.has_onednn() else {}
    with FlopCounterMode(display=False, custom_mapping=more) as counter, sdpa_kernel(SDPBackend.MATH):
        _running.append(counted := _Counted(counter))
        try:
            work()
        finally:
            _running.remove(counted)
    return counter.get_total_flops() - counted.left_out


@contextmanager
def uncounted() -> Iterator[None]:
    """Leaves a forward pass out of the counts: what only several processes need, so that a run costs the same on one."""
    before = [counted.counter.get_total_flops() for counted in _running]
    _leaving_out.append(None)
    try:
        yield
    finally:
        _leaving_out.pop()
    for counted, flops in zip(_running, before, strict=True):
        counted.left_out += counted.counter.get_total_flops() - flops


def is_uncounted() -> bool:
    """Whether what runs now is within `uncounted`; for those who count something of their own."""
    return bool(_leaving_out)


@dataclass(eq=False)
class _Counted:
    counter: FlopCounterMode
    left_out: int = 0


_running: list[_Counted] = []
_leaving_out: list[None] = []


def _linear_flops(x: Sequence[int], weight: Sequence[int], *others: Any, **settings: Any) -> int:
    """Of x weight^T, from the shapes [rows, in] and [out, in]."""
    return 2 * x[0] * x[1] * weight[0]
