"""SPDF's claim: arms of equal tokens, one pre-training for two ways of fine-tuning, and shares of a gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.claims._claim import Comparison
from headstart.claims._committed import compared_words
from headstart.claims._result import compared, hold_back
from headstart.claims._run import claim
from headstart.claims.spdf import CLAIM, remarks, validity
from headstart.core.run import read_run
from headstart.interventions.spdf.export import tensors_of
from tests.claims.test_result import arm_runs


def test_the_networks_of_the_presets_are_those_of_the_specification() -> None:
    cpu, gpu = CLAIM.scale("cpu"), CLAIM.scale("gpu")
    assert [arm.name for arm in cpu.arms] == ["dense", "sparse50", "sparse75", "sparse75_kept", "sparse50_kept", "none", "small"]
    widths = {arm.name: arm.settings["method.hidden_size"] for arm in (*cpu.arms, *gpu.arms)}
    assert {arm.name: arm.settings["method.hidden_size"] for arm in cpu.arms if arm.name in ("dense", "small")} == {"dense": 128, "small": 80}
    assert (widths["dense"], widths["small"]) == (512, 304)
    assert cpu.settings["budget.steps"] * cpu.settings["batch"] * cpu.settings["method.sequence_length"] == pytest.approx(1.2e6, rel=1e-3)
    assert gpu.settings["budget.steps"] * gpu.settings["batch"] * gpu.settings["method.sequence_length"] == pytest.approx(9e6, rel=1e-3)
    longer = next(arm for arm in gpu.arms if arm.name == "sparse75_isoflop").settings["budget.steps"]
    assert longer == int(1099 * 2.4211)


def test_a_share_of_a_gain_is_compared() -> None:
    """Losses: none 2.5; dense 2.3; a network that keeps 90 % of the gain has 2.32, one that keeps half has 2.4."""
    comparison = Comparison("a", "b", base="none", share=0.8)
    noise = np.array([0.0, 0.001, -0.001])
    none, dense = arm_runs("none", list(2.5 + noise)).runs, arm_runs("b", list(2.3 + noise)).runs

    def keeping(loss: float) -> dict[str, Any]:
        return compared(CLAIM, comparison, arm_runs("a", list(loss + noise[::-1])).runs, dense, none)

    good = keeping(2.32)
    assert good["difference"] == pytest.approx(-0.02)
    assert good["verdict"] == "reproduced"
    assert keeping(2.4)["verdict"] == "not reproduced"
    assert compared_words({"comparisons": [good], "metric": "loss"}, good) == "gain of a over none - 80 % of what b gains over none"


def test_too_short_a_pre_training_decides_nothing() -> None:
    assert validity({"dense": {"e2e": 2.22}, "none": {"e2e": 2.35}}, None) == {}  # type: ignore[arg-type]
    reasons = validity({"dense": {"e2e": 2.32}, "none": {"e2e": 2.35}}, None)  # type: ignore[arg-type]
    assert list(reasons) == ["e2e"]
    assert "only 0.030 nats" in reasons["e2e"]


def test_a_task_without_a_gain_decides_nothing_about_another() -> None:
    """At preset gpu E2E decides, PubMedQA is shown beside: that nobody gained there is no reason against what E2E says, and the other way round."""
    for failing, other in (("pubmedqa", "e2e"), ("e2e", "pubmedqa")):
        reasons = validity({"dense": {failing: 2.32, other: 2.2}, "none": {failing: 2.35, other: 2.4}}, None)  # type: ignore[arg-type]
        made = [
            {"a": "sparse75", "b": "dense", "tasks": [task], "decides": task == "e2e", "verdict": "reproduced", "why": ""}
            for task in ("e2e", "pubmedqa")
        ]
        hold_back(CLAIM.comparisons_of(CLAIM.scale("gpu")), made, reasons)
        assert {comparison["tasks"][0]: comparison["verdict"] for comparison in made} == {failing: "inconclusive", other: "reproduced"}
        assert "only 0.030 nats" in next(comparison["why"] for comparison in made if comparison["tasks"] == [failing])


def test_the_share_that_is_kept_is_told_of_each_task_alone() -> None:
    one = {"dense": {"e2e": 2.2, "e2e: BLEU": 30.0}, "none": {"e2e": 2.4, "e2e: BLEU": 20.0}, "sparse75": {"e2e": 2.22, "e2e: BLEU": 29.0}}
    assert remarks(one) == ["Of the gain of dense pre-training over none (0.200 nats a token): sparse75 90 %."]
    two = {arm: {**figures, "pubmedqa": loss} for (arm, figures), loss in zip(one.items(), (1.0, 2.0, 1.5), strict=True)}
    assert [line.split(" none ")[1] for line in remarks(two)] == [
        "on e2e (0.200 nats a token): sparse75 90 %.",
        "on pubmedqa (1.000 nats a token): sparse75 50 %.",
    ]
    assert remarks({"dense": {"e2e": 2.5}, "none": {"e2e": 2.4}}) == []


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu")
    result = claim("spdf", "smoke", out=tmp_path / "claim", device="cpu", say=lambda line: None)
    arms = {arm["arm"]: arm for arm in result["arms"]}
    dense, quarter = (read_run(tmp_path / "claim" / "runs" / f"{name}-rate-0.003-seed-0") for name in ("dense", "sparse75"))
    assert dense["totals"]["tokens"] == quarter["totals"]["tokens"]
    assert quarter["totals"]["executed_flops"] == dense["totals"]["flops"]
    assert quarter["totals"]["flops"] < dense["totals"]["flops"]
    assert arms["sparse75"]["runs"][0]["train_flops"] == arms["sparse75_kept"]["runs"][0]["train_flops"] == quarter["totals"]["flops"]
    assert arms["sparse75"]["mean"] != arms["sparse75_kept"]["mean"]
    exported = [dict(tensors_of(tmp_path / "claim" / "runs" / run / "export")) for run in ("sparse75-rate-0.003-seed-0", "sparse75_kept-seed-0")]
    assert all(np.array_equal(exported[0][name], exported[1][name]) for name in exported[0])
    beside = arms["dense"]["runs"][0]["beside"]
    assert set(beside) == {"e2e: bits a byte", "e2e: bleu, greedy", "e2e: rouge_l, greedy", "e2e: slot_error, greedy"}
    assert result["verdict"] == "inconclusive"
