"""Committed results in words: a comparison says over which tasks it is, where those of a claim differ."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.claims._committed import compared_words, measures, of_seeds, verdict_words
from headstart.claims._figure import draw
from headstart.claims._result import lines
from headstart.cli.show import _result
from headstart.report.evidence import read_evidence
from tools.pages.claims import claims_block
from tools.pages.methods import result_table


def comparison(tasks: list[str], difference: float) -> dict[str, Any]:
    return {
        "a": "droppos", "b": "mae", "tasks": tasks, "seeds": 2, "difference": difference, "ci95": None, "ci95_items": None,
        "decides": tasks == ["labels"], "verdict": "inconclusive", "why": "",
    }  # fmt: skip


def result_of(*comparisons: dict[str, Any]) -> dict[str, Any]:
    """Two arms, two seeds, two tasks, the second measured twice."""

    def arm(name: str, labels: tuple[float, float], mirrored: tuple[tuple[float, float], tuple[float, float]]) -> dict[str, Any]:
        seeds = [
            {
                "seed": seed, "metric": (one + sum(two) / 2) / 2, "train_flops": 1e12, "tokens": 9, "wall_s": 1.0, "beside": {},
                "tasks": {"labels": [one], "mirrored": list(two)},
            }
            for seed, (one, two) in enumerate(zip(labels, mirrored, strict=True))
        ]  # fmt: skip
        return {"arm": name, "method": name, "learning_rate": 1e-3, "mean": sum(run["metric"] for run in seeds) / 2, "runs": seeds}

    return {
        "kind": "claim", "slug": "droppos", "preset": "cpu", "claim": "It is.", "metric": "AUC; beside it accuracy", "percent": True,
        "paper": {"value": "84.2", "statement": ""}, "data": {"name": "xray"}, "comparisons": list(comparisons), "verdict": "inconclusive",
        "arms": [arm("droppos", (0.9, 0.94), ((0.6, 0.7), (0.7, 0.8))), arm("mae", (0.9, 0.9), ((0.8, 0.8), (0.8, 0.8)))],
        "anchors": {}, "notes": [], "leaks": [], "sentence": "Inconclusive.", "hardware": "2 cores", "date": "2026-01-02",
        "command": "headstart claim droppos",
    }  # fmt: skip


MIXED = result_of(comparison(["labels"], 0.02), comparison(["mirrored"], -0.1))
ALIKE = result_of(comparison(["labels", "mirrored"], 0.02))


def test_each_measure_has_its_own_mean_over_repeats_and_tasks() -> None:
    assert measures(MIXED) == {"labels": ("labels",), "mirrored": ("mirrored",)}
    assert of_seeds(MIXED["arms"][0], ("mirrored",)) == pytest.approx([0.65, 0.75])
    assert of_seeds(MIXED["arms"][0], ("labels", "mirrored")) == pytest.approx([0.775, 0.845])
    assert of_seeds(MIXED["arms"][0], ("labels", "depth")) == [], "no figure stands for what was not measured"


def test_comparisons_over_the_same_tasks_name_the_arms_alone() -> None:
    assert measures(ALIKE) == {"AUC; beside it accuracy": ()}
    assert compared_words(ALIKE, ALIKE["comparisons"][0]) == "droppos - mae"
    assert of_seeds(ALIKE["arms"][0]) == [run["metric"] for run in ALIKE["arms"][0]["runs"]]


def test_what_the_command_prints_tells_two_comparisons_of_the_same_arms_apart() -> None:
    told = lines(MIXED)
    assert told[1] == "AUC; beside it accuracy:"
    assert told[2].split()[:3] == ["arm", "labels", "mirrored"]
    assert "92.0 % (90.0 %, 94.0 %)  70.0 % (65.0 %, 75.0 %)" in told[3]
    assert told[6].startswith("droppos - mae on labels: +2.0 points")
    assert told[7].startswith("droppos - mae on mirrored: -10.0 points")


def test_an_arm_that_a_task_cannot_be_asked_of_has_a_dash_and_no_row(tmp_path: Path) -> None:
    """"depth" is measured on droppos alone."""
    result = result_of(comparison(["labels"], 0.02), comparison(["depth"], 0.1))
    for run in result["arms"][0]["runs"]:
        run["tasks"]["depth"] = [0.5]
    assert lines(result)[4].split()[:8] == ["mae", "90.0", "%", "(90.0", "%,", "90.0", "%)", "-"]
    assert "| mae | 90.0 %, 90.0 % to 90.0 % | - | 1e+12 | 2 |" in result_table(result)
    assert "    on depth: droppos 50.0 %" in _result(result)
    drawn = draw(result).decode()
    assert ">droppos on depth<" in drawn
    assert ">mae on depth<" not in drawn
    file = tmp_path / "droppos-cpu.json"
    file.write_text(json.dumps(result))
    found = read_evidence(file, "a")
    assert found is not None
    assert [arm.name for arm in found.arms] == ["droppos on labels", "mae on labels", "droppos on depth"]


def test_pages_and_lists_tell_them_apart(tmp_path: Path) -> None:
    (tmp_path / "droppos-cpu.json").write_text(json.dumps(MIXED))
    row = claims_block(tmp_path).splitlines()[2]
    assert row.startswith("| [droppos](methods/droppos.md#does-the-claim-hold), cpu | AUC; beside it accuracy | droppos - mae on labels: +2.0 points")
    assert "mirrored" not in row
    page = result_table(MIXED)
    assert "| arm | labels | mirrored | training FLOPs | seeds |" in page
    assert "| droppos | 92.0 %, 90.0 % to 94.0 % | 70.0 %, 65.0 % to 75.0 % | 1e+12 | 2 |" in page
    assert "- droppos - mae on mirrored: -10.0 points" in page
    assert verdict_words(MIXED).startswith("cpu: inconclusive, droppos - mae on labels +2.0 points")
    shown = _result(MIXED)
    assert "    on mirrored: droppos 70.0 %, mae 80.0 %" in shown
    assert any("droppos minus mae on labels: +2.0 points" in line for line in shown)


def test_the_figure_has_a_row_for_each_arm_and_measure() -> None:
    text = draw(MIXED).decode()
    for words in ("droppos on labels", "mae on mirrored", "droppos − mae on mirrored"):
        assert f">{words}<" in text


def test_the_report_has_a_figure_for_each_arm_and_measure(tmp_path: Path) -> None:
    file = tmp_path / "droppos-cpu.json"
    file.write_text(json.dumps(MIXED))
    found = read_evidence(file, "a")
    assert found is not None
    assert [arm.name for arm in found.arms] == ["droppos on labels", "mae on labels", "droppos on mirrored", "mae on mirrored"]
    assert found.arms[2].values == pytest.approx([0.65, 0.75])
    reached = [(one.unit, one.reached) for one in found.findings]
    assert reached == [("points of labels", pytest.approx(0.92)), ("points of mirrored", pytest.approx(0.7))]
