"""Holding weights at zero through an update: gradients before clipping, weights and moments after the optimiser's step.

The order is that of modelzoo/common/pytorch/optim/sparse/base.py at release 1.8. Everything is a selection, never a product: NaN times 0 is NaN.
Tensors that FSDP2 cut are masked part by part.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from headstart.engine.distributed import local

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""By the bytes of a floating point number."""


def clear(numbers: Tensor, mask: Tensor) -> None:
    """Zeros where `mask` is true, in place, by their bits: a selection, as `masked_fill_` is, in a tenth of its time on a CPU: a random mask
    is a branch that it cannot foresee."""
    bits = INTEGERS[numbers.element_size()]
    numbers.view(bits).bitwise_and_(mask.to(bits).sub_(1))


@torch.no_grad()
def hold_gradients(parameters: Sequence[Tensor], pruned: Sequence[Tensor]) -> None:
    """Zeros in the gradients where `pruned` (bool, as the parameter) is true: the clip norm does not see them."""
    for parameter, mask in zip(parameters, pruned, strict=True):
        if parameter.grad is not None:
            clear(local(parameter.grad), local(mask))


@torch.no_grad()
def hold_weights(parameters: Sequence[Tensor], pruned: Sequence[Tensor]) -> None:
    """Zeros in the weights, whatever stood there."""
    for parameter, mask in zip(parameters, pruned, strict=True):
        clear(local(parameter), local(mask))


@torch.no_grad()
def hold_moments(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], pruned: Sequence[Tensor]) -> None:
    """Zeros in every state of the optimiser that is as large as its parameter."""
    for parameter, mask in zip(parameters, pruned, strict=True):
        for moment in optimizer.state[parameter].values() if parameter in optimizer.state else ():
            if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                clear(local(moment), local(mask))
