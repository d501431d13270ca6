"""Machine facts: limits of control groups count, and rates are in FLOP/s."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from headstart.core import hardware


def test_cores_are_at_most_those_of_the_affinity_mask() -> None:
    assert 1 <= hardware.cores() <= len(os.sched_getaffinity(0))


def test_a_narrower_affinity_mask_is_seen() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert hardware.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_peak_memory_is_the_programs_own_and_not_of_who_started_it() -> None:
    large = bytearray(300 << 20)  # zeros are not resident before they are written
    large[::4096] = b"\1" * len(large[::4096])
    assert (hardware.peak_resident_bytes() or 0) >= 300 << 20
    program = "from headstart.core import hardware; print(hardware.peak_resident_bytes())"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert 5 << 20 < int(found) < 200 << 20
    assert hardware.peak_resident_bytes(os.getpid()) == hardware.peak_resident_bytes()


@pytest.mark.parametrize(("content", "cores"), [("max 100000", None), ("150000 100000", 2), ("400000 100000", 4)])
def test_cpu_quota_of_a_version_2_group_is_rounded_up(tmp_path: Path, content: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(content + "\n")
    assert hardware._quota_v2(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", None), ("250000", 3)])
def test_cpu_quota_of_a_version_1_group_is_rounded_up(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    assert hardware._quota_v1(tmp_path) == cores


def test_a_group_without_quota_files_has_no_quota(tmp_path: Path) -> None:
    assert hardware._quota_v1(tmp_path) is None
    assert hardware._quota_v2(tmp_path) is None


def test_memory_is_at_most_the_machines() -> None:
    total, available = hardware.memory_total(), hardware.memory_available()
    assert total is not None
    assert available is not None
    assert 0 < available <= total <= psutil.virtual_memory().total


def test_how_much_memory_there_is_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers ask for every file: of ten thousand small ones that took four fifths of the time."""
    asked: list[None] = []
    answer = hardware._virtual_memory
    monkeypatch.setattr(hardware, "_virtual_memory", lambda: asked.append(None) or answer())
    assert len({hardware.memory_total() for _ in range(5)}) == 1
    assert len(asked) <= 1


def test_the_description_is_json_and_names_what_decides_speed() -> None:
    facts = json.loads(json.dumps(hardware.describe()))
    assert torch.__version__.split("+")[0] == facts["torch"].split("+")[0]  # the metadata may leave out the build
    assert facts["cores"] == hardware.cores()
    assert facts["cpu"]
    assert len(facts["devices"]) == torch.cuda.device_count()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_matmul_flops_is_in_flop_per_second(dtype: torch.dtype) -> None:
    rate = hardware.matmul_flops("cpu", dtype, seconds=0.05)
    assert 1e7 < rate < 1e15  # wide enough for any CPU under any load; a rate in GFLOP/s or in products per second falls out
