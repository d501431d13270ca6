"""`headstart watch`: beside real runs, in real terminals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.core.run import read_run
from headstart.verbs._follow import Followed, Series
from headstart.verbs._watch_screen import Screen, loss_chart, seconds_left, sparkline
from headstart.verbs.watch import watch
from tests.report.folders import HOSTILE, write_run
from tests.running import TINY, environment, flags, headstart, last_step, run_info, start, wait_until


def test_a_finished_run_is_told_with_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    info = watch(write_run(tmp_path / "run", spike_at=300), plain=True)
    said = capsys.readouterr().out
    assert info["status"] == "done"
    assert "step 400/400 (100 %)" in said
    assert "plateau 5.93" in said
    assert "WARNING: the loss jumped at step 300" in said
    assert "left the unigram plateau" in said
    assert "a linear probe reaches 0.408" in said


def test_a_failed_a_killed_and_a_missing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch(write_run(tmp_path / "failed", status="failed"), plain=True)
    assert "Failed at step 400." in capsys.readouterr().out
    killed = write_run(tmp_path / "killed", status="running")
    for path in killed.iterdir():
        os.utime(path, (time.time() - 60, time.time() - 60))
    watch(killed, plain=True)
    assert "is gone at step 400" in capsys.readouterr().out
    with pytest.raises(BadInput, match="--wait"):
        watch(tmp_path / "nowhere")


def test_a_folder_that_holds_runs_names_one(tmp_path: Path) -> None:
    run = write_run(tmp_path / "claim" / "runs" / "mlm-seed-0", steps=400)
    with pytest.raises(BadInput, match=f"is not a run: it has no run.json.\nGive a run that lies in it, for example {run}, or add --wait\\."):
        watch(tmp_path / "claim")
    with pytest.raises(BadInput, match=f"for example {run}\\."):
        read_run(run.parent)


def test_what_files_say_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", method="\x1b[2J", said="\x1b]0;title\x07" + HOSTILE)
    watch(run, plain=True)
    followed = Followed(run)
    followed.refresh()
    drawn = "\n".join(str(line) for line in Screen(followed).lines(100))
    for said in (capsys.readouterr().out, drawn):
        assert "\x1b" not in said
        assert "\u202e" not in said
    assert "\\x1b[2J" in drawn


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_screen_shows_losses_plateau_probes_speed_and_samples_within_its_width(tmp_path: Path, width: int) -> None:
    followed = Followed(write_run(tmp_path / "run", spike_at=300, phases=("generator", "joint")))
    followed.refresh()
    lines = [str(line) for line in Screen(followed).lines(width)]
    assert max(map(len, lines)) <= width
    told = "\n".join(lines)
    for word in ("phase joint", "training 4.4", "rankme", "tokens/s", "sample at step 400", "The loss jumped at step 300."):
        assert word in told, word
    assert width == 40 or "plateau 5.93, left" in told


def test_the_chart_draws_the_curve_the_plateau_and_both_ends() -> None:
    falling = Series()
    for step in range(0, 100, 33):
        falling.add(step, 7.0 - step / 50)
    lines = [str(line) for line in loss_chart([("cyan", falling)], 6.0, 60)]
    assert lines[0].startswith("      7 ┤")
    assert lines[-1].startswith("   5.02 ┤")
    assert [("╌" in line, "6 ┤" in line) for line in lines].count((True, True)) == 1
    first = [next((i for i, c in enumerate(line) if "\u2800" < c < "\u2900"), -1) for line in lines]
    assert first == sorted(first), "from the upper left to the lower right, without a gap"
    assert -1 not in first


def test_sparklines_rise_and_keep_gaps() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, float("nan"), 3], 3) == "▁ █"
    assert sparkline([2.0] * 100, 10) == "▁" * 10
    assert sparkline([], 10) == ""


def test_the_time_left_is_that_of_the_last_log_steps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=400, status="running")
    text = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(text[:20]))
    followed = Followed(run)
    followed.refresh()
    assert seconds_left(followed) == pytest.approx(200 * 0.17, rel=1e-3)


# beside a real run

SLOW = flags({**TINY, "budget.steps": 100_000, "trainer.evaluate_every": 1000, "trainer.checkpoint_every": 500})


@pytest.mark.slow
def test_it_follows_another_process_and_leaves_it_alone_when_it_is_ended(store: Path, tmp_path: Path) -> None:
    run, log, seen = tmp_path / "run", tmp_path / "log", tmp_path / "seen"
    watcher = start("watch", run, "--wait", log=seen)
    wait_until(lambda: "Waiting for the run" in seen.read_text(), watcher, seen)
    training = start("pretrain", "causal-lm", "--data", store, "--out", run, *SLOW, log=log)
    wait_until(lambda: seen.read_text().count("step ") >= 2, watcher, seen)
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(240) == 130
    assert "the run goes on" in seen.read_text()
    assert "Traceback" not in seen.read_text()
    at = last_step(run)
    wait_until(lambda: last_step(run) > at + 4, training, log)
    again = start("watch", run, log=tmp_path / "again")
    wait_until(lambda: "tokens/s" in (tmp_path / "again").read_text(), again, tmp_path / "again")
    training.send_signal(signal.SIGINT)
    training.wait(240)
    assert again.wait(240) == 0
    assert run_info(run)["status"] == "stopped"
    assert "Stopped at step" in (tmp_path / "again").read_text()


@pytest.mark.slow
def test_in_a_terminal_it_draws_and_ends_with_the_verdict(trained: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "headstart", "watch", str(trained)]
    terminal = environment() | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=terminal)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        drawn += part
    os.close(ours)
    assert process.wait(240) == 0
    told = drawn.decode()
    assert "╌" in told, "the plateau line"
    assert "━" in told, "the progress bar"
    assert "Done: 24 steps" in told


@pytest.mark.slow
def test_json_leaves_nothing_but_json_on_standard_output(tmp_path: Path) -> None:
    import json

    run = write_run(tmp_path / "run")
    done = headstart("watch", run, "--json")
    assert json.loads(done.stdout)["status"] == "done"
