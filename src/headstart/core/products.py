"""Matrix products of fp32 on a CPU that MKL does not know: by oneDNN, which torch carries too.

MKL gives CPUs that are not Intel's its AVX2 kernels, whatever they can do; torch takes it for every fp32 product. oneDNN uses AVX-512 where it is. On
an AMD EPYC of family 26 (Zen 5) a product of fp32 is 1.5 to 2.5 times as fast, forward and backward, with the same precision
(`python -m benchmarks.products`). In bf16 torch takes oneDNN itself.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from headstart.core import hardware, second_order

SMALLEST = 1 << 23
"""Multiply-adds below which a product stays with torch: there the Python around it costs what it brings."""


@cache
def has_onednn() -> bool:
    """Whether this torch has the product."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@cache
def mkl_is_slow() -> bool:
    """Whether fp32 products are faster by oneDNN here: by a rule, not by a clock, so that a resumed run takes the same kernels."""
    return has_onednn() and torch.backends.mkl.is_available() and slow_on(hardware.cpu_vendor(), hardware.cpu_flags())


def slow_on(vendor: str, flags: list[str]) -> bool:
    """Whether MKL leaves the AVX-512 units of such a CPU unused."""
    return vendor not in ("", "GenuineIntel") and "avx512f" in flags


def worth_it(x: Tensor, weight: Tensor) -> bool:
    """Whether to take oneDNN for `linear` of these: large fp32 matrices on such a CPU, outside autocast and torch.compile, differentiated once."""
    # Asked first: the compiler cannot look into what follows, and would cut its graph at every layer.
    return not torch.compiler.is_compiling() and mkl_is_slow() and suits(x, weight) and not second_order.wanted()


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN would gain on these where MKL is slow."""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * weight.shape[0] >= SMALLEST
        and type(weight) in (Tensor, nn.Parameter)  # no cut parameter, nothing that only pretends to be a tensor
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` by the faster library. Equal to it up to the order of sums.

    Args:
        x: [..., in]; weight: [out, in], also as the transpose of a matrix [in, out]; bias: [out].
    """
    return by_onednn(x, weight, bias) if worth_it(x, weight) else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear`, and the two products of its backward pass, by oneDNN."""
    product: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return product.view(*x.shape[:-1], weight.shape[0])


def matmul(a: Tensor, b: Tensor, onednn: bool) -> Tensor:
    """[m, k] [k, n] -> [m, n], without a gradient."""
    return _product(a, b.t()) if onednn else a @ b


def outer_sum(a: Tensor, b: Tensor, onednn: bool) -> Tensor:
    """a^T b, without a gradient: [rows, m], [rows, n] -> [m, n], contiguous; what the gradient of a weight is."""
    if not onednn:
        return a.t() @ b
    if b.numel() + a.shape[1] * b.shape[1] < a.numel():  # oneDNN wants its first factor row by row: a copy, so of the smaller one
        return _product(b.t(), a.t()).t().contiguous()
    return _product(a.t(), b.t())


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias; x: [rows, in], weight: [out, in] with any strides."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """[rows, in], [out, in], [out] -> [rows, out]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            matmul(gradient, weight, onednn=True) if of_x else None,
            _as(weight, x, gradient) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _as(weight: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a weight, laid out as the weight is: otherwise torch copies it once more."""
    return outer_sum(gradient, x, onednn=True) if weight.is_contiguous() else outer_sum(x, gradient, onednn=True).t()
