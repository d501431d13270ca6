"""A preparation that is killed before any of its changes of the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.corpus import documents, write_jsonl
from tests.running import environment

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
@pytest.mark.promise(
    "Killed before any single change that it makes on the disk (every one was tried), a preparation ends with the same bytes and leaves nothing else."
)
def test_killed_before_each_change_of_the_disk_a_preparation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [{"text": text} for text in documents(200)])
    with data.open("a", encoding="utf-8") as file:
        file.write("no JSON\n")  # so that there is a quarantine
    command = [sys.executable, "-m", "tests.data.text.killed_everywhere", str(data), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["different"] == {}
    changes = " ".join(found["killed"])
    for stage in ("plan.json", "parts/000000", "tokenizer.json", "tokens.npy", "quarantine.jsonl", "manifest.json", "rows/", "rmdir .work"):
        assert stage in changes, f"{stage} was never changed: {found['killed']}"
    assert not [name for name in found["files"] if ".tmp" in name or ".work" in name]
