"""A number that is not finite: the weights never take it up, nothing waits for the device, and the module that made it is named."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from headstart.engine.guard import Guard, Report, first_nonfinite
from headstart.engine.optim import OptimizerConfig, build_optimizer, set_learning_rate, step_unless

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")


def watch(guard: Guard, losses: list[float], norms: list[float] | None = None, start: int = 0) -> list[float]:
    """`found_inf` after each step."""
    found = []
    for step, loss in enumerate(losses):
        norm = 1.0 if norms is None else norms[step]
        found.append(float(guard.watch(torch.tensor(loss), torch.tensor(norm), torch.tensor(start + step))))
    return found


def test_after_the_first_bad_step_stop_lets_nothing_through() -> None:
    guard = Guard(CPU, "stop", 10)
    assert watch(guard, [1.0, 2.0, NAN, 3.0, INF]) == [0, 0, 1, 1, 1]
    report = guard.report()
    assert report == Report(first_bad=2, skipped=0, skipped_in_all=0)
    assert guard.exhausted(report)


def test_skip_leaves_out_bad_steps_alone_and_counts_them() -> None:
    guard = Guard(CPU, "skip", 2)
    assert watch(guard, [1.0, NAN, 3.0, -INF]) == [0, 1, 0, 1]
    report = guard.report()
    assert report == Report(first_bad=1, skipped=2, skipped_in_all=2)
    assert not guard.exhausted(report)
    assert watch(guard, [NAN, 1.0]) == [1, 0]
    assert guard.peek() == guard.report() == Report(first_bad=1, skipped=1, skipped_in_all=3)
    assert guard.exhausted(guard.report())
    assert guard.report().skipped == 0


def test_a_gradient_norm_that_overflows_is_bad_though_the_loss_is_not() -> None:
    guard = Guard(CPU, "skip", 10)
    assert watch(guard, [1.0, 1.0, 1.0], [1.0, INF, 1.0]) == [0, 1, 0]


def test_a_guard_goes_on_from_its_saved_state() -> None:
    guard = Guard(CPU, "skip", 10)
    watch(guard, [NAN, 1.0])
    guard.report()
    watch(guard, [NAN], start=2)
    saved = copy.deepcopy(guard.state_dict())
    again = Guard(CPU, "skip", 10)
    again.load_state_dict(saved)
    assert again.report() == guard.report() == Report(first_bad=0, skipped=1, skipped_in_all=2)


class HostReads(TorchDispatchMode):
    """Counts every operation with which the host would wait for a device."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("name", ["adamw", "lamb", "muon", "sgd"])
def test_a_step_reads_nothing_back_to_the_host(policy: Literal["stop", "skip"], name: Literal["adamw", "lamb", "muon", "sgd"]) -> None:
    torch.manual_seed(0)
    model = Net()
    optimizer = build_optimizer(model, OptimizerConfig(name=name))
    guard = Guard(CPU, policy, 10)
    loss, norm, step = torch.tensor(NAN), torch.tensor(1.0), torch.tensor(0)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with HostReads() as reads:
        step_unless(optimizer, guard.watch(loss, norm, step))
    assert reads.count == 0
    with HostReads() as reads:
        bool(guard.found_inf)
    assert reads.count == 1, "a host read would have been counted"


