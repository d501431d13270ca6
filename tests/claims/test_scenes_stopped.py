"""SIGTERM of a queue while several processes make scenes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.core.hardware import cores
from tests.running import environment

WORK = """
import signal
import numpy as np
from headstart.claims._scenes import make_scenes
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
    photographs = [np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)] * 2
    try:
        make_scenes(photographs, 0, range(200_000), 36, 0.5)
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.mark.slow
@pytest.mark.skipif(cores() == 1, reason="one process makes them all")
def test_a_stop_reaches_the_whole_group_and_one_process_ends_the_work(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, str(script)], stdout=file, stderr=file, env=environment(), process_group=0)
        while process.poll() is None and "making scenes" not in log.read_text():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
    text = log.read_text()
    assert "Traceback" not in text
    assert text.endswith("stopped\n")
