"""Products by oneDNN are those of torch, forward and backward; small or foreign ones stay with torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core import products
from headstart.engine.flops import count_flops

needs_onednn = pytest.mark.skipif(not products.has_onednn(), reason="this torch has no oneDNN")
DIMS = [(256, 192, 256), (256, 256, 192), (1024, 64, 160)]
"""(rows, in, out), each of enough multiply-adds."""


def tensors(rows: int, inside: int, outside: int, transposed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2, rows // 2, inside, generator=random, requires_grad=True)
    weight = torch.randn((inside, outside) if transposed else (outside, inside), generator=random, requires_grad=True)
    return x, weight, torch.randn(outside, generator=random, requires_grad=True)


@needs_onednn
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", DIMS)
def test_value_and_gradients_are_those_of_torch(dims: tuple[int, int, int], transposed: bool) -> None:
    x, weight, bias = tensors(*dims, transposed)
    assert products.suits(x, weight.t() if transposed else weight)
    upstream = torch.randn(2, dims[0] // 2, dims[2])
    found = []
    for way in (products.by_onednn, F.linear):
        y = way(x, weight.t() if transposed else weight, bias)
        found.append([y.detach(), *torch.autograd.grad(y, (x, weight, bias), upstream)])
    for mine, theirs in zip(*found, strict=True):
        assert mine.shape == theirs.shape
        assert float((mine - theirs).norm() / theirs.norm()) < 1e-6  # fp32: two orders of the same sums


@needs_onednn
def test_a_gradient_lies_as_its_weight_does() -> None:
    """Otherwise torch copies it once more."""
    for transposed in (False, True):
        x, weight, _ = tensors(256, 192, 256, transposed)
        (gradient,) = torch.autograd.grad(products.by_onednn(x, weight.t() if transposed else weight).sum(), weight)
        assert gradient.stride() == weight.stride()


@needs_onednn
def test_only_gradients_that_are_asked_for_are_computed() -> None:
    x, weight, bias = tensors(256, 192, 256)
    full = count_flops(lambda: products.by_onednn(x, weight, bias).sum().backward())
    frozen = count_flops(lambda: products.by_onednn(x.detach(), weight, bias).sum().backward())
    assert full == 3 * 2 * 256 * 192 * 256
    assert frozen == 2 * 2 * 256 * 192 * 256


@needs_onednn
@pytest.mark.parametrize("dims", DIMS)
def test_products_without_gradient(dims: tuple[int, int, int]) -> None:
    rows, inside, outside = dims
    a, b, c = torch.randn(rows, inside), torch.randn(inside, outside), torch.randn(rows, outside)
    torch.testing.assert_close(products.matmul(a, b, onednn=True), a @ b, atol=1e-3, rtol=1e-5)
    for left, right in ((a, c), (c, a)):
        found = products.outer_sum(left, right, onednn=True)
        torch.testing.assert_close(found, left.t() @ right, atol=1e-3, rtol=1e-5)
        assert found.is_contiguous()


def test_what_stays_with_torch() -> None:
    x, weight, bias = tensors(256, 192, 256)
    assert products.suits(x, weight)
    assert not products.suits(x[:, :2], weight)  # small
    assert not products.suits(x.bfloat16(), weight.bfloat16())
    assert not products.suits(x.double(), weight.double())
    assert not products.suits(x.to("meta"), weight.to("meta"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not products.suits(x, weight)
        assert products.linear(x, weight, bias).dtype == torch.bfloat16
    assert products.worth_it(x, weight) == products.mkl_is_slow()


@pytest.mark.parametrize(
    ("vendor", "flags", "slow"),
    [
        ("AuthenticAMD", ["avx2", "avx512f"], True),
        ("AuthenticAMD", ["avx2"], False),
        ("GenuineIntel", ["avx2", "avx512f", "amx_bf16"], False),
        ("", ["asimd", "sve"], False),
    ],
)
def test_where_mkl_leaves_the_wide_units_unused(vendor: str, flags: list[str], slow: bool) -> None:
    assert products.slow_on(vendor, flags) == slow


@needs_onednn
def test_equal_inputs_give_equal_bits() -> None:
    x, weight, bias = tensors(1024, 64, 160)
    assert torch.equal(products.by_onednn(x, weight, bias), products.by_onednn(x.clone(), weight.clone(), bias.clone()))
