"""A preparation that is killed before any of its changes of the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import assert_same_however_killed


@pytest.mark.slow
@pytest.mark.promise(
    "Killed before any single change that it makes on the disk (every one was tried), a preparation ends with the same bytes and leaves nothing else."
)
def test_killed_before_each_change_of_the_disk_a_preparation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    stages = ("plan.json", "parts/000000", "tokenizer.json", "tokens.npy", "quarantine.jsonl", "manifest.json", "rows/", "rmdir store/.work")
    assert_same_however_killed("prepare", stages, tmp_path)
