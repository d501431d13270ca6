"""A wall clock that is set forward and back by days while a run goes on (a machine that wakes up, a correction over the network)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.failures.faults import SETTINGS, command
from tests.running import assert_same_run, environment, flags, records, run_info

SOURCE = Path(__file__).with_name("jumping_clock.c")
PROMISE = (
    "The clock is set forward and back by days while a run goes on: no duration is negative or days long, no budget ends early,"
    " the bits are the same."
)


@pytest.fixture(scope="module")
def jumping(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the wall clock of a process jumps."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        pytest.skip("needs a C compiler (cc, gcc or clang; Debian: apt install gcc) to make a clock jump; none is on the PATH")
    library = tmp_path_factory.mktemp("clock") / "jumping_clock.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
    where = environment() | {"LD_PRELOAD": str(library)}
    code = "import time; a = [time.time() for _ in range(9) if not time.sleep(0.1)]; print(max(b - a for a, b in zip(a, a[1:])))"
    assert float(subprocess.check_output([sys.executable, "-c", code], env=where)) > 5 * 86400, "the clock jumps"
    return where


def run_with(where: dict[str, str], *arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, "-m", "headstart", *map(str, arguments)], env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.promise(PROMISE)
def test_a_run_under_a_jumping_clock(jumping: dict[str, str], store: Path, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_with(jumping, *command(store, run))
    walls = [line["wall_s"] for line in records(run, "metrics")]
    assert all(0 <= before <= after < 600 for before, after in pairwise(walls))
    assert all(0 <= line["data_wait_share"] <= 1 for line in records(run, "metrics"))
    assert all(line["tokens_per_second"] > 0 for line in records(run, "metrics")[1:])
    assert 0 < run_info(run)["totals"]["wall_s"] < 600
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise(PROMISE)
def test_a_budget_in_minutes_under_a_jumping_clock(jumping: dict[str, str], store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    minutes = {name: value for name, value in SETTINGS.items() if name != "budget.steps"} | {"budget.minutes": 0.05}
    arguments = ["pretrain", "causal-lm", "--data", store, "--out", run]
    run_with(jumping, *arguments, *flags(minutes))
    info = run_info(run)
    planned = info["decisions"]["total_steps"] * info["decisions"]["seconds_per_step"]["train"]
    assert 0.5 * 3 < planned < 1.5 * 3, "three seconds of steps as they were measured"
    assert info["totals"]["steps"] == info["decisions"]["total_steps"]
    assert 0 < info["totals"]["wall_s"] < 600
