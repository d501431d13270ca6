"""What a power cut would take: whatever lies only in the page cache. The kernel tells how much of a file that is (cachestat, Linux 6.5 and later)."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import pytest

from tests.running import TINY, flags, headstart

CACHESTAT = 451  # the number of the system call, the same on every 64-bit machine


def dirty_pages(path: Path) -> int:
    """Pages of the file that are not on the disk yet.

    Raises:
        OSError: this kernel does not tell.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        whole, found = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()  # (offset, length or 0); cached, dirty, writeback, evicted, recently
        if ctypes.CDLL(None, use_errno=True).syscall(CACHESTAT, descriptor, whole, found, 0):
            raise OSError(ctypes.get_errno(), "cachestat")
        return int(found[1] + found[2])
    finally:
        os.close(descriptor)


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """A file that nobody flushed. The test means something only where the kernel says so."""
    path = tmp_path / "control"
    path.write_bytes(b"x" * 100_000)
    try:
        if not dirty_pages(path):
            pytest.skip("the temporary folder lies in memory (tmpfs), where nothing waits for a disk: set TMPDIR to a folder on one")
    except OSError:
        pytest.skip(f"needs Linux 6.5 or newer, whose cachestat tells what is not on the disk yet; this is {platform.release()}")
    return path


@pytest.mark.slow
@pytest.mark.promise("A power cut after a run said that it is done takes nothing: store, checkpoints, metrics and export are on the disk.")
def test_when_a_run_is_done_all_of_it_is_on_the_disk(corpus: Path, control: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = headstart("pretrain", "electra", "--data", corpus, "--out", work / "run", *flags({**TINY, "budget.steps": 24}))
    assert done.returncode == 0, done.stderr
    files = [path for path in work.rglob("*") if path.is_file() and "tb" not in path.parts and path.stat().st_size]
    assert {"tokens.npy", "ids.npy", "metrics.jsonl", "samples.jsonl", "model.safetensors", "run.json"} <= {path.name for path in files}
    assert [str(path.relative_to(work)) for path in files if dirty_pages(path)] == []
