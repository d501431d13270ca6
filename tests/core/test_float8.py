"""Products of 8-bit matrices: what is rounded, by which scale, and what is left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core import float8


def rounded(x: Tensor, format: torch.dtype) -> Tensor:
    """x through the format and back, in fp64, by one scale."""
    scale = x.abs().max().double() / torch.finfo(format).max
    return (x.double() / scale).float().to(format).double() * scale


def by_hand() -> tuple[Tensor, Tensor]:
    """Numbers of e4m3 have three bits after the point: between 256 and 448 they are 32 apart, between 16 and 32 two apart."""
    return torch.tensor([896.0, 34.0, -66.0, 0.0, 1.0]), torch.tensor([896.0, 32.0, -64.0, 0.0, 1.0])


def test_a_tensor_is_rounded_by_the_scale_that_fits_its_largest_number() -> None:
    x, expected = by_hand()
    y, scale = float8.scaled(x, float8.E4M3)
    assert scale.item() == 2.0  # 896 / 448
    assert torch.equal(y.float() * scale, expected)
    assert torch.equal(float8.scaled(torch.zeros(4), float8.E5M2)[0].float(), torch.zeros(4))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_stay_visible(bad: float) -> None:
    y, _ = float8.scaled(torch.tensor([1.0, bad]), float8.E4M3)
    assert not torch.isfinite(y.float()[1])


@pytest.mark.parametrize("rows", [16, 21, 1])
@pytest.mark.parametrize("transposed", [False, True])
def test_value_and_gradients_are_products_of_rounded_tensors(rows: int, transposed: bool) -> None:
    x = torch.randn(3, rows, 32, requires_grad=True)
    weight = torch.randn((32, 48) if transposed else (48, 32), requires_grad=True)
    bias = torch.randn(48, requires_grad=True)
    upstream = torch.randn(3, rows, 48).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = float8.linear(x, weight.t() if transposed else weight, bias)
    of_x, of_weight, of_bias = torch.autograd.grad(y, (x, weight, bias), upstream)
    weight8 = rounded(weight.detach(), float8.E4M3)
    x8, w8, g8 = rounded(x.detach(), float8.E4M3), weight8.t() if transposed else weight8, rounded(upstream.float(), float8.E5M2)
    gradient = g8.flatten(0, 1).t() @ x8.flatten(0, 1)
    expected = [x8 @ w8.t() + bias.detach(), g8 @ w8, gradient.t() if transposed else gradient, upstream.double().sum((0, 1))]
    bf16 = 6e-3
    for mine, theirs, tolerance in zip((y, of_x, of_weight, of_bias), expected, (bf16, bf16, 1e-6, bf16), strict=True):
        assert float((mine.detach().double() - theirs).norm() / theirs.norm()) < tolerance
    assert y.dtype == torch.bfloat16
    assert of_weight.dtype == torch.float32


def test_without_autocast_and_for_other_sizes_nothing_is_rounded() -> None:
    x, weight = torch.randn(5, 32), torch.randn(48, 32)
    assert torch.equal(float8.linear(x, weight), F.linear(x, weight))
    odd = torch.randn(50, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(float8.linear(x, odd), F.linear(x, odd))
        assert not torch.equal(float8.linear(x, weight), F.linear(x, weight))


def test_what_is_kept_for_the_backward_pass_has_one_byte_a_number() -> None:
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        float8.linear(torch.randn(64, 32, requires_grad=True), torch.randn(48, 32, requires_grad=True))
    assert sum(tensor.nbytes for tensor in held) == 64 * 32 + 48 * 32 + 2 * 4
