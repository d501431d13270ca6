"""The run of these tests, a fault in the middle of it, and what must hold afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.running import TINY, flags

STEPS = 300
FIRST = 100
"""The step of the first checkpoint, of three."""
SETTINGS: dict[str, Any] = {
    **TINY,
    "budget.steps": STEPS,
    "trainer.micro_batch": 8,
    "trainer.log_every": 3,
    "trainer.checkpoint_every": FIRST,
    "trainer.evaluate_every": FIRST,
    "trainer.evaluate_rows": 8,
}
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""Before a command: as root it then gives up root's right to pass over permissions; any other user has none."""


def command(data: Path, out: Path, **settings: Any) -> list[str | Path]:
    """The command line of the run: causal-lm, `STEPS` steps, a checkpoint every `FIRST`."""
    return ["pretrain", "causal-lm", "--data", data, "--out", out, *flags({**SETTINGS, **settings})]


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
