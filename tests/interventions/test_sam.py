"""Sharpness-aware minimisation: the gradient at the worst weights nearby, whatever cuts the batch; the weights come back to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.core.errors import UsageError
from headstart.core.rng import Rng
from headstart.engine.method import Context
from headstart.engine.optim import OptimizerConfig, build_optimizer
from headstart.engine.trial import Trial
from headstart.engine.update import Update
from headstart.interventions.sam.config import SamConfig
from headstart.interventions.sam.intervention import SharpnessAware
from headstart.interventions.spdf.config import SparsityConfig
from headstart.interventions.spdf.intervention import Sparse
from tests.engine.toy import Toy, ToyRows

X = torch.from_numpy(ToyRows().x[:8])
CPU = torch.device("cpu")


def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def update_of(method: Any, clip_norm: float | None = None) -> Update:
    return Update(method, build_optimizer(method, OptimizerConfig()), clip_norm=clip_norm, precision="fp32", device=CPU, seed=3, total_steps=3)


def gradient(method: Any, x: torch.Tensor = X) -> list[torch.Tensor]:
    context = Context(0, 3, "train", Rng.at(3, 0, torch.arange(len(x))), CPU)
    loss = method.loss({"x": x}, context)["loss"]
    return list(torch.autograd.grad(loss, list(method.parameters())))


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_gradient_is_that_at_the_worst_weights_nearby(adaptive: bool) -> None:
    by_hand = toy()
    weights, first = list(by_hand.parameters()), gradient(by_hand)
    sizes = [w.detach().abs() if adaptive else torch.ones_like(w) for w in weights]
    norm = torch.cat([(s * g).flatten() for s, g in zip(sizes, first, strict=True)]).norm()
    steps = [0.7 * s * s * g / norm for s, g in zip(sizes, first, strict=True)]
    if not adaptive:
        assert float(torch.cat([step.flatten() for step in steps]).norm()) == pytest.approx(0.7)
    with torch.no_grad():
        for weight, step in zip(weights, steps, strict=True):
            weight.add_(step)
    wanted = gradient(by_hand)

    method = toy()
    before = [p.detach().clone() for p in method.parameters()]
    around = SharpnessAware(method, SamConfig(rho=0.7, adaptive=adaptive), seed=0)
    update = update_of(around)
    update._begin(0)
    scalars, _ = update._gradients([{"x": X}], [torch.arange(8)], 0, "train")
    for parameter, kept, one, plain in zip(method.parameters(), before, wanted, first, strict=True):
        torch.testing.assert_close(parameter.grad, one)
        assert not torch.allclose(one, plain)
        assert torch.equal(parameter, kept)  # to the bit
    assert float(scalars["rise"]) > 0


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_micro_batches_give_the_same_weights(micro_batch: int) -> None:
    """The ascent is one of the whole global batch."""

    def trained(size: int) -> list[torch.Tensor]:
        method, norms = toy(), []
        update = update_of(SharpnessAware(method, SamConfig(rho=0.5), seed=0), clip_norm=1.0)
        for step in range(3):
            rows = torch.arange(8).split(size)
            norms.append(update([{"x": X[r]} for r in rows], rows, step, "train")["gradient_norm"])
        return [*(p.detach() for p in method.parameters()), torch.stack(norms)]

    for whole, cut in zip(trained(8), trained(micro_batch), strict=True):
        torch.testing.assert_close(cut, whole, atol=1e-6, rtol=0)


def test_both_passes_are_counted() -> None:
    def flops(method: Any) -> int:
        rows = ToyRows()
        load = lambda step, start, stop: {"x": torch.from_numpy(rows.x[start:stop])}  # noqa: E731
        trial = Trial(method, OptimizerConfig(), global_batch=8, load=load, device=CPU, seed=0, tokens_per_row=6)
        return trial._count("train", 4)[0]

    assert flops(SharpnessAware(toy(), SamConfig(rho=0.1), seed=0)) == 2 * flops(toy()) > 0


def test_weights_that_stay_zero_are_not_moved() -> None:
    sparse = Sparse(toy(), SparsityConfig(level=0.5, include=("map.weight",)), seed=0)
    around = SharpnessAware(sparse, SamConfig(rho=10.0), seed=0)
    weight = sparse.inner.map.weight  # type: ignore[union-attr]
    zeros = (weight == 0).clone()
    assert zeros.sum() == 18
    seen = []

    class Watched(Toy):
        def loss(self, batch: Any, ctx: Context) -> dict[str, torch.Tensor]:
            seen.append(self.map.weight.detach().clone())
            return super().loss(batch, ctx)

    sparse.inner.__class__ = Watched
    update_of(around)([{"x": X}], [torch.arange(8)], 0, "train")
    assert len(seen) == 2
    assert not torch.equal(seen[0], seen[1])
    assert all((at == 0)[zeros].all() for at in seen)


def test_a_step_of_no_finite_length_leaves_the_weights(tmp_path: Path) -> None:
    method = toy()
    before = method.map.weight.detach().clone()
    update = update_of(SharpnessAware(method, SamConfig(rho=0.1), seed=0))
    update._begin(0)
    update._gradients([{"x": torch.full_like(X, torch.inf)}], [torch.arange(8)], 0, "train")
    assert torch.equal(method.map.weight, before)


@pytest.mark.parametrize("rho", [-0.1, 0.0])
def test_a_length_that_is_none_is_refused(rho: float) -> None:
    config = SamConfig(rho=rho, adaptive=True)
    assert config.on
    with pytest.raises(UsageError, match=r"--sam\.rho is"):
        config.check()
    assert not SamConfig().on
