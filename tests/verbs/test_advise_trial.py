"""The plan of a trial: equal FLOPs for all, within its time, as many rungs as it holds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from headstart.verbs._advise_candidates import Candidate
from headstart.verbs._advise_trial import kept_at, minutes_for, plan, plan_rungs, rungs_to, shortened


def candidate(arm: str, flops: int = 100, seconds: float = 0.01, steps: int = 60_000, setup: float = 1.0) -> Candidate:
    return Candidate(
        arm, arm, "tiny", None, Path(arm), {}, {"train": flops}, {"train": seconds}, setup_s=setup, spans=[("train", steps)], affordable_flops=6e6
    )


def two_phases(arm: str) -> Candidate:
    """The first 300 steps cost half of the later ones, in FLOPs and in time."""
    spans = [("start", 300), ("joint", 30_150)]
    return Candidate(arm, arm, "tiny", None, Path(arm), {}, {"start": 100, "joint": 200}, {"start": 0.01, "joint": 0.02}, setup_s=1.0, spans=spans)


def test_all_arms_get_equal_flops_at_every_rung_whatever_their_steps_cost() -> None:
    arms = [candidate("cheap"), candidate("dear", flops=250, seconds=0.02, steps=24_000), two_phases("phases")]
    rungs = plan_rungs(arms, 120.0)
    assert len(rungs) == 4
    for rung in rungs:
        for arm in arms:
            spent = arm.cost_until(rung.steps[arm.arm], arm.flops_per_step)
            assert spent <= rung.flops
            assert spent > rung.flops - max(arm.flops_per_step.values()), "to the step"
    assert [b.flops / a.flops for a, b in pairwise(rungs)] == pytest.approx([2, 2, 2])


@pytest.mark.parametrize("trial_s", [20.0, 120.0, 900.0])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_planned_time_is_the_trials_whoever_survives(trial_s: float, count: int) -> None:
    arms = [candidate(f"arm{i}", seconds=0.01 * (1 + i / 4), steps=600_000, setup=0.5) for i in range(count)]
    rungs = plan_rungs(arms, trial_s)
    assert rungs
    assert sum(rung.seconds for rung in rungs) <= trial_s
    assert sum(rung.seconds for rung in rungs) > 0.9 * trial_s, "what there is, is used"
    slowest = sorted(arms, key=lambda arm: -arm.seconds_per_step["train"])
    worst, before = sum(arm.setup_s for arm in arms), dict.fromkeys((arm.arm for arm in arms), 0.0)
    for number, rung in enumerate(rungs):
        for arm in slowest[: kept_at(number, count)]:
            until = arm.cost_until(rung.steps[arm.arm], arm.seconds_per_step)
            worst += until - before[arm.arm]
            before[arm.arm] = until
    assert worst <= trial_s, "also when the slowest survive"


def test_halves_leave_but_two_stay_to_the_end() -> None:
    assert [kept_at(rung, 7) for rung in range(4)] == [7, 4, 2, 2]
    assert [kept_at(rung, 3) for rung in range(4)] == [3, 2, 2, 2]
    assert [kept_at(rung, 1) for rung in range(4)] == [1, 1, 1, 1]


def test_a_trial_that_is_spent_on_starting_the_runs_is_none() -> None:
    assert plan_rungs([candidate("a", setup=5.0), candidate("b", setup=5.0)], 12.0) == []
    assert plan_rungs([candidate("a", setup=5.0), candidate("b", setup=5.0)], 60.0)


def test_a_short_trial_has_fewer_rungs_never_a_rung_of_a_few_steps() -> None:
    rungs = plan_rungs([candidate("a", seconds=1.0, steps=600)], 60.0)
    assert 0 < len(rungs) < 4
    assert rungs[0].steps["a"] >= 10


def test_no_rung_lies_on_a_plateau() -> None:
    """Eight rungs' worth of time, but the plateau takes most of it: fewer rungs, all of them past it."""
    late = candidate("late")
    late.plateau_step = 2500
    rungs = plan_rungs([candidate("early"), late], 120.0)
    assert 0 < len(rungs) < 4
    assert rungs[0].steps["late"] >= 2500


def test_a_method_whose_plateau_is_longer_than_the_trial_leaves_the_time_to_the_others() -> None:
    late = candidate("late")
    late.plateau_step = 9000  # 90 s
    early = [candidate("a"), candidate("b")]
    kept, rungs, left = plan([late, *early], 60.0)
    assert [c.arm for c in kept] == ["a", "b"]
    assert len(rungs) == 4
    assert left == [late]
    needed = minutes_for([*early, late], 5.0)
    assert plan([late, *early], 12 * needed)[2] == []
    assert plan([late, *early], 12 * needed / 1.25)[2] == [late]


def test_without_any_rung_all_candidates_remain_and_a_larger_budget_has_one() -> None:
    slow = candidate("slow", seconds=10.0, setup=1.0)
    assert plan([slow], 20.0) == ([slow], [], [])
    assert plan([slow], 12 * minutes_for([slow], 20.0 / 12))[1]


def test_a_trial_never_goes_beyond_the_full_run() -> None:
    rungs = plan_rungs([candidate("a", steps=200)], 3600.0)
    assert rungs[-1].steps["a"] <= 200


def test_a_slow_machine_shortens_the_next_rung_for_all_alike_or_ends_the_trial() -> None:
    arms = [candidate("a"), candidate("b", flops=200, seconds=0.02, steps=30_000)]
    rungs = rungs_to(arms, 400_000.0, 4)
    shorter = shortened(rungs[3], rungs[2], arms, 0.5)
    assert shorter is not None
    assert shorter.flops == pytest.approx(300_000)
    assert shorter.steps == {"a": 3000, "b": 1500}
    assert shortened(rungs[3], rungs[2], arms, 0.1) is None
