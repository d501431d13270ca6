"""One update: the same for every micro-batch and every order of rows."""

from __future__ import annotations

import copy

import pytest
import torch

from headstart.engine.optim import OptimizerConfig, build_optimizer
from headstart.engine.update import Update, seed_dropout
from tests.engine.toy import Toy, ToyConfig, ToyRows


def run(micro_batch: int, steps: int = 3, order: torch.Tensor | None = None, precision: str = "fp32") -> tuple[list[float], dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    method = Toy()
    update = Update(
        method, build_optimizer(method, OptimizerConfig()), clip_norm=1.0, precision=precision, device=torch.device("cpu"), seed=3, total_steps=steps  # type: ignore[arg-type]
    )
    x = torch.from_numpy(ToyRows().x[:8])
    order = torch.arange(8) if order is None else order
    losses = []
    for step in range(steps):
        rows = order.split(micro_batch)
        losses.append(float(update([{"x": x[r]} for r in rows], rows, step, "train")["loss"]))
    return losses, copy.deepcopy(method.state_dict())


@pytest.mark.promise("The micro-batch changes memory, not results: the loss is the mean over the global batch however it is cut.")
@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_micro_batches_give_the_same_loss_and_weights(micro_batch: int) -> None:
    """Rows keep different numbers of targets, so a plain mean of the micro-batches' means would differ."""
    losses, weights = run(8)
    cut_losses, cut_weights = run(micro_batch)
    assert cut_losses == pytest.approx(losses, abs=1e-6)
    for name, value in weights.items():
        torch.testing.assert_close(cut_weights[name], value, atol=1e-6, rtol=0)


def test_the_order_of_rows_does_not_matter() -> None:
    order = torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    assert run(4, order=order)[0] == pytest.approx(run(8)[0], abs=1e-6)


def test_another_step_or_seed_draws_other_numbers() -> None:
    losses = run(8)[0]
    assert len(set(losses)) == 3


def test_gradient_norm_is_reported_before_clipping() -> None:
    method = Toy()
    update = Update(
        method, build_optimizer(method, OptimizerConfig()), clip_norm=1e-3, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=1
    )
    scalars = update([{"x": torch.from_numpy(ToyRows().x[:8])}], [torch.arange(8)], 0, "train")
    assert float(scalars["gradient_norm"]) > 1e-2
    total = torch.stack([p.grad.norm() for p in method.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(1e-3, rel=1e-3)


def test_dropout_repeats_per_step_and_layout() -> None:
    def losses() -> list[float]:
        torch.manual_seed(0)
        method = Toy(ToyConfig(dropout=0.5))
        update = Update(
            method, build_optimizer(method, OptimizerConfig()), clip_norm=None, precision="fp32", device=torch.device("cpu"), seed=0, total_steps=2
        )
        torch.manual_seed(int(torch.randint(100, ()).item()))  # whatever the global generator did before must not matter
        x = torch.from_numpy(ToyRows().x[:8])
        return [float(update([{"x": x}], [torch.arange(8)], step, "train")["loss"]) for step in range(2)]

    assert losses() == losses()


def test_dropout_is_seeded_as_torch_would() -> None:
    device = torch.device("cpu")
    seed_dropout(device, 3, 5, 1, 0)
    drawn, number = torch.rand(4), torch.initial_seed()
    torch.manual_seed(number)
    assert torch.equal(torch.rand(4), drawn)
    for other in ((4, 5, 1, 0), (3, 6, 1, 0), (3, 5, 2, 0), (3, 5, 1, 1)):
        seed_dropout(device, *other)
        assert not torch.equal(torch.rand(4), drawn)
