"""The minutes of a lent GPU: a part that hangs or fails costs itself alone, and what is left is told."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from headstart.claims import claim_names
from headstart.core.files import write_json
from tools.gpu_day import LEAST, Day, claims, environment, lines


def day_of(out: Path, seconds: float) -> Day:
    return Day(out, seconds, "cpu", trying=True, work=out, env=dict(os.environ))


def test_a_part_that_hangs_is_ended_with_its_children_and_the_next_one_runs(tmp_path: Path) -> None:
    day, mark = day_of(tmp_path, 60), tmp_path / "child"
    child = f"import time, pathlib; at = pathlib.Path({str(mark)!r}); at.with_suffix('.begun').touch(); time.sleep(6); at.touch()"
    assert not day.call("hangs", "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])", limit=3)
    assert mark.with_suffix(".begun").exists(), "the machine is too busy to tell"
    assert not day.call("fails", "-c", "raise SystemExit(3)")
    assert day.call("works", "-c", "pass")
    time.sleep(6)
    assert not mark.exists()
    outcomes = {name: part["outcome"] for name, part in json.loads((tmp_path / "day.json").read_text())["parts"].items()}
    assert outcomes == {"hangs": "ended after 3 s", "fails": "exit 3", "works": "exit 0"}


def test_nothing_begins_when_the_day_is_over(tmp_path: Path) -> None:
    day = day_of(tmp_path, LEAST - 1)
    assert not day.call("late", "-c", "raise AssertionError")
    assert day.parts["late"]["outcome"] == "the time was over"


def test_a_second_call_into_the_same_folder_keeps_the_parts_of_the_first(tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert day_of(tmp_path, 60).call(name, "-c", "pass")
    assert list(json.loads((tmp_path / "day.json").read_text())["parts"]) == ["first", "second"]


def test_the_last_lines_hold_the_figures_and_the_reasons(tmp_path: Path) -> None:
    day = day_of(tmp_path, 60)
    write_json(tmp_path / "gpu.json", {"figures": {"tiny": {"device_share": 0.9, "graph": {}}}, "left_out": {"mae-base: ours": "out of memory"}})
    checks = {"guard": {"passed": False, "seconds": 1.0, "error": "it waited"}, "draws": {"passed": True, "seconds": 0.1}}
    write_json(tmp_path / "cuda_check.json", {"checks": checks})
    assert list(lines(day)) == [], "of an earlier call"
    day.parts = {name: {"outcome": "exit 0", "seconds": 1.0} for name in ("bench", "check")}
    text = "\n".join(lines(day))
    assert '{"device_share": 0.9}' in text
    assert "left out: mae-base: ours: out of memory" in text
    assert "FAIL guard (1.0 s) it waited" in text


def test_the_claims_are_those_of_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert claims() == claim_names()
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    assert environment(tmp_path)["PYTHONPATH"].endswith(str(tmp_path))
