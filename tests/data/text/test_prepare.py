"""A preparation that is killed before any of its changes of the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import environment

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.promise(
    "Killed before any single change that it makes on the disk (every one was tried), a preparation ends with the same bytes and leaves nothing else."
)
def test_killed_before_each_change_of_the_disk_a_preparation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "tools.kill_everywhere", "prepare", "--result", str(result)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=500, check=False)
    assert result.exists(), done.stderr
    found = json.loads(result.read_text())
    assert found["different"] == {}
    assert done.returncode == 0
    before = " ".join(found["killed_before"])
    for stage in ("plan.json", "parts/000000", "tokenizer.json", "tokens.npy", "quarantine.jsonl", "manifest.json", "rows/", "rmdir store/.work"):
        assert stage in before, f"{stage} was never changed: {found['killed_before']}"
