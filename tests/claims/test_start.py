"""A common start of several arms, and a gate that must hold before anything is decided."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headstart.claims._claim import Arm, Comparison
from headstart.claims._result import hold_back
from headstart.claims._run import claim
from tests.claims import fake
from tests.running import run_info, weight_files


@pytest.mark.slow
def test_pieces_of_work_are_counted_with_starts_of_starts(tmp_path: Path) -> None:
    begin = Arm("begin", "mlm", {"budget.flops": 3e8}, seeds=1, learning_rate=3e-3)
    middle = Arm("middle", "mlm", {"budget.flops": 3e8}, start=begin, learning_rate=3e-3)
    arms = (Arm("at_once", "mlm", trained=False, start=middle), Arm("later", "mlm", start=middle))
    said: list[str] = []
    claim(fake.with_scale(arms=arms, learning_rates=(1e-3,)), out=tmp_path, device="cpu", results=tmp_path / "results", say=said.append)
    pieces = [line.split("]")[0] for line in said if line.startswith("[")]
    assert pieces == [f"[{number} of {len(pieces)}" for number in range(1, len(pieces) + 1)]


@pytest.mark.slow
def test_a_start_with_one_seed_is_the_same_for_all(tmp_path: Path) -> None:
    begin = Arm("begin", "mlm", {"budget.flops": 3e8}, seeds=1, learning_rate=3e-3)
    arms = (Arm("further", "mlm", start=begin), Arm("at_once", "mlm", trained=False, start=begin))
    declared = fake.with_scale(arms=arms, learning_rates=(1e-3,))
    result = claim(declared, out=tmp_path, device="cpu", results=tmp_path / "results", say=lambda line: None)
    runs = tmp_path / "runs"
    assert sorted(path.name for path in runs.glob("begin-*")) == ["begin-rate-0.003-seed-0"]
    started = run_info(runs / "begin-rate-0.003-seed-0")
    assert started["config"]["optimizer"]["learning_rate"] == 3e-3
    for seed in (0, 1):
        further = run_info(runs / f"further-rate-0.001-seed-{seed}")
        assert further["config"]["init"] == str(runs / "begin-rate-0.003-seed-0")
        assert weight_files(runs / f"at_once-seed-{seed}") == weight_files(runs / "begin-rate-0.003-seed-0")
    by_name = {arm["arm"]: arm for arm in result["arms"]}
    spent = started["totals"]["flops"]
    assert [run["train_flops"] for run in by_name["at_once"]["runs"]] == [spent, spent]
    assert by_name["further"]["runs"][1]["train_flops"] == spent + run_info(runs / "further-rate-0.001-seed-1")["totals"]["flops"]
    metrics = [run["metric"] for run in by_name["at_once"]["runs"]]
    assert metrics[0] != metrics[1], "one model, but each seed has measurements of its own"


def verdicts(of_gate: str) -> list[dict[str, Any]]:
    declared = [Comparison("tuned", "random", decides=False, gate="weak start"), Comparison("new", "old"), Comparison("new", "random", decides=False)]
    found = [
        {"a": c.a, "b": c.b, "decides": c.decides, "verdict": verdict, "why": ""}
        for c, verdict in zip(declared, (of_gate, "reproduced", "not reproduced"), strict=True)
    ]
    hold_back(declared, found)
    return found


@pytest.mark.parametrize("of_gate", ["inconclusive", "not reproduced"])
def test_behind_a_closed_gate_nothing_is_decided(of_gate: str) -> None:
    gate, deciding, beside = verdicts(of_gate)
    assert (deciding["verdict"], deciding["why"]) == ("inconclusive", "weak start")
    assert (gate["verdict"], beside["verdict"]) == (of_gate, "not reproduced"), "what does not decide stays as it was measured"


def test_an_open_gate_changes_nothing() -> None:
    assert [found["verdict"] for found in verdicts("reproduced")] == ["reproduced", "reproduced", "not reproduced"]
