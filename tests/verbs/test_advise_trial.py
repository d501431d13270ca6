"""The plan of a trial: equal FLOPs for all, training and measuring within its time, as many candidates and rungs as it holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from headstart.verbs._advise_candidates import Candidate, rounded_down
from headstart.verbs._advise_trial import (
    MEASURING_SHARE,
    ON_LABELS,
    Effort,
    Prices,
    Trial,
    beside,
    kept_of,
    measuring_s,
    minutes_for,
    plan,
    plan_again,
    plan_rungs,
    rungs_to,
    shortened,
)
from headstart.verbs._advise_verdict import GIVEN, RANDOM

FREE = Prices(True, 0.0)
FOUR = Effort(5, 4)


def planned(arms: list[Candidate], seconds: float, prices: Prices) -> Trial:
    """A plan, whose promise holds: training and measuring end within the time, whoever survives."""
    trial = plan(arms, seconds, prices)
    if trial.rungs:
        points = len(beside(trial.candidates, prices.labelled)) + sum(rung.measured for rung in trial.rungs)
        once = len(beside(trial.candidates, prices.labelled)) + len(trial.candidates)
        measuring = prices.measuring_s(trial.effort, points, once) + prices.curve_s(trial.effort)
        assert trial.measuring_s == pytest.approx(measuring)
        assert measuring <= MEASURING_SHARE * seconds
        assert trial.training_s + measuring <= seconds * 1.001
    return trial


def candidate(arm: str, flops: int = 100, seconds: float = 0.01, steps: int = 60_000, setup: float = 1.0) -> Candidate:
    return Candidate(
        arm, arm, "tiny", None, Path(arm), {}, {"train": flops}, {"train": seconds}, setup_s=setup, spans=[("train", steps)], affordable_flops=6e6
    )


def two_phases(arm: str) -> Candidate:
    """The first 300 steps cost half of the later ones, in FLOPs and in time."""
    spans = [("start", 300), ("joint", 30_150)]
    return Candidate(arm, arm, "tiny", None, Path(arm), {}, {"start": 100, "joint": 200}, {"start": 0.01, "joint": 0.02}, setup_s=1.0, spans=spans)


def late(arm: str, plateau_step: int, **more: float) -> Candidate:
    found = candidate(arm, **more)  # type: ignore[arg-type]
    found.plateau_step = plateau_step
    return found


# rungs


def test_all_arms_get_equal_flops_at_every_rung_whatever_their_steps_cost() -> None:
    arms = [candidate("cheap"), candidate("dear", flops=250, seconds=0.02, steps=24_000), two_phases("phases")]
    rungs = plan_rungs(arms, 120.0, FOUR, FREE)
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
    rungs = plan_rungs(arms, trial_s, FOUR, FREE)
    assert rungs
    assert sum(rung.seconds for rung in rungs) <= trial_s
    assert sum(rung.seconds for rung in rungs) > 0.9 * trial_s, "what there is, is used"
    slowest = sorted(arms, key=lambda arm: -arm.seconds_per_step["train"])
    worst, before = sum(arm.setup_s for arm in arms), dict.fromkeys((arm.arm for arm in arms), 0.0)
    for rung in rungs:
        for arm in slowest[: rung.measured]:
            until = arm.cost_until(rung.steps[arm.arm], arm.seconds_per_step)
            worst += until - before[arm.arm]
            before[arm.arm] = until
    assert worst <= trial_s, "also when the slowest survive"


def test_halves_leave_but_two_stay_to_the_end() -> None:
    assert [rung.measured for rung in rungs_to([candidate(f"arm{i}") for i in range(7)], 400_000.0, 4)] == [7, 4, 2, 2]
    assert [kept_of(n) for n in (1, 2, 3, 4, 9)] == [1, 2, 2, 2, 5]


def test_a_trial_that_is_spent_on_starting_the_runs_is_none() -> None:
    assert plan_rungs([candidate("a", setup=5.0), candidate("b", setup=5.0)], 12.0, FOUR, FREE) == []
    assert plan_rungs([candidate("a", setup=5.0), candidate("b", setup=5.0)], 60.0, FOUR, FREE)


def test_a_short_trial_has_fewer_rungs_never_a_rung_of_a_few_steps() -> None:
    rungs = plan_rungs([candidate("a", seconds=1.0, steps=600)], 60.0, FOUR, FREE)
    assert 0 < len(rungs) < 4
    assert rungs[0].steps["a"] >= 10


def test_a_trial_never_goes_beyond_the_full_run() -> None:
    assert plan_rungs([candidate("a", steps=200)], 3600.0, FOUR, FREE)[-1].steps["a"] <= 200


# plateaus


def test_who_leaves_its_plateau_late_joins_at_a_later_rung_and_costs_the_others_none() -> None:
    """ELECTRA beside a causal language model: 293 steps against 74."""
    arms = [late("early", 74), late("middle", 74), late("electra", 293)]
    rungs = plan_rungs(arms, 24.0, FOUR, FREE)
    assert len(rungs) == 4
    assert rungs[0].joins == ["early", "middle"]
    joined = next(number for number, rung in enumerate(rungs) if "electra" in rung.joins)
    assert joined > 0
    for number, rung in enumerate(rungs):
        assert (rung.steps["electra"] >= 293) == (number >= joined), "never measured on its plateau, and as soon as it is off"
    assert [rung.measured for rung in rungs][-1] >= 2
    first = rungs[joined].seconds - (rungs[joined].steps["electra"] * 0.01 + 1.0)
    assert first > 0, "its whole way there is in the plan, and that of those who stay"


def test_without_anybody_early_there_are_fewer_rungs_all_off_the_plateau() -> None:
    rungs = plan_rungs([late("late", 2500)], 60.0, FOUR, FREE)
    assert 0 < len(rungs) < 4
    assert rungs[0].joins == ["late"]
    assert rungs[0].steps["late"] >= 2500


def test_a_method_whose_plateau_is_longer_than_the_trial_leaves_the_time_to_the_others() -> None:
    slow = late("late", 9000)  # 90 s
    early = [candidate("a"), candidate("b")]
    trial = planned([slow, *early], 60.0, FREE)
    assert [c.arm for c in trial.candidates] == ["a", "b"]
    assert len(trial.rungs) == 4
    assert trial.late == [slow]
    needed = minutes_for([*early, slow], 5.0, 0.0, FREE)
    assert planned([slow, *early], 12 * needed, FREE).late == []
    assert planned([slow, *early], 12 * needed / 1.1, FREE).late == [slow]


# measuring


@pytest.mark.parametrize("seconds", [12.0, 36.0, 120.0, 360.0, 1200.0])
@pytest.mark.parametrize("a_score", [0.3, 2.0, 9.0])
def test_training_and_measuring_together_keep_the_time(seconds: float, a_score: float) -> None:
    trial = planned([late("a", 74), late("b", 74), late("electra", 293)], seconds, Prices(True, a_score, a_score / 10))
    if trial.rungs:
        assert trial.training_s + trial.measuring_s > 0.85 * seconds, "what there is, is used"
        assert trial.effort.splits >= 4, "an interval of three is twice as wide"
    else:
        assert seconds < 30 * a_score


def test_the_less_time_there_is_the_less_is_measured_and_splits_go_last() -> None:
    arms = [late("a", 74), late("b", 74)]
    found = [planned(arms, seconds, Prices(True, 2.0)).effort for seconds in (1200.0, 600.0, 300.0, 200.0, 150.0, 100.0, 80.0, 62.0)]
    order = [ON_LABELS.index(effort) for effort in found]
    assert order == sorted(order)
    assert found[0] == ON_LABELS[0]
    assert found[-1] == ON_LABELS[-1]
    assert all(effort.curve == 0 and effort.rates == 1 and effort.rungs == 1 for effort in found if effort.splits < 5)


def test_measuring_that_leaves_no_time_for_training_drops_a_candidate_before_it_gives_up() -> None:
    arms = [candidate("a", setup=0.5), late("b", 500, setup=0.5)]
    assert [c.arm for c in planned(arms, 60.0, Prices(True, 3.0)).candidates] == ["a"]
    assert planned(arms, 20.0, Prices(True, 3.0)).rungs == []


def test_without_labels_documents_give_way_and_splits_cost_nothing() -> None:
    prices = Prices(False, 0.01, 0.5)
    assert planned([candidate("a")], 600.0, prices).effort.documents == 1000
    short = planned([candidate("a")], 12.0, prices)
    assert short.rungs
    assert short.effort.documents < 1000
    assert short.effort.splits == 10
    assert prices.measuring_s(replace(short.effort, splits=1), 4, 1) == prices.measuring_s(short.effort, 4, 1)


def test_one_random_start_for_each_different_network_and_the_given_model_once() -> None:
    same, other = replace(candidate("a"), architecture="x"), replace(candidate("b"), architecture="x")
    third = replace(candidate("c"), architecture="y")
    assert [(kind, c.arm) for kind, c in beside([same, other, third], True)] == [(RANDOM, "a"), (RANDOM, "c")]
    mine = [replace(candidate(f"{arm}-continued"), architecture="z", init=Path("mine")) for arm in "ab"]
    assert [(kind, c.arm) for kind, c in beside([same, *mine], True)] == [(RANDOM, "a"), (RANDOM, "a-continued"), (GIVEN, "a-continued")]
    assert [kind for kind, _ in beside([same, *mine], False)] == [RANDOM, GIVEN], "without labels a given network has no random weights"
    twice = measuring_s(rungs_to([same, other], 4e5, 1), [same, other], Effort(5, 1), Prices(True, 1.0))
    assert twice == 15, "two candidates and one random start"


# larger budgets


def test_without_any_rung_all_candidates_remain_and_a_larger_budget_has_one() -> None:
    slow = candidate("slow", seconds=10.0, setup=1.0)
    trial = planned([slow], 20.0, FREE)
    assert (trial.candidates, trial.rungs, trial.late) == ([slow], [], [])
    assert planned([slow], 12 * minutes_for([slow], 20.0 / 12, 0.0, FREE), FREE).rungs


def test_the_minutes_that_would_do_pay_for_what_was_spent_before_too() -> None:
    arms = [candidate("a"), candidate("b")]
    without, after = (minutes_for(arms, 1.0, spent, Prices(True, 3.0)) for spent in (0.0, 60.0))
    assert after - without == pytest.approx(5.0, rel=0.5), "a minute is a fifth of five"


def test_a_slow_machine_shortens_the_next_rung_for_all_alike_or_ends_the_trial() -> None:
    arms = [candidate("a"), candidate("b", flops=200, seconds=0.02, steps=30_000)]
    rungs = rungs_to(arms, 400_000.0, 4)
    shorter = shortened(rungs[3], rungs[2], arms, 0.5)
    assert shorter is not None
    assert shorter.flops == pytest.approx(300_000)
    assert shorter.steps == {"a": 3000, "b": 1500}
    assert shortened(rungs[3], rungs[2], arms, 0.1) is None


@pytest.mark.parametrize("a_score", [1.0, 2.0, 8.0, 30.0])
def test_where_measuring_takes_longer_than_expected_the_rest_is_planned_again_within_what_is_left(a_score: float) -> None:
    arms = [late("a", 74, setup=0.5), late("b", 80, setup=0.5), late("electra", 293, setup=0.5)]
    expected = planned(arms, 60.0, Prices(True, 1.0))
    assert len(expected.candidates) == 3
    prices = Prices(True, a_score)
    once = len(beside(arms, True))
    left = 60.0 - prices.measuring_s(expected.effort, once, once)
    kept, rungs = plan_again(arms, left, expected.effort, prices)
    measured = sum(rung.measured for rung in rungs)
    assert kept, "a trial that was begun gives an answer"
    assert sum(len(rung.joins) for rung in rungs) == len(kept)
    cost = sum(rung.seconds for rung in rungs) + prices.measuring_s(expected.effort, measured, len(kept))
    if len(kept) > 1 or len(rungs) > 1 or cost <= left:
        assert cost <= left * 1.001
    else:
        assert (kept[0].arm, rungs[0].steps["a"]) in [("a", 74), ("a", 75)], "the soonest, as soon as it says something"
    assert (len(kept) < 3) == (a_score > 1.0)
    if len(kept) > 1:
        assert sum(rung.seconds for rung in rungs) >= (1 - MEASURING_SHARE) * left, "not all of it for measuring what has learned nothing"


def test_a_rung_is_never_shortened_onto_a_plateau() -> None:
    arms = [candidate("a"), late("late", 1900)]
    rungs = rungs_to(arms, 400_000.0, 4)
    assert rungs[2].joins == ["late"]
    assert shortened(rungs[2], rungs[1], arms, 0.5) is None
    assert shortened(rungs[2], rungs[1], arms[:1], 0.5) is not None


@pytest.mark.parametrize("flops", [2.3456e13, 2.3499e13, 9.999e8, 1000.0, 1001.0, 7.0, 0.0])
def test_the_budget_is_rounded_for_the_eye_and_never_upwards(flops: float) -> None:
    """Rounded to the nearest, a run took up to half a percent longer than promised."""
    rounded = rounded_down(flops)
    assert rounded <= flops <= rounded * 1.011
    assert rounded == float(f"{rounded:.3g}")
