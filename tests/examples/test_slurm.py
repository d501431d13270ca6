"""examples/slurm.sh with a queue of one machine: `srun` and `scontrol` are small programs here, torchrun and the run are real."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import SOURCE, TINY, environment, flags, run_info

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "slurm.sh"


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


REAL = f'exec {sys.executable} -m torch.distributed.run "$@"'


def job(folder: Path, *arguments: str | Path, torchrun: str = REAL) -> subprocess.CompletedProcess[str]:
    """The script as Slurm starts it on one node with two processes; what it asks of scontrol lands in asked.txt."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program(programs, "srun", 'exec "$@"')
    program(programs, "scontrol", f'echo "$@" >> {folder / "asked.txt"}; [ "$1" = show ] && echo localhost || true')
    program(programs, "torchrun", torchrun)
    slurm = {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "7"}
    place = environment() | slurm | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE)}
    return subprocess.run(["bash", SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=place, cwd=folder, timeout=300, check=False)


@pytest.mark.slow
def test_a_job_trains_and_is_not_queued_again(store: Path, tmp_path: Path) -> None:
    done = job(tmp_path, store, tmp_path / "run", "mlm", *flags(TINY), "--budget.steps", "4")
    assert done.returncode == 0, done.stderr
    info = run_info(tmp_path / "run")
    assert (info["status"], info["decisions"]["world"]) == ("done", 2)
    assert "requeue" not in (tmp_path / "asked.txt").read_text()


@pytest.mark.parametrize(("status", "queued"), [("stopped", True), ("failed", False)])
def test_a_stopped_job_is_queued_again_and_a_failed_one_is_not(status: str, queued: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(f'{{\n "status": "{status}"\n}}')
    done = job(tmp_path, "data", run, "mlm", torchrun="exit 1")
    assert done.returncode == 1
    assert ("requeue 7" in (tmp_path / "asked.txt").read_text()) is queued
