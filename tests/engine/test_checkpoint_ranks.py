"""Checkpoints of several processes: each writes its part; any number of processes reads them."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.checkpoint_ranks import run
from tests.running import torchrun

pytestmark = pytest.mark.slow


def on(world: int, task: str, folder: Path) -> dict[str, Any]:
    if world == 1:
        return run(task, folder)
    done = torchrun(world, "tests.engine.checkpoint_ranks", task, folder)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of one process, of two and of three, in folders of these names."""
    folder = tmp_path_factory.mktemp("saved")
    for world in (1, 2, 3):
        result = on(world, "save", folder / str(world))
        assert result["exported"] == list(range(world)) * 3
        assert result["kept"] == [4, 5]
        states = [f"state-{rank + 1:05d}.safetensors" for rank in range(world)]
        assert result["files"] == sorted([*states, "export", "manifest.json", "state.json"])
    return folder


@pytest.mark.promise("A run on one process continues on several and back: checkpoints are the same bit for bit, however many wrote or read them.")
@pytest.mark.parametrize(("wrote", "reads"), [(1, 2), (2, 1), (2, 2), (3, 2), (2, 3), (3, 1)])
def test_any_number_of_processes_reads_what_any_number_wrote(saved: Path, wrote: int, reads: int) -> None:
    """Dimensions that the number does not divide, shards without a row, every type, tied weights, plain and replicated tensors."""
    result = on(reads, "load", saved / str(wrote))
    assert [list(found) for found in result["found"]] == [[5, []]] * reads
    assert result["said"] == [[]] * reads


@pytest.mark.promise("Where one process finds the newest checkpoint damaged, all continue from the one before.")
def test_every_process_falls_back_to_the_same_checkpoint(saved: Path, tmp_path: Path) -> None:
    on(2, "save", tmp_path)
    file = tmp_path / "step-00000005" / "state-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    result = on(2, "load", tmp_path)
    assert result["found"] == [[4, []]] * 2
    assert [len(said) for said in result["said"]] == [1, 0], "the first process alone speaks"
    assert "state-00002.safetensors is not what was written. Falling back" in result["said"][0][0]


def test_a_disk_that_refuses_one_process_stops_all_of_them(tmp_path: Path) -> None:
    result = on(2, "full-disk", tmp_path)
    assert result == {"errors": [[errno.EFBIG, "state-00002.safetensors"]] * 2, "kept": [6], "hidden": []}


def test_an_export_that_fails_on_one_process_stops_all_of_them(tmp_path: Path) -> None:
    result = on(2, "failing-export", tmp_path)
    assert result == {"errors": [[13, "export"]] * 2, "kept": [10], "hidden": []}
