"""Runs of tiny models: settings, real processes, and how two runs are compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
import pytest

if TYPE_CHECKING:
    from tests.at import At

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

TINY: dict[str, Any] = {
    "batch": 8,
    "device": "cpu",
    "precision": "fp32",
    "method.hidden_size": 32,
    "method.num_layers": 1,
    "method.num_heads": 2,
    "method.intermediate_size": 48,
    "method.sequence_length": 32,
    "text.vocab_size": 300,
    "trainer.log_every": 2,
    "trainer.evaluate_every": 6,
    "trainer.checkpoint_every": 6,
    "trainer.evaluate_rows": 16,
}
"""Settings of a run of a second. They hold for every method on text."""

METHODS = ("causal-lm", "mlm", "electra")

TIMES = {"wall_s", "tokens_per_second", "mfu", "data_wait_share"}
"""Fields of metrics.jsonl that a clock decides."""


def quiet(line: str) -> None:
    """What a verb says, unheard."""


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    found: list[str] = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        found += [flag] if value is True else [flag, str(value)]
    return found


def environment() -> dict[str, str]:
    """For a process of its own: finds headstart, and the programs of the tests (`tests.at`)."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (SOURCE, ROOT))), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def program(*arguments: str | Path, at: At | None = None) -> list[str]:
    """The command line; with `at` it sends itself a signal at that moment."""
    return [sys.executable, "-m", "headstart", *map(str, arguments)] if at is None else at.command(*arguments)


def headstart(
    *arguments: str | Path, cwd: Path | None = None, timeout: float = 300, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; `env` is added to the environment."""
    return subprocess.run(program(*arguments), capture_output=True, text=True, env=environment() | (env or {}), cwd=cwd, timeout=timeout, check=False)


def heed_interrupts() -> None:
    """In a child: Ctrl-C ends it, also where the tests run in the background of a shell that ignores it for them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def lacks(what: str) -> NoReturn:
    """Ends a test whose tool is missing: skipped, but failed in CI, where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def start(*arguments: str | Path, log: Path, cwd: Path | None = None, at: At | None = None) -> subprocess.Popen[bytes]:
    """The command line in a process that goes on; what it prints is added to `log`. With `at` it sends itself a signal at that moment."""
    with log.open("ab") as file:
        command = program(*arguments, at=at)
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(), cwd=cwd, preexec_fn=heed_interrupts)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, seconds: float = 240) -> None:
    """Returns as soon as `happened`; fails if the process ends before it."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, f"the process ended too early:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"it did not happen:\n{log.read_text()}"
        time.sleep(0.001)


def records(run: Path, name: str) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or probes.jsonl."""
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def last_step(run: Path) -> int:
    """The step of the newest whole line of metrics.jsonl, 0 before the first."""
    path = run / "metrics.jsonl"
    whole = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in whole if line.endswith("\n")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records without the fields that a clock decides."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def weight_files(run: Path) -> dict[str, bytes]:
    """Name -> bytes of every weight file of the export."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "export").rglob("*.safetensors"))}
    assert found
    return found


def run_info(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def files(folder: Path) -> set[str]:
    """Every file and empty folder under `folder`, relative."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() or not any(path.iterdir())}


def assert_same_run(run: Path, other: Path) -> None:
    """Metrics, probes, samples, weights, totals and the last checkpoint of a finished run are those of the other, bit for bit; and no trace is left
    of what stopped it."""
    for name in ("metrics", "probes", "samples"):
        assert untimed(records(run, name)) == untimed(records(other, name)), name
    assert weight_files(run) == weight_files(other)
    info, expected = run_info(run), run_info(other)
    assert info["status"] == "done"
    for total in ("steps", "tokens", "flops"):
        assert info["totals"][total] == expected["totals"][total]
    last = Path("checkpoints", f"step-{expected['totals']['steps']:08d}")
    states = sorted(path.name for path in (other / last).glob("*.safetensors"))
    assert states
    for name in states:
        assert (run / last / name).read_bytes() == (other / last / name).read_bytes(), name
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == [".lock"]
    assert not list((run / "checkpoints").glob(".*"))
    assert not {name for name in files(run) - files(other) if not name.startswith("tb/")}


def assert_same_however_killed(what: str, stages: Sequence[str], folder: Path) -> None:
    """`tools.kill_everywhere` of a preparation: killed before each of its changes of the disk, it ends with the same bytes and leaves nothing else.

    Args:
        stages: parts of names that must be among what it changed.
        folder: for the result.
    """
    result = folder / "result.json"
    command = [sys.executable, "-m", "tools.kill_everywhere", what, "--result", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=500, check=False)
    assert result.exists(), done.stderr
    found = json.loads(result.read_text())
    assert found["different"] == {}
    assert done.returncode == 0
    before = " ".join(found["killed_before"])
    for stage in stages:
        assert stage in before, f"{stage} was never changed: {found['killed_before']}"


def torchrun_command(processes: int, module: str, *arguments: str | Path, restarts: int = 0) -> list[str]:
    """A module in several processes that talk over gloo."""
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "--max-restarts", str(restarts)]
    return [*starter, "-m", module, *map(str, arguments)]


def torchrun(processes: int, module: str, *arguments: str | Path, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Several processes, until they end."""
    command = torchrun_command(processes, module, *arguments)
    return subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=cwd, timeout=timeout, check=False)


def start_torchrun(processes: int, *arguments: str | Path, log: Path, restarts: int = 0) -> subprocess.Popen[bytes]:
    """The command line in several processes that go on; what they print is added to `log`."""
    with log.open("ab") as file:
        command = torchrun_command(processes, "headstart", *arguments, restarts=restarts)
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment())


def process_of_rank(starter: subprocess.Popen[bytes], rank: int) -> psutil.Process:
    """The process of a rank among those that `starter` (torchrun) started."""
    return next(child for child in psutil.Process(starter.pid).children() if child.environ().get("RANK") == str(rank))
