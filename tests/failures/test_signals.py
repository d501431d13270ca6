"""A person or a system that ends a run or a preparation: twice, with the terminal, in the middle of a store."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.at import At, after, standing, stands
from tests.failures.faults import FIRST, checkpoints, command
from tests.running import assert_same_run, environment, flags, headstart, last_step, program, run_info, start


@pytest.mark.slow
@pytest.mark.promise(
    "Ctrl-C twice: the run ends at once, in the middle of a step, with exit 130; the same command continues from the last"
    " checkpoint."
)
def test_interrupted_twice(store: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    few = {"budget.steps": 6, "trainer.checkpoint_every": 2, "trainer.log_every": 1}
    # Before the line of step 4: its update is made, the step is not over.
    process = start(*command(store, run, **few), log=log, at=after(3, run, signal.SIGINT, signal.SIGINT, saved=2))
    assert process.wait(timeout=240) == 130, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text
    assert text.rstrip().endswith("The same command continues from the last checkpoint."), text
    assert (checkpoints(run), last_step(run)) == ([2], 3), "no new checkpoint: it stopped at once"
    assert run_info(run)["status"] == "stopped"
    done = headstart(*command(store, run, **few))
    assert done.returncode == 0, done.stderr
    assert "Continuing from step 2 of 6" in done.stdout
    assert last_step(run) == 6


@pytest.mark.slow
@pytest.mark.promise(
    "The terminal is closed (SIGHUP) while a run prints to it: the step is finished and a checkpoint written, as after SIGTERM;"
    " under nohup it goes on."
)
@pytest.mark.parametrize("nohup", [False, True])
def test_the_terminal_is_closed(nohup: bool, store: Path, undisturbed: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    ours, theirs = pty.openpty()
    held = program(*command(store, run), at=after(FIRST + 2, run, signal.SIGSTOP))
    hear = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # the tests themselves may run under nohup
    lead = "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    become_leader = f"import fcntl, os, signal, sys, termios; {hear}; {lead}; os.execvp(sys.argv[1], sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", become_leader, *(["nohup"] if nohup else []), *held],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), cwd=tmp_path,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    with log.open("ab") as shown:
        while not stands(process):  # somebody has to read, else it waits for room
            with suppress(OSError):  # nothing there; or nobody writes any more, since nohup prints to a file instead
                shown.write(os.read(ours, 1 << 16))
            time.sleep(0.001)
    with standing(process, log):
        os.close(ours)  # the window is gone
    if nohup:
        assert process.wait(timeout=240) == 0
    else:
        assert process.wait(timeout=240) == 130
        assert run_info(run)["status"] == "stopped"
        assert checkpoints(run) == [FIRST, FIRST + 5], "the step whose line it was about to write is finished"
        done = headstart(*command(store, run))
        assert done.returncode == 0, done.stderr
        assert f"Continuing from step {FIRST + 5}" in done.stdout
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise("Whoever reads what a run prints goes away (a pipe to head, a tee that was killed): the run goes on to its end.")
def test_the_reader_of_the_output_goes_away(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(program(*command(store, run)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=240) == 0
    assert process.stderr.read() == b""
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise(
    "Ctrl-C or SIGTERM while a store is built: exit 130 within a moment, no traceback; the same command goes on and"
    " writes the same bytes."
)
def test_a_signal_while_a_store_is_built(corpus: Path, store: Path, tmp_path: Path) -> None:
    mine, log = tmp_path / "store", tmp_path / "log"
    arguments = ["prepare", "mlm", "--data", corpus, "--out", mine, *flags({"text.vocab_size": 300, "text.held_out_share": 0.1})]
    process = start(*arguments, log=log, at=At((signal.SIGTERM,), "000000.*.tmp"))  # when the tokenizer is there, and no part of the store
    assert process.wait(timeout=240) == 130, log.read_text()
    assert log.read_text().endswith("headstart prepare: stopped.\nThe same command continues.\n")
    assert "Traceback" not in log.read_text()
    assert not (mine / "manifest.json").exists()
    done = headstart(*arguments)
    assert done.returncode == 0, done.stderr
    for path in (path for path in store.iterdir() if path.is_file() and not path.name.startswith(".")):
        assert (mine / path.name).read_bytes() == path.read_bytes(), path.name
