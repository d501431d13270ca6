"""NaN and infinity in real runs: on the command line, over several processes, and again from the last checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.engine.checkpoint import load_checkpoint
from headstart.verbs.pretrain import pretrain
from tests.failures.faults import SETTINGS, assert_told, checkpoints, command
from tests.failures.nonfinite import ALONE, BAD, CASES, train, without
from tests.running import headstart, records, torchrun


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("two") / "found.json"
    done = torchrun(2, "tests.failures.nonfinite", out)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text()))


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for part in ("weights", "averages"):
        for name, value in expected[part].items():
            torch.testing.assert_close(torch.tensor(found[part][name]), torch.tensor(value), atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert found["mean"] == pytest.approx(expected["mean"], rel=1e-5)


@pytest.mark.promise("A NaN in the rows of one process of several: no process takes it up, all stop at the same step, the module is named.")
@pytest.mark.slow
@pytest.mark.parametrize(("mode", "policy", "optimizer"), CASES)
def test_a_nan_on_one_process_of_two_leaves_no_trace_on_any(mode: str, policy: str, optimizer: str, on_two: dict[str, Any]) -> None:
    """Weights, weight average and running statistics are those of a run without the bad step (and, with "stop", without those after it)."""
    found = on_two[f"{mode} {policy} {optimizer}"]
    assert found["seen"] == [[BAD, policy == "skip"]] * 2
    assert found["named"] == [None, "layers.1 (output: 24 of 24 values NaN)"]
    assert_close(found, without(policy, optimizer))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_on_one_process_too(policy: str, optimizer: str) -> None:
    found = train(ALONE, "ddp", policy, optimizer, [0, 1, 2, 3, 4])
    assert found["seen"] == [[BAD, policy == "skip"]]
    assert found["named"] == ["layers.1 (output: 48 of 48 values NaN)"]
    expected = without(policy, optimizer)
    assert found["weights"] == expected["weights"]
    assert found["mean"] == expected["mean"]
    if policy == "skip":
        assert found["averages"] == expected["averages"]


@pytest.mark.slow
@pytest.mark.promise(
    "A NaN in the loss or a gradient: exit 5 with the step and the module that made it, the weights and checkpoints from before it;"
    " the same command meets it again, --trainer.on-nonfinite skip goes past it, another learning rate is refused with the line to use instead."
)
def test_a_nan_on_the_command_line(store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    broken = {"optimizer.learning_rate": 1e30, "trainer.checkpoint_every": 1, "trainer.log_every": 1, "budget.steps": 12}
    failed = headstart(*command(store, run, **broken))
    assert failed.returncode == 5
    assert_told(failed.stderr, "Loss or gradient is no finite number at step 3.", "The first module that made one: model.", "--step 3")
    assert "The checkpoint before it is step 2." in failed.stderr
    assert checkpoints(run) == [1, 2]
    for step in checkpoints(run):
        state = load_checkpoint(run / "checkpoints" / f"step-{step:08d}")[1]
        assert all(bool(torch.isfinite(value).all()) for value in state["method"].values() if value.is_floating_point())
    again = headstart(*command(store, run, **broken))
    assert (again.returncode, again.stderr) == (5, failed.stderr)
    assert "Continuing from step 2 of 12" in again.stdout
    slower = headstart(*command(store, run, **{**broken, "optimizer.learning_rate": 1e-3}))
    assert slower.returncode == 2
    assert "optimizer.learning_rate: 1e+30 -> 0.001" in slower.stderr
    assert f"--init {run} --out ANOTHER_FOLDER" in slower.stderr
    past = headstart(*command(store, run, **broken, **{"trainer.on_nonfinite": "skip", "trainer.max_skipped": 2}))
    assert past.returncode == 5, "here every step is bad, so skipping has an end too"
    assert "WARNING: 1 of the updates before step 3 left out" in past.stdout
    assert_told(past.stderr, "3 updates until step 5 were left out", "--trainer.max-skipped allows 2")
    assert [line.get("skipped") for line in records(run, "metrics")] == [None, None, 1, 1, 1]


@pytest.mark.promise(
    "A loss that jumps far above the last log steps is said once, with the checkpoint before it; ordinary noise and new phases"
    " are not."
)
def test_a_rate_that_is_too_high_makes_the_loss_jump(store: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "budget.steps": 60, "trainer.log_every": 1, "trainer.checkpoint_every": 10, "schedule.warmup_share": 0.9}

    def said(rate: float) -> list[str]:
        lines: list[str] = []
        pretrain("causal-lm", store, out=tmp_path / str(rate), say=lines.append, **settings, **{"optimizer.learning_rate": rate})
        return [line for line in lines if "jumped" in line]

    assert said(0.05) == [], "a rate as it should be"
    jumps = said(5.0)
    steps = [line["step"] for line in records(tmp_path / "5.0", "metrics") if line.get("spike")]
    assert 1 <= len(jumps) == len(steps) <= 3
    before = (steps[0] - 1) // 10 * 10
    assert f"at step {steps[0]}. Lower --optimizer.learning-rate" in jumps[0]
    assert jumps[0].endswith(f"The checkpoint before it is step {before}.")
