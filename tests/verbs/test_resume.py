"""Real processes, real signals: whatever stops a run, the same command again ends with the numbers of the undisturbed run, bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.at import At, after, standing
from tests.running import TINY, assert_same_run, flags, headstart, records, run_info, start

pytestmark = pytest.mark.slow

KILL = (signal.SIGKILL,)
STEPS = 240
SETTINGS: dict[str, Any] = {
    **TINY,
    "budget.steps": STEPS,
    "trainer.log_every": 3,  # does not divide the next one: means go on over a checkpoint
    "trainer.checkpoint_every": 20,
    "trainer.evaluate_every": 20,
    "trainer.evaluate_rows": 8,
}
OF_METHOD: dict[str, dict[str, Any]] = {
    "causal-lm": {"trainer.ema_decay": 0.9},
    "mlm": {"method.causal_start": 70, "method.dropout": 0.1, "trainer.micro_batch": 4},
    "electra": {"method.causal_start": 50, "method.generator_start": 50, "method.dropout": 0.1},
}
PHASES = {"causal-lm": ["train"], "mlm": ["causal", "masked"], "electra": ["causal", "generator", "joint"]}


def command(slug: str, data: Path, out: Path, **settings: Any) -> list[str | Path]:
    return ["pretrain", slug, "--data", data, "--out", out, *flags({**SETTINGS, **OF_METHOD[slug], **settings})]


@pytest.fixture(scope="module")
def undisturbed(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """slug -> the finished run that nobody stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(slug: str) -> Path:
        if not (folder / slug).exists():
            done = headstart(*command(slug, store, folder / slug))
            assert done.returncode == 0, done.stderr
        return folder / slug

    return run


def moments(run: Path, rng: random.Random) -> list[tuple[str, At]]:
    """When to kill: named moments that a run passes through, and random steps between them."""
    steps = sorted(rng.sample(range(25, STEPS - 10), 2))
    return [
        ("in the rehearsal", At(KILL, "state-*.safetensors")),
        ("before the first checkpoint", after(9, run, *KILL)),
        (f"past step {steps[0]}", after(steps[0], run, *KILL)),
        ("while a checkpoint is written", At(KILL, "state-*.safetensors", run=str(run), step=steps[0])),
        (f"past step {steps[1]}", after(steps[1], run, *KILL)),
        ("before the export", At(KILL, ".export*", run=str(run), step=STEPS)),
    ]


