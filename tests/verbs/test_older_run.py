"""A run folder that an earlier version wrote, as it is in tests/fixtures/older_run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.verbs._same_run import without_removed
from headstart.verbs.pretrain import pretrain
from tests.running import records, run_info

FIXTURE = Path(__file__).parents[1] / "fixtures" / "older_run"
SETTINGS: dict[str, Any] = {
    "batch": 4,
    "device": "cpu",
    "precision": "fp32",
    "budget.steps": 24,
    "method.hidden_size": 8,
    "method.num_layers": 1,
    "method.num_heads": 2,
    "method.intermediate_size": 8,
    "method.sequence_length": 16,
    "text.vocab_size": 200,
    "text.held_out_share": 0.02,
    "trainer.log_every": 2,
    "trainer.evaluate_every": 6,
    "trainer.checkpoint_every": 6,
    "trainer.evaluate_rows": 8,
    "trainer.micro_batch": 4,
}


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FIXTURE, tmp_path / "older")
    monkeypatch.chdir(tmp_path / "older")
    return Path("run")


@pytest.mark.promise("A run of an earlier version goes on: a setting that was added since counts as its default, and its checkpoints load.")
def test_it_goes_on_and_is_signed_from_then_on(older: Path) -> None:
    before = records(older, "metrics")
    assert "id" not in run_info(older)
    said: list[str] = []
    pretrain("causal-lm", "store", out=older, say=said.append, **SETTINGS)
    assert "Continuing from step 6 of 24." in said
    info = run_info(older)
    assert (info["status"], info["totals"]["steps"], info["checkpoint"]["step"]) == ("done", 24, 24)
    assert records(older, "metrics")[: len(before)] == before
    assert len(info["id"]) == 16


def test_a_setting_that_is_no_more_is_left_out_or_named(older: Path) -> None:
    """run.json of the older run has schedule.rewarm_from at its default."""
    recorded = run_info(older)["config"]
    assert recorded["schedule"]["rewarm_from"] == 0.0
    assert "rewarm_from" not in without_removed(recorded)["schedule"]
    with pytest.raises(UsageError, match=r"schedule\.rewarm_from \(0\.1\) is of an earlier version") as caught:
        without_removed({"schedule": {"rewarm_from": 0.1}})
    assert "--rewarm.warmup-start floor" in str(caught.value.mend)


def test_its_model_can_be_looked_at_and_continued(older: Path) -> None:
    assert headstart.sample(older, ["The old boat"])
    run = pretrain("causal-lm", "store", out="next", init=older, say=lambda line: None, **{**SETTINGS, "budget.steps": 2})
    assert run.info["status"] == "done"


def test_without_its_checkpoints_it_is_not_begun_anew(older: Path) -> None:
    shutil.rmtree(older / "checkpoints")
    with pytest.raises(BadInput, match="no checkpoint is there"):
        pretrain("causal-lm", "store", out=older, say=lambda line: None, **SETTINGS)
