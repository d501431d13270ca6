"""The trainer with steps that make a NaN: what it logs, saves, skips and refuses. A toy method breaks at chosen steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.core.errors import Diverged, Interrupted
from headstart.engine.checkpoint import load_checkpoint
from headstart.engine.method import Batch, Context
from headstart.engine.optim import OptimizerConfig
from headstart.engine.trainer import Trainer
from tests.engine.toy import Toy, ToyConfig, trainer_of
from tests.running import quiet, records, untimed

STEPS = 24


class Breaking(Toy):
    """Toy whose map breaks at some steps (counted from 0), and that keeps a running loss."""

    def __init__(self, bad: set[int], first: int = 0) -> None:
        super().__init__(ToyConfig(first=first))
        self.bad = bad
        self.recent = nn.Buffer(torch.zeros(()))
        self.map.register_forward_hook(lambda module, given, output: output * float("nan") if self.broken else None)
        self.broken = False
        self.at_step: dict[int, Callable[[], None]] = {}

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        self.broken = ctx.step in self.bad
        self.at_step.get(ctx.step, lambda: None)()
        return super().loss(batch, ctx)

    def observe(self, scalars: Any) -> None:
        self.recent.lerp_(scalars["loss"], 0.1)


def trainer(method: Breaking, folder: Path, say: Any = quiet, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    nn.init.normal_(method.map.weight, std=0.1)
    nn.init.zeros_(method.map.bias)
    own = {"log_every": 5, "checkpoint_every": 4, "keep_checkpoints": 9, "ema_decay": 0.9, **settings}
    return trainer_of(method, folder, STEPS, OptimizerConfig(learning_rate=0.01), say=say, **own)


def test_stop_keeps_the_weights_and_checkpoints_from_before_the_bad_step(tmp_path: Path) -> None:
    run = trainer(Breaking({8}), tmp_path)
    with pytest.raises(Diverged, match=r"no finite number at step 9\. The first module that made one: map \(output: 48 of 48 values NaN\)"):
        run.fit()
    assert run.step == 10, "the log step after it: nothing waits for the device before"
    before = load_checkpoint(tmp_path / "checkpoints" / "step-00000008")[1]
    for name, value in before["method"].items():
        assert torch.equal(run.method.state_dict()[name], value), name
    assert run.checkpointer.list() == [4, 8]
    assert [line["loss"] is None for line in records(tmp_path, "metrics")] == [False, True]


def test_a_bad_step_is_seen_before_the_next_phase_changes_the_weights(tmp_path: Path) -> None:
    run = trainer(Breaking({6}, first=8), tmp_path, log_every=20, checkpoint_every=20)
    with pytest.raises(Diverged, match="at step 7"):
        run.fit()
    assert run.method.started == []


def test_skip_logs_and_goes_on_and_a_resumed_run_counts_on(tmp_path: Path) -> None:
    said: list[str] = []
    whole = trainer(Breaking({3, 11, 12}), tmp_path / "whole", said.append, on_nonfinite="skip")
    whole.fit()
    lines = records(tmp_path / "whole", "metrics")
    assert [line.get("skipped") for line in lines] == [1, None, 2, None, None]
    assert all(line["loss"] is not None and line["gradient_norm"] is not None for line in lines), "the means are over the updates that were made"
    warnings = [line for line in said if line.startswith("WARNING")]
    assert len(warnings) == 2
    assert "2 of the updates before step 15 left out" in warnings[1]
    assert "(3 in all; more than 10 end the run)" in warnings[1]
    assert bool(torch.isfinite(whole.method.recent))

    stopped = trainer(Breaking({3, 11, 12}), tmp_path / "cut", on_nonfinite="skip")
    stopped.method.at_step[11] = stopped.stop_requested.set
    with pytest.raises(Interrupted):
        stopped.fit()
    assert stopped.step == 12, "between the two bad steps, within a window of the log"
    stopped.run.close()
    resumed = trainer(Breaking({3, 11, 12}), tmp_path / "cut", on_nonfinite="skip")
    resumed.fit()
    assert untimed(records(tmp_path / "cut", "metrics")) == untimed(lines)
    for name, value in whole.method.state_dict().items():
        assert torch.equal(resumed.method.state_dict()[name], value), name


def test_more_skipped_steps_than_allowed_end_the_run(tmp_path: Path) -> None:
    run = trainer(Breaking({1, 3, 6, 7}), tmp_path, on_nonfinite="skip", max_skipped=3)
    with pytest.raises(Diverged, match=r"4 updates until step 8 were left out .* allows 3\."):
        run.fit()
    assert run.checkpointer.list() == [4], "seen when the next checkpoint was due, before it was written"
