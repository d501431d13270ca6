"""Training FLOPs, counted on the real step.

torch's counter sees every matrix product and convolution but not the fused attention kernel of the CPU (an MAE-base image: 56.3 instead of 58.7
GFLOP), so the counted
pass runs attention in its unfused form, which is two ordinary products. A multiply-add is two operations; embedding look-ups, norms and
activations are free.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products and convolutions that `work` runs, its backward pass included when it runs one."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()
