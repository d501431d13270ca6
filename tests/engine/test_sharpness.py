"""Sharpness on problems whose Hessian is known, and through every kernel that can be differentiated only once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.text import build_masked_lm
from headstart.core import products
from headstart.core.errors import Diverged, UsageError
from headstart.core.second_order import second_order, wanted
from headstart.engine import sharpness
from headstart.objectives.projected_loss import projected_lm_loss
from headstart.objectives.token_loss import masked_lm_loss

H = torch.tensor([[3.0, 1.0, 0.0], [1.0, -4.0, 0.5], [0.0, 0.5, 2.0]])


def quadratic(scale: float = 1.0) -> tuple[sharpness.Parameters, Callable[[], Tensor]]:
    """1/2 x H x + b x: gradient b at 0."""
    x = nn.Parameter(torch.zeros(2))
    y = nn.Parameter(torch.zeros(1, 1))

    def loss() -> Tensor:
        z = torch.cat([x, y.flatten()])
        return scale * (0.5 * z @ H @ z + z @ torch.tensor([3.0, 0.0, 4.0]))

    return {"x": x, "y": y}, loss


def test_trace_is_split_over_parameters_and_meaned_over_batches() -> None:
    parameters, loss = quadratic()
    double = lambda: 3 * loss()  # noqa: E731
    exact = sharpness.exact_trace([loss, double], parameters)
    assert exact.mean == pytest.approx(2.0)  # (1 + 3) / 2 times -1 + 2
    assert exact.of_parameter == pytest.approx({"x": -2.0, "y": 4.0})
    assert exact.of_batch == pytest.approx([1.0, 3.0])
    drawn = sharpness.hessian_trace([loss, double], parameters, probes=400, relative_error=0.0)
    assert abs(drawn.mean - 2.0) < 4 * drawn.standard_error
    assert sum(drawn.of_parameter.values()) == pytest.approx(drawn.mean)
    assert drawn.estimates == 800


def test_it_stops_when_the_error_is_small_and_not_before_fifty_estimates() -> None:
    x = nn.Parameter(torch.ones(4))
    diagonal = sharpness.hessian_trace([lambda: x.pow(2).sum()], {"x": x}, probes=400)  # signs have no variance here
    assert diagonal.mean == pytest.approx(8.0)
    assert diagonal.estimates == 56
    assert diagonal.standard_error == 0.0
    parameters, loss = quadratic()
    few = sharpness.hessian_trace([loss], parameters, probes=8)
    assert "only 8 estimates" in few.unreliable
    noisy = sharpness.hessian_trace([loss], parameters, probes=64, relative_error=0.0)
    assert "relative standard error" in noisy.unreliable
    with pytest.raises(Diverged):
        sharpness.hessian_trace([lambda: (x * torch.inf).pow(2).sum()], {"x": x})


def test_the_largest_eigenvalue_keeps_its_sign() -> None:
    parameters, loss = quadratic()
    products: list[int] = []
    largest = sharpness.largest_eigenvalue([loss, loss], parameters, iterations=200, tolerance=1e-7, made=products.append)
    values = torch.linalg.eigvalsh(H)
    assert largest.value == pytest.approx(float(values[values.abs().argmax()]), abs=1e-3)
    assert largest.value < 0
    assert largest.settled
    assert 2 < sum(products) < 2 * 200
    assert not sharpness.largest_eigenvalue([loss], parameters, iterations=2, tolerance=1e-7).settled


def test_ctrl_c_keeps_the_rounds_that_were_whole() -> None:
    parameters, loss = quadratic()
    calls = 0

    def interrupted() -> Tensor:
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return loss()

    last = 6  # two batches, of each one graph a round: the second batch of the third round
    products: list[int] = []
    found = sharpness.hessian_trace([interrupted, interrupted], parameters, probes=400, relative_error=0.0, made=products.append)
    whole = sharpness.hessian_trace([loss, loss], parameters, probes=2 * sharpness.ROUND, relative_error=0.0)
    assert found.stopped
    assert not whole.stopped
    assert (found.mean, found.estimates) == (whole.mean, whole.estimates)
    assert sum(products) == 5 * sharpness.ROUND
    calls, last = 0, 2
    with pytest.raises(KeyboardInterrupt):  # nothing was measured yet
        sharpness.hessian_trace([interrupted, interrupted], parameters)


def test_sam_sharpness_is_the_rise_up_the_gradient() -> None:
    parameters, loss = quadratic()
    g = torch.tensor([3.0, 0.0, 4.0])
    step = 0.1 * g / 5
    assert sharpness.sam_sharpness([loss], parameters, 0.1) == pytest.approx(float(0.5 * step @ H @ step + step @ g), abs=1e-6)
    with torch.no_grad():
        parameters["x"].copy_(torch.tensor([2.0, -0.5]))
    before = {name: value.detach().clone() for name, value in parameters.items()}
    w = torch.tensor([2.0, -0.5, 0.0])
    g = H @ w + torch.tensor([3.0, 0.0, 4.0])
    step = 0.1 * w * w * g / (w * g).norm()
    found = sharpness.sam_sharpness([loss], parameters, 0.1, adaptive=True)
    assert found == pytest.approx(float(0.5 * step @ H @ step + step @ g), abs=1e-5)
    assert all(torch.equal(parameters[name], value) for name, value in before.items())


def test_average_sharpness_does_not_change_when_layers_are_rescaled() -> None:
    """u -> 3 u, v -> v / 3: the same function, another trace, the same scale-free figures."""

    def measured(factor: float) -> tuple[float, float, float, float]:
        torch.manual_seed(0)
        u, v = nn.Parameter(torch.randn(3, 2) * factor), nn.Parameter(torch.randn(1, 3) / factor)
        x, y = torch.randn(8, 2), torch.randn(8, 1)
        loss = lambda: F.mse_loss(x @ u.T @ v.T, y)  # noqa: E731
        parameters = {"u": u, "v": v}
        trace = sharpness.exact_trace([loss], parameters)
        layers, matrices = sharpness.parts_of(trace, parameters, lambda name: name)
        assert layers == matrices
        average = sharpness.average_sharpness([loss], parameters, 0.1)
        return trace.mean, layers[0].scale_free, average, sharpness.sam_sharpness([loss], parameters, 0.1, adaptive=True)

    plain, scaled = measured(1.0), measured(3.0)
    assert abs(scaled[0] - plain[0]) > 0.2 * plain[0]
    assert scaled[1:] == pytest.approx(plain[1:], rel=1e-3)


def test_within_second_order_everything_can_be_differentiated_twice() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(5, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets = torch.tensor([0, 3, 6, 1, 1])

    def twice(loss: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(loss, weight, create_graph=True)
        return torch.autograd.grad(g.square().sum(), weight)[0]

    with pytest.raises(RuntimeError):
        twice(projected_lm_loss(hidden, weight, None, targets, None))
    query = torch.randn(1, 2, 6, 4, requires_grad=True)
    with second_order():
        assert wanted()
        found = twice(projected_lm_loss(hidden, weight, None, targets, None))
        (g,) = torch.autograd.grad(F.scaled_dot_product_attention(query, query, query).square().sum(), query, create_graph=True)
        torch.autograd.grad(g.square().sum(), query)
        assert not products.worth_it(torch.zeros(4096, 4096), torch.zeros(4096, 4096))
    assert not wanted()
    torch.testing.assert_close(found, twice(masked_lm_loss(hidden @ weight.T, targets, None)))


@pytest.mark.parametrize(
    ("architecture", "bias"),
    [
        ("bert", "cls.predictions.bias"),
        ("roberta", "lm_head.bias"),
        ("roberta-prelayernorm", "lm_head.bias"),
        ("electra", "generator_lm_head.bias"),
        ("modernbert", "decoder.bias"),
    ],
)
def test_of_a_network_all_is_measured_but_the_pooler_and_the_bias_of_token_prediction(architecture: str, bias: str) -> None:
    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 12}
    network = nn.Module()
    network.encoder = build_masked_lm(architecture, vocab_size=19, max_length=6, dropout=0.0, special_ids={"pad": 0, "cls": 2, "sep": 3}, **sizes)
    network.pooler = nn.Linear(2, 2)
    names = {name for name, _ in network.named_parameters()}
    assert names - set(sharpness.measured_parameters(network)) == {f"encoder.{bias}", "pooler.weight", "pooler.bias"}


def test_sizes_that_cannot_be_exact_and_empty_networks_are_refused() -> None:
    big = {"w": nn.Parameter(torch.zeros(200, 200))}
    with pytest.raises(UsageError, match="40,000 parameters"):
        sharpness.exact_trace([lambda: big["w"].sum()], big)
    network = nn.Module()
    network.pooler = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="no parameters"):
        sharpness.measured_parameters(network)
    with pytest.raises(UsageError, match=r"no parameter has a name like '\.\*'\.\nGive patterns as of files, \* for anything: pooler\.weight"):
        sharpness.measured_parameters(network, [".*"])  # a regular expression: nothing was left out, not even what always is
    assert list(sharpness.measured_parameters(network, ["*.bias"])) == ["pooler.weight"]


def test_the_fisher_trace_agrees_where_the_model_is_right_and_only_there() -> None:
    """One place, the truth (.2, .8): at the optimum E over labels of the Hessian is the Fisher matrix."""
    for bias, agrees in ((math.log(0.25), True), (2.0, False)):
        w = nn.Parameter(torch.tensor([bias, 0.0]))
        truth = torch.tensor([0.2, 0.8])
        loss = lambda: -(truth * w.log_softmax(0)).sum()  # noqa: B023, E731
        squares = sum(float(truth[y]) * float(torch.autograd.grad(w.log_softmax(0)[y], w)[0].square().sum()) for y in (0, 1))
        assert (abs(sharpness.exact_trace([loss], {"w": w}).mean - squares) < 1e-6) is agrees
