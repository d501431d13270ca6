"""`replay` repeats a step with the numbers of the run, and names the module that made a NaN."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.core.errors import BadInput, Diverged, UsageError
from headstart.verbs.replay import replay
from tests.running import METHODS, TINY, files, quiet, records
from tests.running import headstart as command

STEPS = 24
SETTINGS: dict[str, Any] = {
    **TINY, "budget.steps": STEPS, "trainer.checkpoint_every": 7, "trainer.keep_checkpoints": 3, "trainer.log_every": 3, "trainer.evaluate_every": 12,
}  # fmt: skip
OF_METHOD: dict[str, dict[str, Any]] = {
    "causal-lm": {"trainer.ema_decay": 0.9},
    "mlm": {"method.causal_start": 8, "method.dropout": 0.1, "trainer.micro_batch": 4},
    "electra": {"method.causal_start": 4, "method.generator_start": 9},
}


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replayed")
    for slug in METHODS:
        headstart.pretrain(slug, store, out=folder / slug, say=quiet, **SETTINGS, **OF_METHOD[slug])
    return folder


@pytest.mark.promise(
    "Any step of a run can be repeated (`headstart replay RUN_FOLDER --step N`): the loss is that of the log, bit for bit, and the run"
    " is not changed."
)
@pytest.mark.parametrize("slug", METHODS)
@pytest.mark.parametrize(("step", "began"), [(3, 0), (12, 0), (15, 14), (24, 21)])
def test_the_loss_of_a_log_step_comes_out_bit_for_bit(slug: str, step: int, began: int, runs: Path) -> None:
    """From the beginning where the checkpoints before it are gone; through phases, and with a window that began before the checkpoint."""
    before = {name: (runs / slug / name).stat().st_mtime_ns for name in files(runs / slug)}
    said: list[str] = []
    found = replay(runs / slug, step, say=said.append)
    assert found.began == began
    assert found.place is None
    assert found.mean_loss == found.logged_loss == next(line["loss"] for line in records(runs / slug, "metrics") if line["step"] == step)
    assert said[-1] == f"The mean loss of steps {step - 2} to {step} is that of metrics.jsonl, bit for bit: {found.logged_loss!r}."
    assert said[-2] == "All finite: the outputs of every module, and every gradient."
    assert {name: (runs / slug / name).stat().st_mtime_ns for name in files(runs / slug)} == before


def test_a_step_between_log_steps_has_no_logged_loss(runs: Path) -> None:
    found = replay(runs / "mlm", 23, say=quiet)
    assert found.mean_loss is None
    assert found.logged_loss is None
    assert 2 < found.loss < 6


def test_a_run_that_computed_otherwise_is_told_so(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "causal-lm", tmp_path / "run")
    lines = records(tmp_path / "run", "metrics")
    lines[-1]["loss"] += 1e-6
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said: list[str] = []
    replay(tmp_path / "run", STEPS, say=said.append)
    assert said[-1].startswith(f"The mean loss of steps 22 to 24 is {lines[-1]['loss']!r} in metrics.jsonl, and ")


def test_the_step_that_diverged_names_its_module(store: Path, tmp_path: Path) -> None:
    """The command line of the error itself."""
    with pytest.raises(Diverged) as caught:
        headstart.pretrain("causal-lm", store, out=tmp_path / "run", say=quiet, **SETTINGS, **{"optimizer.learning_rate": 1e30})
    words = caught.value.mend.split("To look at it: headstart ")[1].split(".", 1)[0].split()
    done = command(*words)
    assert done.returncode == 0, done.stderr
    place = caught.value.what.split("The first module that made one: ")[1].rstrip(".")
    assert f"The first module that made a number that is not finite: {place}." in done.stdout
    found = json.loads(command(*words, "--json").stdout)
    assert found["place"] == place
    assert found["gradient_norm"] is None, "JSON has no NaN"
    assert replay(tmp_path / "run", int(words[-1]) - 1, say=quiet).place is None, "the step before it was sound"


def test_what_cannot_be_repeated_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has steps 1 to 24"):
        replay(runs / "mlm", 25, say=quiet)
    with pytest.raises(UsageError, match="has steps 1 to 24"):
        replay(runs / "mlm", 0, say=quiet)
    with pytest.raises(BadInput, match="is not a run"):
        replay(tmp_path, 1, say=quiet)
    shutil.copytree(runs / "mlm", tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    info["data"][0]["arrays_sha256"]["tokens"] = "0" * 64
    (tmp_path / "run" / "run.json").write_text(json.dumps(info))
    with pytest.raises(BadInput, match="other data"):
        replay(tmp_path / "run", 3, say=quiet)
