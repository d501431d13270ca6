"""The run of these tests, a fault in the middle of it, and what must hold afterwards."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.running import TINY, files, flags, last_step, records, run_info, untimed, wait_until, weight_files

STEPS = 300
FIRST = 100
"""The step of the first checkpoint, of three. It is a third of a second to the next: time enough to put a fault between them."""
SETTINGS: dict[str, Any] = {
    **TINY,
    "budget.steps": STEPS,
    "trainer.micro_batch": 8,
    "trainer.log_every": 3,
    "trainer.checkpoint_every": FIRST,
    "trainer.evaluate_every": FIRST,
    "trainer.evaluate_rows": 8,
}


def command(data: Path, out: Path, **settings: Any) -> list[str | Path]:
    """The command line of the run: causal-lm, `STEPS` steps, a checkpoint every `FIRST`."""
    return ["pretrain", "causal-lm", "--data", data, "--out", out, *flags({**SETTINGS, **settings})]


@contextmanager
def held(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The process stands still while the block works."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def reach(run: Path, process: subprocess.Popen[bytes], log: Path, step: int = FIRST + 2) -> None:
    """Waits until the run has logged this step and its checkpoints until then are whole."""

    def there() -> bool:
        return last_step(run) >= step and not any((run / "checkpoints").glob(".writing-*"))

    wait_until(there, process, log)


def checkpoints(run: Path) -> list[int]:
    """The steps of the checkpoints under their final names."""
    return sorted(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))


def assert_told(text: str, *words: str) -> None:
    """The end of what was printed is our error: two lines with these words, and no traceback."""
    assert "Traceback" not in text
    assert "bug" not in text
    last = text.rstrip().splitlines()[-2:]
    assert last[0].startswith("headstart "), text
    for word in words:
        assert word in " ".join(last), text


def assert_same(run: Path, other: Path) -> None:
    """Metrics, probes, samples, weights and the last checkpoint, bit for bit; and no trace of what went wrong."""
    for name in ("metrics", "probes", "samples"):
        assert untimed(records(run, name)) == untimed(records(other, name)), name
    assert weight_files(run) == weight_files(other)
    last = Path("checkpoints", f"step-{STEPS:08d}")
    states = sorted(path.name for path in (other / last).glob("*.safetensors"))
    assert states
    for name in states:
        assert (run / last / name).read_bytes() == (other / last / name).read_bytes()
    assert run_info(run)["status"] == "done"
    strange = {name for name in files(run) - files(other) if not name.startswith("tb/")}
    assert not strange
