"""A machine with too little: memory, open files, shared memory, processes that the system kills."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.at import after, standing
from tests.failures.faults import assert_told, checkpoints, command
from tests.failures.machine import small_disk
from tests.running import assert_same_run, environment, headstart, last_step, run_info, start, wait_until


def limited(limit: str, value: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line under a limit of the system (`ulimit`)."""
    set_it = f"import os, resource, sys; resource.setrlimit(resource.{limit}, ({value}, {value})); os.execv(sys.executable, sys.argv[1:])"
    program = [sys.executable, "-c", set_it, sys.executable, "-m", "headstart", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, env=environment(), timeout=240, check=False)


@pytest.mark.slow
@pytest.mark.promise(
    "Out of memory: exit 4, what a row holds, what is free, and the micro-batch that fits; with it the same command runs under the same limit."
)
def test_out_of_memory_says_what_fits(store: Path, tmp_path: Path) -> None:
    large = {
        "batch": 256, "budget.steps": 2, "method.hidden_size": 128, "method.num_layers": 4, "method.intermediate_size": 256,
        "method.sequence_length": 64,
    }  # fmt: skip
    asked = command(store, tmp_path / "run", **large, **{"trainer.micro_batch": 256})
    failed = limited("RLIMIT_DATA", 900 * 10**6, *asked)
    assert failed.returncode == 4, failed.stderr
    assert_told(failed.stderr, "Out of memory", "a micro-batch of 256 rows holds about 1.", "GiB", "MiB a row", "are free", "--preset")
    assert "--trainer.activation-checkpointing" in failed.stderr
    fits = re.search(r"Give --trainer.micro-batch (\d+) or", failed.stderr)
    assert fits is not None
    assert 4 <= int(fits[1]) < 256
    done = limited("RLIMIT_DATA", 900 * 10**6, *command(store, tmp_path / "run", **large, **{"trainer.micro_batch": int(fits[1])}))
    assert done.returncode == 0, done.stderr
    assert last_step(tmp_path / "run") == 2


@pytest.mark.slow
@pytest.mark.promise(
    "Memory runs out in the middle of a run: exit 4 with the same advice; the last checkpoint stays, and the same command"
    " continues from it."
)
def test_memory_runs_out_in_the_middle(store: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    large = {"batch": 2048, "trainer.micro_batch": 2048, "budget.steps": 9, "trainer.checkpoint_every": 2, "trainer.log_every": 1}
    process = start(*command(store, run, **large), log=log, at=after(2, run, signal.SIGSTOP, saved=2))  # saved beside the steps: 2, or a later one
    with standing(process, log):  # less than it has now: the next logits (63 MB, a mapping by themselves) are refused
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (400 * 10**6, 400 * 10**6))
    assert process.wait(timeout=240) == 4, log.read_text()
    assert_told(log.read_text(), "Out of memory", "a micro-batch of 2048 rows holds", "--trainer.activation-", "the same command continues")
    kept = checkpoints(run)[-1]
    assert 2 <= kept < 9
    assert run_info(run)["status"] == "failed"
    done = headstart(*command(store, run, **large))
    assert done.returncode == 0, done.stderr
    assert f"Continuing from step {kept} of 9" in done.stdout
    assert last_step(run) == 9


@pytest.mark.slow
@pytest.mark.promise(
    "The limit on open files is far too low: exit 4, the file and the limit to raise; a sound file is never called damaged,"
    " and the same command continues."
)
def test_too_few_open_files(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for files, words in ((12, "could not be read: Too many open files"), (18, "could not be written: Too many open files")):
        failed = limited("RLIMIT_NOFILE", files, *command(store, run))
        assert failed.returncode == 4, failed.stderr
        assert_told(failed.stderr, words, "ulimit -n")
        assert "amaged" not in failed.stderr + failed.stdout
        assert "elete" not in failed.stderr
    done = headstart(*command(store, run))
    assert done.returncode == 0, done.stderr
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise(
    "Shared memory (/dev/shm) is full or tiny, as in a container: a store is built and a run trained as usual; nothing of ours"
    " lies there."
)
def test_no_shared_memory(corpus: Path, tmp_path: Path) -> None:
    with small_disk(Path("/dev/shm"), 4) as shm:
        shm.fill()
        done = shm.headstart(*command(corpus, tmp_path / "run", **{"budget.steps": 4}))
        assert done.returncode == 0, done.stderr
    assert last_step(tmp_path / "run") == 4


@pytest.mark.slow
@pytest.mark.promise(
    "The system kills a process that helps to build a store, as it does when memory runs out: exit 4 and what to lower;"
    " the same command starts again."
)
def test_a_helper_of_the_preparation_is_killed(tmp_path: Path) -> None:
    """Only the built-in corpus has helpers: processes that read documentation. Other corpora are tokenised in threads."""
    out, log = tmp_path / "store", tmp_path / "log"
    arguments = ["prepare", "mlm", "--data", "builtin:python-docs", "--out", out, "--text.workers", "2", "--text.vocab-size", "300"]
    process = start(*arguments, log=log)

    def kill_one() -> bool:
        for child in psutil.Process(process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if "headstart.data.text.builtin" in child.cmdline():
                    child.kill()
                    return True
        return False

    wait_until(kill_one, process, log)
    assert process.wait(timeout=240) == 4, log.read_text()
    assert_told(log.read_text(), "was killed", "--text.workers 1", "the same command")
    assert not (out / "manifest.json").exists()
    assert not [child for child in psutil.process_iter(["ppid", "cmdline"]) if child.info["ppid"] == process.pid], "no helper is left"