@pytest.mark.promise(
    "Killed with SIGKILL in the rehearsal, at any step, while a checkpoint is written or before the export: the same command ends with the metrics, "
    "samples, weights and checkpoint of a run that nobody stopped, bit for bit, and leaves no other file."
)
@pytest.mark.parametrize("slug", ["causal-lm", "mlm", "electra"])
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bits(
    slug: str, undisturbed: Callable[[str], Path], store: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    kills = moments(run, random.Random(slug))
    for name, at in kills if slug == "causal-lm" else kills[2:5]:  # where training has not begun or is over, methods do not differ
        process = start(*command(slug, store, run), log=log, at=at)
        assert process.wait(timeout=240) == -signal.SIGKILL, name
        assert run_info(run)["status"] == "running"
    done = headstart(*command(slug, store, run))
    assert done.returncode == 0, done.stderr
    assert "Continuing from step" in log.read_text()
    phases = list(dict.fromkeys(line["phase"] for line in records(run, "metrics")))
    assert phases == PHASES[slug]
    assert_same_run(run, undisturbed(slug))


@pytest.mark.promise(
    "A run that is told to stop early (--trainer.stop-at) keeps the schedule of its whole budget: without the flag it goes on to the same bits."
)
def test_a_run_that_stops_early_as_asked_goes_on_to_the_same_bits(undisturbed: Callable[[str], Path], store: Path, tmp_path: Path) -> None:
    for stop_at in (35, 50, 50, 120):  # no log step; the end of a phase; nothing to do; the middle of one
        stopped = headstart(*command("electra", store, tmp_path / "run", **{"trainer.stop_at": stop_at}))
        assert stopped.returncode == 0, stopped.stderr
        info = run_info(tmp_path / "run")
        assert (info["status"], info["totals"]["steps"]) == ("stopped", stop_at)
        assert (tmp_path / "run" / "checkpoints" / f"step-{stop_at:08d}" / "export").is_dir()
    done = headstart(*command("electra", store, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", undisturbed("electra"))


@pytest.mark.promise(
    "Ctrl-C, SIGTERM or a queue's SIGUSR1: the step is finished, a checkpoint written, exit 130; the same command ends bit for bit as if nothing"
    " had been."
)
@pytest.mark.promise("A second process on the folder of a run that goes on is refused; the first is not disturbed.")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_with_a_checkpoint_and_exit_130_and_a_second_process_is_refused_meanwhile(
    number: signal.Signals, undisturbed: Callable[[str], Path], store: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(*command("causal-lm", store, run), log=log, at=after(48, run, signal.SIGSTOP))
    with standing(process, log):
        if number == signal.SIGTERM:
            second = headstart(*command("causal-lm", store, run))
            assert second.returncode == 2
            assert f"Another process is writing to the run {run}" in second.stderr
            assert "Traceback" not in second.stderr
        process.send_signal(number)
    assert process.wait(timeout=240) == 130, log.read_text()
    assert run_info(run)["status"] == "stopped"
    assert f"Stopped after step 51 of {STEPS}; a checkpoint is written." in log.read_text(), "the step that it was in is finished"
    assert (run / "checkpoints" / "step-00000051").is_dir()
    done = headstart(*command("causal-lm", store, run))
    assert done.returncode == 0, done.stderr
    assert f"Continuing from step 51 of {STEPS}." in done.stdout
    assert_same_run(run, undisturbed("causal-lm"))


@pytest.mark.promise("Ctrl-C or SIGTERM before step 1 ends with exit 130 and no traceback.")
def test_a_signal_before_step_1_ends_with_exit_130(store: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(*command("causal-lm", store, run), log=log, at=At((signal.SIGTERM,), ".rehearsal-*"))
    assert process.wait(timeout=240) == 130, log.read_text()
    assert run_info(run)["status"] == "stopped"
    assert "Traceback" not in log.read_text()


def stopped_copy(finished: Path, run: Path) -> None:
    """The finished run as if it had been killed at its last checkpoint but one."""
    shutil.copytree(finished, run)
    shutil.rmtree(run / "export")
    text = (run / "run.json").read_text().replace('"status": "done"', '"status": "running"')
    (run / "run.json").write_text(text.replace(str(finished), str(run)))


@pytest.mark.promise("A damaged newest checkpoint is found by its hashes; the run falls back to the one before, and says so.")
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "half-deleted"])
def test_a_damaged_newest_checkpoint_falls_back_and_the_end_is_the_same(
    damage: str, undisturbed: Callable[[str], Path], store: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped_copy(undisturbed("causal-lm"), run)
    newest = run / "checkpoints" / f"step-{STEPS:08d}"
    state = newest / "state-00001.safetensors"
    raw = bytearray(state.read_bytes())
    if damage == "cut":
        state.write_bytes(raw[:-1])
    elif damage == "flipped":
        raw[len(raw) // 2] ^= 1
        state.write_bytes(raw)
    elif damage == "missing":
        (newest / "manifest.json").unlink()
    else:
        shutil.rmtree(newest)
        newest.mkdir()
    done = headstart(*command("causal-lm", store, run))
    assert done.returncode == 0, done.stderr
    assert "Falling back to the checkpoint before it." in done.stdout
    assert f"Continuing from step {STEPS - 20} of {STEPS}." in done.stdout
    assert_same_run(run, undisturbed("causal-lm"))


@pytest.mark.promise("When every checkpoint of a run is damaged it says so and stops; it does not begin anew over them.")
def test_when_every_checkpoint_is_damaged_the_run_stops_and_says_so(undisturbed: Callable[[str], Path], store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped_copy(undisturbed("causal-lm"), run)
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.write_text("{")
    done = headstart(*command("causal-lm", store, run))
    assert done.returncode == 3
    assert "every checkpoint of this run is damaged" in done.stderr


@pytest.mark.promise("A metrics line that was cut in its middle is dropped, and written again by the resumed run.")
def test_a_half_written_last_line_is_cut(undisturbed: Callable[[str], Path], store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped_copy(undisturbed("causal-lm"), run)
    shutil.rmtree(run / "checkpoints" / f"step-{STEPS:08d}")
    metrics = run / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[: whole.rindex(b'"step": 225') + 7])
    done = headstart(*command("causal-lm", store, run))
    assert done.returncode == 0, done.stderr
    assert_same_run(run, undisturbed("causal-lm"))


@pytest.mark.parametrize("name", ["total_steps", "precision", "flops_per_step"])
def test_a_damaged_record_of_the_trial_is_refused(name: str, undisturbed: Callable[[str], Path], store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    stopped_copy(undisturbed("causal-lm"), run)
    info = run_info(run)
    info["decisions"][name] = [-1]
    (run / "run.json").write_text(json.dumps(info))
    done = headstart(*command("causal-lm", store, run))
    assert done.returncode == 3, done.stderr
    assert f"its record of the trial is damaged (decisions: {name}" in done.stderr
