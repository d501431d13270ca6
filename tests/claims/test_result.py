"""From measurements to a result: equal FLOPs, failed guards, stuck downstream trainings, sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.claims._claim import Arm, Comparison, Guard, Model, Score
from headstart.claims._figure import draw
from headstart.claims._result import ArmRuns, SeedRun, assemble, compared, refuse_unequal
from headstart.core.errors import UsageError
from tests.claims.fake import CLAIM, open_data

STEP = 1e8


def seed_run(arm: Arm, value: float, seed: int = 0, flops: float = 1e11, passed: bool = True, stuck: str | None = None) -> SeedRun:
    model = Model(arm, seed, Path("nowhere"), 1e-3 if arm.trained else None, flops, 100, 1.0, STEP)
    guards = [Guard("AUC", 0.62, 0.7, passed)] if arm.trained else []
    return SeedRun(model, {"first": [Score(value, np.array([[value, 1.0], [value, 1.0]]), stuck)]}, guards)


def arm_runs(name: str, values: list[float], flops: float = 1e11, trained: bool = True, unequal: str = "", failed: int | None = None) -> ArmRuns:
    arm = Arm(name, "mlm", trained=trained, unequal=unequal)
    runs = [seed_run(arm, value, seed, flops if trained else 0.0, passed=seed != failed) for seed, value in enumerate(values)]
    return ArmRuns(arm, 1e-3, {"first": 1}, {}, runs)


def models(*arms: ArmRuns) -> list[Model]:
    return [run.model for arm in arms for run in arm.runs]


def test_unequal_training_flops_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"arms large \(seed 0\) and small \(seed 0\) had unequal training FLOPs, 1\.05e\+11 and 1e\+11"):
        refuse_unequal(models(arm_runs("small", [0.5]), arm_runs("large", [0.5], flops=1.05e11)))


def test_up_to_two_per_cent_or_one_step_are_equal() -> None:
    refuse_unequal(models(arm_runs("a", [0.5]), arm_runs("b", [0.5], flops=1.019e11)))
    with pytest.raises(UsageError):
        refuse_unequal(models(arm_runs("a", [0.5]), arm_runs("b", [0.5], flops=1.021e11)))
    few = 3 * STEP  # of a run of three steps one step is a third
    refuse_unequal(models(arm_runs("a", [0.5], flops=few), arm_runs("b", [0.5], flops=few + STEP)))
    with pytest.raises(UsageError):
        refuse_unequal(models(arm_runs("a", [0.5], flops=few), arm_runs("b", [0.5], flops=few + 1.1 * STEP)))


def test_every_seed_is_compared() -> None:
    uneven = [*models(arm_runs("a", [0.5, 0.5])), seed_run(Arm("b", "mlm"), 0.5).model, seed_run(Arm("b", "mlm"), 0.5, seed=1, flops=2e11).model]
    with pytest.raises(UsageError, match=r"b \(seed 1\)"):
        refuse_unequal(uneven)


def test_an_untrained_arm_and_a_stated_reason_are_exempt() -> None:
    exempt = (arm_runs("none", [0.5], trained=False), arm_runs("b", [0.5], flops=9e11, unequal="equal steps"))
    refuse_unequal(models(*exempt))
    refuse_unequal(models(arm_runs("a", [0.5]), *exempt))


def comparison(a: ArmRuns, b: ArmRuns, margin: float = 0.0) -> dict[str, object]:
    return compared(CLAIM, Comparison(a.arm.name, b.arm.name, margin=margin), a.runs, b.runs)


def test_a_clear_difference_is_reproduced_and_its_mirror_is_not() -> None:
    high, low = arm_runs("high", [0.90, 0.92, 0.91]), arm_runs("low", [0.80, 0.81, 0.805])
    assert comparison(high, low)["verdict"] == "reproduced"
    assert comparison(low, high)["verdict"] == "not reproduced"


def test_the_inconclusive_names_what_could_have_been_found() -> None:
    """Differences .02 -.01 .03: standard error .012019, 5.36331 of it."""
    found = comparison(arm_runs("a", [0.52, 0.49, 0.53]), arm_runs("b", [0.5, 0.5, 0.5]))
    assert found["verdict"] == "inconclusive"
    assert found["detectable"] == pytest.approx(0.06446, abs=1e-4)
    assert found["why"] == "with 3 seeds a difference of 6.4 points would be found in 80 % of such experiments"


@pytest.mark.parametrize(
    ("failed", "expected"), [([0.0, 0.5, 0.0], "reproduced"), ([0.5, 0.5, 0.0], "inconclusive"), ([0.5, 1.0, 0.0], "not reproduced")]
)
def test_cases_are_counted_over_all_seeds(failed: list[float], expected: str) -> None:
    """Two cases a seed: one failure of six is allowed, three refute."""
    found = compared(CLAIM, Comparison("a", "goal", cases=(1 / 6, 3 / 6)), arm_runs("a", failed).runs, arm_runs("goal", [0.0] * 3).runs)
    assert found["verdict"] == expected
    assert found["why"] == f"it fails in {100 * sum(failed) / 3:.0f} % of the cases"
    alone = compared(CLAIM, Comparison("a", "goal", cases=(1 / 6, 3 / 6)), arm_runs("a", [0.0]).runs, arm_runs("goal", [0.0]).runs)
    assert alone["verdict"] == "inconclusive"


def test_a_failed_guard_of_one_seed_makes_a_clear_difference_inconclusive() -> None:
    found = comparison(arm_runs("high", [0.90, 0.92, 0.91], failed=1), arm_runs("low", [0.80, 0.81, 0.805]))
    assert found["verdict"] == "inconclusive"
    assert found["why"] == "budget too small: high, seed 1: AUC 0.620, limit 0.700"


def test_a_guard_of_an_arm_that_is_not_compared_does_not_matter() -> None:
    arms = [arm_runs("causal", [0.9, 0.92, 0.91]), arm_runs("masked", [0.8, 0.81, 0.805]), arm_runs("none", [0.1, 0.1, 0.1], trained=False)]
    assert comparison(arms[1], arms[2])["verdict"] == "reproduced"


def test_a_downstream_training_that_says_one_thing_is_named_and_decides() -> None:
    good, bad = Arm("good", "mlm"), Arm("bad", "mlm")
    a = [seed_run(good, value, seed) for seed, value in enumerate([0.9, 0.92, 0.91])]
    b = [seed_run(bad, 0.5, seed, stuck="it says 'x' for every record" if seed == 2 else None) for seed in range(3)]
    found = compared(CLAIM, Comparison("good", "bad"), a, b)
    assert found["verdict"] == "inconclusive"
    assert found["why"] == "budget too small: bad, seed 2: first is stuck, it says 'x' for every record"
    untrained = [seed_run(Arm("none", "mlm", trained=False), 0.5, seed, stuck="it says 'x'") for seed in range(3)]
    assert compared(CLAIM, Comparison("good", "none"), a, untrained)["verdict"] == "reproduced", "a random start may well be stuck"


def test_arms_of_different_numbers_of_seeds_are_paired_over_the_common_ones() -> None:
    found = comparison(arm_runs("a", [0.6, 0.6, 0.1]), arm_runs("b", [0.5, 0.5]))
    assert (found["seeds"], found["difference"]) == (2, pytest.approx(0.1))


def test_too_few_seeds_decide_nothing(tmp_path: Path) -> None:
    result, said = result_of(tmp_path, [0.9, 0.92], [0.8, 0.81])
    assert result["verdict"] == "inconclusive"
    assert said[-1] == "Inconclusive: the claim of fake at preset cpu: causal minus masked +10.5 points (2 seeds decide nothing)."


def result_of(tmp_path: Path, causal: list[float], masked: list[float], whole: bool = True) -> tuple[dict[str, object], list[str]]:
    said: list[str] = []
    scale = CLAIM.presets["cpu"]
    data = open_data(scale, tmp_path)
    arms = [arm_runs("causal", causal), arm_runs("masked", masked), arm_runs("none", [0.2] * len(masked), trained=False)]
    untested = type(data)(data.facts, data.corpora, (), data.files, data.leaks, data.anchors)
    return assemble(CLAIM, "cpu", scale, untested, arms, whole, "cpu", said.append), said


def test_the_last_line_is_the_verdict_in_plain_words(tmp_path: Path) -> None:
    _, said = result_of(tmp_path, [0.90, 0.92, 0.91], [0.80, 0.81, 0.805])
    assert said[-1] == (
        "Reproduced: the claim of fake at preset cpu: causal minus masked +10.5 points (95 % interval +9.3 to +11.7, 3 seeds)."
    )
    _, partial = result_of(tmp_path, [0.9, 0.92], [0.8, 0.81], whole=False)
    assert partial[-1].startswith("No verdict on the claim of fake at preset cpu yet, only a part was run: ")


def test_the_result_has_the_fields_of_the_design(tmp_path: Path) -> None:
    result, _ = result_of(tmp_path, [0.90, 0.92, 0.91], [0.80, 0.81, 0.805])
    design = {"slug", "preset", "claim", "metric", "higher_is_better", "paper", "data", "arms", "comparisons", "hardware", "versions", "commit"}
    assert design | {"command", "date", "kind", "format_version"} <= result.keys()
    first = result["arms"][0]["runs"][0]  # type: ignore[index]
    assert {"seed": 0, "metric": 0.9, "train_flops": 1e11, "tokens": 100, "wall_s": 1.0}.items() <= first.items()
    deciding = result["comparisons"][0]  # type: ignore[index]
    assert {"a", "b", "paired_by", "difference", "ci95", "verdict"} <= deciding.keys()
    assert deciding["ci95_items"] == pytest.approx([0.105, 0.105], abs=1e-9), "both items of both arms differ by as much"


def test_the_figure_is_readable_svg_and_the_same_each_time(tmp_path: Path) -> None:
    result, _ = result_of(tmp_path, [0.90, 0.92, 0.91], [0.80, 0.81, 0.805])
    figure = draw(result)
    text = figure.decode()
    assert figure == draw(result)
    for words in ("fake, preset cpu: reproduced", "causal − masked", "+10.5 points  reproduced", "none"):
        assert f">{words}<" in text, "text stays text: it can be read aloud, searched and scaled"
    assert "fill: #ffffff" in text or "fill: white" in text
