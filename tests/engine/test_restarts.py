"""A phase that restarts is a run of its own: the same weights give the same steps again, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import Diverged
from headstart.engine.method import Batch, Context, Phase
from headstart.engine.optim import OptimizerConfig
from headstart.engine.schedules import ScheduleConfig
from headstart.engine.trainer import Trainer
from headstart.engine.trial import own_run, spans
from tests.engine.toy import Toy, ToyConfig, trainer_of
from tests.running import records

STEPS, HALF = 12, 6


class Twice(Toy):
    """Trains for half of the run, and from the same weights for the other half."""

    def __init__(self, restarts: bool = True, bad: int | None = None) -> None:
        super().__init__(ToyConfig(dropout=0.1))
        torch.manual_seed(0)
        nn.init.normal_(self.map.weight, std=0.1)
        nn.init.zeros_(self.map.bias)
        self.first = {name: value.clone() for name, value in self.map.state_dict().items()}
        self.restarts, self.bad, self.seen = restarts, bad, []  # type: ignore[var-annotated]

    def phases(self, total_steps: int) -> list[Phase]:
        return [Phase("first", HALF), Phase("second", on_start=self.begin_again, restarts=self.restarts)]

    def begin_again(self) -> None:
        self.map.load_state_dict(self.first)

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        self.seen.append((ctx.phase, ctx.step, ctx.total_steps, batch["x"].clone()))
        scalars = super().loss(batch, ctx)
        return scalars | {"loss": scalars["loss"] * (float("nan") if (ctx.phase, ctx.step) == ("second", self.bad) else 1.0)}


def trainer(method: Twice, folder: Path, steps: int = STEPS, **settings: Any) -> Trainer:
    own = {"log_every": 1, "checkpoint_every": 4, "keep_checkpoints": 9, **settings}
    return trainer_of(method, folder, steps, OptimizerConfig(learning_rate=0.05), ScheduleConfig(warmup_share=0.25), **own)


def curves(folder: Path) -> list[tuple[float, float, float]]:
    return [(line["loss"], line["learning_rate"], line["gradient_norm"]) for line in records(folder, "metrics")]


def test_the_same_weights_give_the_same_steps_again(tmp_path: Path) -> None:
    method = Twice()
    trainer(method, tmp_path).fit()
    found = curves(tmp_path)
    assert len(found) == STEPS
    assert found[:HALF] == found[HALF:], "losses, rates of the schedule and gradients, bit for bit"
    assert [(step, total) for _, step, total, _ in method.seen] == [(step, HALF) for step in range(HALF)] * 2
    for (_, _, _, before), (_, _, _, again) in zip(method.seen[:HALF], method.seen[HALF:], strict=True):
        assert torch.equal(before, again)


def test_a_phase_that_does_not_restart_goes_on_with_the_schedule_and_the_rows(tmp_path: Path) -> None:
    method = Twice(restarts=False)
    trainer(method, tmp_path).fit()
    found = curves(tmp_path)
    assert [rate for _, rate, _ in found[HALF:]] != [rate for _, rate, _ in found[:HALF]]
    assert [step for _, step, _, _ in method.seen] == list(range(STEPS))
    assert not torch.equal(method.seen[0][3], method.seen[HALF][3])


@pytest.mark.parametrize("stop", [4, 8])
def test_it_resumes_bit_for_bit_on_either_side(stop: int, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(Twice(), whole).fit()
    stopped = trainer(Twice(), parts, stop_at=stop)
    stopped.fit()
    stopped.run.close()
    other = Twice()
    nn.init.zeros_(other.map.weight)  # what it begins with is not what counts
    trainer(other, parts).fit()
    assert curves(whole) == curves(parts)


def test_a_bad_step_of_a_later_phase_is_named_by_its_place_in_the_run(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=rf"at step {HALF + 3}\b"):
        trainer(Twice(bad=2), tmp_path).fit()


def test_own_runs_reach_from_one_restart_to_the_next() -> None:
    found = spans([Phase("a", 3), Phase("b", 2), Phase("c", 4, restarts=True), Phase("d", restarts=True)], 12)
    assert [own_run(found, step) for step in (0, 4, 5, 8, 9, 11)] == [(0, 5), (0, 5), (5, 4), (5, 4), (9, 3), (9, 3)]
    assert own_run(spans([Phase("a", 3), Phase("b")], 12), 11) == (0, 12)
