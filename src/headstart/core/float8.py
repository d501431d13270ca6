"""Products of dense layers in 8-bit floating point, for GPUs whose tensor cores multiply them (compute capability 8.9: Ada, Hopper, Blackwell).

The recipe is that of "FP8 Formats for Deep Learning" (Micikevicius et al. 2022, section 3) with scales of the moment: activations and weights are
rounded to e4m3, gradients of outputs to e5m2, each tensor by one scale that puts its largest magnitude at the format's largest number. Sums are kept
in fp32, results in bf16, gradients of weights in the precision of the weights. Parameters, their names and the optimiser are as they were.

On a CPU the same products are computed, exactly and slowly: there one can look at the loss, which is what the tests and `benchmarks/float8.py` do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""The kernels want inner and outer sizes of whole 16-byte lines."""
CAPABILITY = (8, 9)


def scaled(x: Tensor, format: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x / scale rounded to `format`, scale): the scale, a scalar of fp32, puts the largest magnitude of x at the format's largest number.

    A tensor of zeros stays zeros; one that holds an infinity or NaN gives NaN, which the run's guard then finds.
    """
    largest = torch.finfo(format).max
    scale = (x.abs().amax().float() / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return (x.float() / scale).clamp(-largest, largest).to(format), scale


def product(a: Tensor, b: Tensor, scale_a: Tensor, scale_b: Tensor, dtype: torch.dtype, fast: bool = False) -> Tensor:
    """scale_a a [m, k] times scale_b b^T [k, n] of b [n, k], both contiguous 8-bit -> [m, n] in `dtype`.

    Args:
        fast: sums with fewer bits between, on Hopper; for results that are rounded to bf16 at once.
    """
    return torch._scaled_mm(a, b.t(), scale_a=scale_a, scale_b=scale_b, out_dtype=dtype, use_fast_accum=fast and a.is_cuda)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` with 8-bit products under bf16 autocast; without autocast, and for sizes that the kernels do not take, as it is.

    Args:
        x: [..., in]; weight: [out, in], also as the transpose of a matrix [in, out]; bias: [out].

    Returns:
        [..., out] in bf16.
    """
    if not torch.is_autocast_enabled(x.device.type) or not fits(weight):
        return F.linear(x, weight, bias)
    y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight)
    y = y.view(*x.shape[:-1], weight.shape[0])
    return y if bias is None else y + bias.to(y.dtype)


def fits(weight: Tensor) -> bool:
    """Whether the kernels take a weight of this shape."""
    return all(size % MULTIPLE == 0 for size in weight.shape)


def supported(device: torch.device) -> bool:
    """Whether this device multiplies 8-bit numbers; a CPU computes the same slowly."""
    return device.type == "cpu" or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    """y = x W^T: three products, each of two 8-bit matrices. The kernels want both contiguous along what is summed, hence the transposed copies (of
    bytes, so half of what a copy in bf16 would be)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        (x8, x_scale), (w8, w_scale) = scaled(x, E4M3), scaled(weight, E4M3)
        ctx.save_for_backward(x8, x_scale, w8, w_scale)
        ctx.dtypes = x.dtype, weight.dtype
        return product(x8.contiguous(), w8.contiguous(), x_scale, w_scale, torch.bfloat16, fast=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x8, x_scale, w8, w_scale = ctx.saved_tensors
        of_x, of_weight = ctx.dtypes
        g8, g_scale = scaled(gradients[0], E5M2)
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = product(g8.contiguous(), w8.t().contiguous(), g_scale, w_scale, torch.bfloat16).to(of_x)
        if ctx.needs_input_grad[1]:
            grad_weight = product(_columns(g8), _columns(x8), g_scale, x_scale, of_weight)
        return grad_x, grad_weight


def _columns(rows: Tensor) -> Tensor:
    """[n, k] -> [k, n], contiguous, with n filled with zeros to what the kernels take as the length of a sum."""
    columns = rows.t()
    if missing := -rows.shape[0] % MULTIPLE:
        return F.pad(columns.view(torch.uint8), (0, missing)).view(rows.dtype)  # as bytes: not every operation knows the format
    return columns.contiguous()
