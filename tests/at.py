"""Runs headstart and sends it a real signal at one exact moment of its work: whatever the speed of the machine, the fault comes at the same place.

    python -m tests.at '{"signals": [19], "run": "runs/x", "step": 100}' pretrain causal-lm --data ...

The process watches its own changes of the disk (Python's audit events, `tools.kill_at`), and before the one that the moment names it signals itself.
SIGSTOP makes it stand still until SIGCONT comes (`standing`), so that a test can break something meanwhile.
"""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.running import last_step
from tools.kill_at import path_of


@dataclass(frozen=True)
class At:
    """A moment: just before the `count`-th change (opened for writing, made, renamed, removed) of a path called `name`, a pattern of fnmatch, that
    comes when metrics.jsonl of `run` has a line of `step` or later. The signals go to the process itself, one after the other."""

    signals: tuple[int, ...]
    name: str = "metrics.jsonl"
    count: int = 1
    event: str = "*"
    """Of which kind the changes are, as Python's audit events name them: os.rename, for example."""
    run: str = ""
    step: int = 0
    saved: int = 0
    """There it waits, while its threads go on, until run.json names a checkpoint of this step or later: it is then whole, and all work on it done."""

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line that sends itself the signal."""
        return [sys.executable, "-m", "tests.at", json.dumps(asdict(self)), *map(str, arguments)]


def after(step: int, run: Path, *signals: int, saved: int = 0) -> At:
    """Before the first line of metrics.jsonl after the one of `step`."""
    return At(signals, run=str(run), step=step, saved=saved)


def watch(at: At) -> None:
    """From now on this process waits for the moment."""
    seen = 0
    info = Path(at.run) / "run.json"

    def hear(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        path = path_of(event, args)
        if path is None or seen >= at.count or not (fnmatch.fnmatch(path.name, at.name) and fnmatch.fnmatch(event, at.event)):
            return
        if at.step and last_step(Path(at.run)) < at.step:
            return
        seen += 1
        if seen == at.count:
            while at.saved and json.loads(info.read_text()).get("checkpoint", {}).get("step", 0) < at.saved:
                time.sleep(0.001)
            for number in at.signals:
                os.kill(os.getpid(), number)

    sys.addaudithook(hear)


def stands(process: subprocess.Popen[bytes], wait: bool = False) -> bool:
    """Whether the process stands still at its moment or has ended; `wait`: until it does."""
    return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)) is not None


@contextmanager
def standing(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Waits until the process stands still at its moment; after the block it goes on."""
    stands(process, wait=True)
    assert process.poll() is None, f"the process ended before its moment:\n{log.read_text()}"
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    from headstart.__main__ import run

    watch(At(**json.loads(sys.argv[1])))
    del sys.argv[1]
    sys.exit(run())