class Net(nn.Module):
    """Two layers whose names Muon knows, and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.scale = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x * self.scale


CONFIGS = [
    OptimizerConfig(),
    OptimizerConfig(name="adam-uncorrected", epsilon=1e-6),
    OptimizerConfig(name="lamb", epsilon=1e-6),
    OptimizerConfig(name="muon"),
    OptimizerConfig(name="sgd"),
    OptimizerConfig(name="sgd", beta1=0.0),
    OptimizerConfig(fused=False),
    OptimizerConfig(name="muon", fused=False),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.name}-{config.beta1:g}-{'fused' if config.fused is None else 'plain'}")
@pytest.mark.parametrize("bad_at", [0, 2])
def test_a_step_left_out_leaves_no_trace_in_any_optimiser(config: OptimizerConfig, bad_at: int) -> None:
    """Four updates with one bad among them are, bit for bit, the three good ones: weights, moments and step counts."""

    def train(bad: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
        torch.manual_seed(0)
        model = Net()
        optimizer = build_optimizer(model, config)
        set_learning_rate(optimizer, 1e-2)
        guard = Guard(CPU, "skip", 10)
        for step in range(4):
            if step == bad_at and not bad:
                continue
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss = model(x * (NAN if step == bad_at else 1.0)).square().mean()
            loss.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            step_unless(optimizer, guard.watch(loss.detach(), norm, torch.tensor(step)))
        return model.state_dict(), optimizer.state_dict()["state"]

    weights, state = train(bad=True)
    good_weights, good_state = train(bad=False)
    for name, value in weights.items():
        assert torch.equal(value, good_weights[name]), name
    for key, entries in good_state.items():
        for name, value in entries.items():
            assert torch.equal(torch.as_tensor(state[key][name]), torch.as_tensor(value)), (key, name)


# --- which module made it ------------------------------------------------------------------------------------------------------------------------


class Broken(nn.Module):
    """A stack of blocks; one of them makes the first number that is not finite. Each gets a mask of infinities, which is no fault."""

    def __init__(self, where: str = "") -> None:
        super().__init__()
        self.embed = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block(where == f"block {i}", where == f"gradient {i}") for i in range(3))
        self.head = nn.Linear(4, 2)
        self.where = where
        with torch.no_grad():
            if where == "weight":
                self.blocks[1].linear.weight[0, 0] = NAN

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        if self.where == "between":
            x = x / 0
        for block in self.blocks:
            x = block(x, attention_mask=attention_mask)
        x = self.head(x)
        return x / 0 if self.where == "itself" else x

    def loss(self) -> Tensor:
        x = torch.linspace(0.1, 1, 8).view(2, 4)
        if self.where == "data":
            x[0, 0] = NAN
        mask = torch.tensor([0.0, -INF])
        loss = self(x, mask).square().mean()
        if self.where == "loss":
            loss = loss - loss.detach() * INF
        if self.where == "loss gradient":
            loss = (loss - loss.detach()).sqrt()
        loss.backward()
        return loss.detach()


class Block(nn.Module):
    def __init__(self, breaks: bool, breaks_gradient: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.act = nn.Tanh()
        self.breaks, self.breaks_gradient = breaks, breaks_gradient

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        y = self.act(self.linear(x))
        if self.breaks:
            y = torch.log(y - 2)  # tanh is below 1: the logarithm of a negative number
        if self.breaks_gradient:
            y = y + (y - y.detach()).sqrt()  # the root's slope at 0 is infinite
        return x + y


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("block 1", "blocks.1 (output: 8 of 8 values NaN)"),
        ("between", "Broken (output: 4 of 4 values NaN)"),
        ("data", "the data (where it reaches embed)"),
        ("itself", "Broken (output: 4 of 4 values infinite)"),
        ("weight", "blocks.1.linear (its weight: 1 of 16 values NaN)"),
        ("gradient 2", "blocks.2 (its gradient where it reaches blocks.2.act: 8 of 8 values infinite)"),
        ("loss", "the loss, computed from finite outputs of every module (1 of 1 values infinite)"),
        ("loss gradient", "the loss: its gradient where it reaches Broken"),
    ],
)
def test_the_first_module_that_makes_it_is_named(where: str, name: str) -> None:
    torch.manual_seed(0)
    model = Broken(where)
    found = first_nonfinite(model, model.loss)
    assert found is not None
    assert found.startswith(name)


def test_a_finite_step_names_nobody() -> None:
    torch.manual_seed(0)
    model = Broken()
    assert first_nonfinite(model, model.loss) is None
    assert all(parameter.grad is not None for parameter in model.parameters()), "the gradients of the step stay"
    assert not model._forward_hooks
    assert not model.head._backward_hooks


def test_a_gradient_that_overflows_inside_a_module_is_found() -> None:
    """Large inputs times a large gradient: only the gradient of the weight shows it, or that of the input."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    first, second = (layer.weight for layer in model)

    def step() -> Tensor:
        model.zero_grad()
        loss = (model(torch.full((1, 1), 1e30)) * 1e10).sum()
        loss.backward()
        return loss.detach()

    nn.init.constant_(first, 1e-30)
    nn.init.constant_(second, 1.0)
    assert first_nonfinite(model, step) == "0 (gradient of its weight: 1 of 1 values infinite)"
    nn.init.constant_(first, 1e-38)  # so that the second layer's input is tiny ...
    nn.init.constant_(second, 1e30)  # ... and its gradient is not
    assert first_nonfinite(model, step) == "1 (gradient of its input: 1 of 1 values infinite)"
