"""Training FLOPs, counted on the real step.

torch's counter sees every matrix product and convolution but not the fused attention kernel of the CPU (an MAE-base image: 56.3 instead of 58.7 GFLOP), so the counted
pass runs attention in its unfused form, which is two ordinary products. A multiply-add is two operations; embedding look-ups, norms and activations are free.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products and convolutions that `work` runs, its backward pass included when it runs one."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.15) -> float:
    """FLOP/s of a large square matrix product on this device: the yardstick of model FLOPs utilisation (MFU)."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    best = 0.0
    deadline = time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < deadline:
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best
