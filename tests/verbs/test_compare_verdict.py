"""Equal compute, verdicts and plans of `compare`, by hand: no network is trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.verbs._compare_arms import Arm, Export, Source
from headstart.verbs._compare_measure import Values
from headstart.verbs._compare_plan import Need, curve_counts, make_plan
from headstart.verbs._compare_verdict import at_equal_compute, compare_values, conclude, interval_of, judged, read


def arm(name: str, *flops: float | None, kind: str = "run", seeds: tuple[int, ...] = (0,)) -> Arm:
    """An arm with an export at each of these FLOPs (and as many seconds)."""
    exports = [Export(Path(name), i, spent, spent, i == len(flops) - 1) for i, spent in enumerate(flops)]
    return Arm(name, kind, [Source(Path(f"{name}-{seed}"), {"seed": seed} if kind == "run" else None, exports) for seed in seeds])


START = arm("random start", 0.0, kind="random")


# equal compute


def test_runs_of_equal_flops_are_read_as_they_ended() -> None:
    equal, readings = at_equal_compute([arm("a", 50.0, 100.0), arm("b", 101.0), START])
    assert equal is not None
    assert (equal["equal"], equal["how"], equal["flops"]) == (True, "as the runs ended", 100.0)
    assert [reading.parts for reading in readings] == [((-1, 1.0),)] * 3
    assert "within 1.0 %" in equal["sentence"]


def test_the_longer_run_is_read_at_the_checkpoint_where_it_had_had_as_much() -> None:
    equal, readings = at_equal_compute([arm("a", 100.0), arm("b", 50.0, 101.0, 200.0), START])
    assert equal is not None
    assert (equal["equal"], equal["how"], equal["ratio"]) == (True, "at checkpoints", 2.0)
    assert readings[0].parts == ((-1, 1.0),)
    assert readings[1].parts == ((-2, 1.0),)
    assert readings[1].unfinished
    assert "differ by a factor of 2 " in equal["sentence"]
    assert "b is read inside its schedule" in equal["sentence"]


def test_between_checkpoints_the_metric_is_interpolated_in_log_flops() -> None:
    equal, readings = at_equal_compute([arm("a", 100.0), arm("b", 10.0, 1000.0)])
    assert equal is not None
    assert equal["how"] == "interpolated between checkpoints"
    (first, low), (second, high) = readings[1].parts
    assert (first, second) == (-2, -1)
    assert (low, high) == (pytest.approx(0.5), pytest.approx(0.5))
    found = read({-2: Values(np.array([[0.2, 0.4]])), -1: Values(np.array([[0.4, 0.8]]))}, readings[1])
    assert found.values.tolist() == [[pytest.approx(0.3), pytest.approx(0.6)]]


def test_without_a_checkpoint_around_it_compute_is_said_to_be_unequal_with_the_command_that_mends_it() -> None:
    equal, readings = at_equal_compute([arm("a", 100.0), arm("b", 150.0, 200.0)])
    assert equal is not None
    assert (equal["equal"], equal["how"], equal["flops"]) == (False, "not possible", None)
    assert "--budget.flops 100" in equal["sentence"]
    assert "b kept no export" in equal["sentence"]
    assert [reading.parts for reading in readings] == [((-1, 1.0),)] * 2


def test_unknown_compute_is_not_equal() -> None:
    equal, readings = at_equal_compute([arm("a", 100.0), arm("model", None, kind="model")])
    assert equal is not None
    assert (equal["equal"], equal["how"]) == (False, "unknown")
    assert "model cost is not known" in equal["sentence"]
    assert readings[1].how == "compute unknown"
    assert at_equal_compute([arm("a", 100.0), START])[0] is None, "one run has nothing to be equal to"


# verdicts


def verdicts(
    values: list[list[list[float]]], arms: list[Arm], flops: list[float] | None = None
) -> tuple[list[str], str | None, str]:
    measured = [Values(np.array(one)) for one in values]
    equal, readings = at_equal_compute(arms)
    network = {i: len(arms) - 1 for i in range(len(arms) - 1)}
    found = judged(arms, measured, readings, network, equal, "accuracy", 0.0)
    return [one["verdict"] for one in found], *conclude(arms, measured, found, "accuracy")


CLEAR = [[[0.90, 0.91, 0.89]], [[0.70, 0.72, 0.71]], [[0.50, 0.51, 0.49]]]


def test_a_clear_winner_at_equal_compute() -> None:
    words, winner, sentence = verdicts(CLEAR, [arm("a", 100.0), arm("b", 100.0), START])
    assert words == ["better", "better", "better"]
    assert winner == "a"
    assert sentence.startswith("a wins at equal compute: a +0.190 accuracy against b (95 % interval +0.165 to +0.215")
    assert "corrected for 3 comparisons" in sentence
    assert sentence.endswith("Over a random start it gains 0.400.")


def test_the_order_of_the_arms_does_not_matter() -> None:
    words, winner, sentence = verdicts([CLEAR[1], CLEAR[0], CLEAR[2]], [arm("b", 100.0), arm("a", 100.0), START])
    assert words[0] == "worse"
    assert winner == "a"
    assert "a +0.190 accuracy against b (95 % interval +0.165 to +0.215" in sentence


def test_a_random_start_at_the_head_of_the_table_is_said_first() -> None:
    noise, worse = [[0.50, 0.60, 0.55]], [[0.40, 0.52, 0.44]]
    _, winner, sentence = verdicts([noise, worse, [[0.60, 0.61, 0.58]]], [arm("a", 100.0), arm("b", 100.0), START])
    assert winner is None
    said = "None of the 2 runs beat a random start: random start reaches accuracy 0.597, a, the best of them, 0.550."
    assert sentence.startswith(f"{said} a is the best of the runs, but this does not show that it is better than a random start")
    assert "beat" not in verdicts(CLEAR, [arm("a", 100.0), arm("b", 100.0), START])[2]


def test_noise_is_not_a_winner() -> None:
    words, winner, sentence = verdicts([[[0.9, 0.7, 0.8]], [[0.7, 0.8, 0.75]], [[0.5, 0.51, 0.49]]], [arm("a", 100.0), arm("b", 100.0), START])
    assert words[0] == "not enough evidence"
    assert winner is None
    assert sentence.startswith("Not enough evidence that a is better than b")


def test_more_compute_makes_no_winner_and_less_compute_does() -> None:
    _, winner, sentence = verdicts(CLEAR, [arm("a", 400.0), arm("b", 100.0), START])
    assert winner is None
    assert "a is better than b, but with 4 times the FLOPs, which may be the reason" in sentence
    _, winner, sentence = verdicts(CLEAR, [arm("a", 100.0), arm("b", 400.0), START])
    assert winner == "a"
    assert sentence.startswith("a wins with fewer FLOPs")
    _, winner, sentence = verdicts(CLEAR, [arm("a", None, kind="model"), arm("b", 100.0), START])
    assert winner is None
    assert "at a compute that is not known" in sentence


def test_the_best_run_that_is_no_better_than_a_random_start_has_won_nothing() -> None:
    values = [CLEAR[0], CLEAR[1], [[0.93, 0.90, 0.88]]]
    words, winner, sentence = verdicts(values, [arm("a", 100.0), arm("b", 100.0), START])
    assert words == ["better", "not enough evidence", "worse"]
    assert winner is None
    assert "does not show that it is better than a random start" in sentence


def test_one_run_stands_against_its_random_start() -> None:
    words, winner, sentence = verdicts([CLEAR[0], CLEAR[2]], [arm("a", 100.0), START])
    assert (words, winner) == (["better"], "a")
    assert sentence == "The head start helps: a +0.400 accuracy against random start (95 % interval +0.400 to +0.400)."
    assert verdicts([CLEAR[2], CLEAR[0]], [arm("a", 100.0), START])[2].startswith("The head start hurts")


def test_two_seeds_say_nothing_of_noise() -> None:
    words, winner, sentence = verdicts([[[0.9, 0.91]], [[0.1, 0.1]]], [arm("a", 100.0), START])
    assert (words, winner) == (["not enough evidence"], None)
    assert "fewer than 3 seeds" in sentence


def test_many_comparisons_need_more_evidence() -> None:
    """p is .032 alone; of four runs it is one of ten comparisons."""
    random = np.random.default_rng(3)
    a = np.array([0.60, 0.64, 0.62, 0.65, 0.66])
    noise = [(a - 0.02 + random.normal(0, 0.02, 5)).tolist() for _ in range(3)]
    alone = compare_values(Values(a[None]), Values(np.array([[0.58, 0.63, 0.61, 0.62, 0.65]])), ((0,), (0,)), "accuracy", 0.0)[0]
    assert alone.p is not None
    assert alone.p < 0.05
    arms = [arm("a", 100.0), arm("b", 100.0), arm("c", 100.0), arm("d", 100.0), START]
    values = [[a.tolist()], [[0.58, 0.63, 0.61, 0.62, 0.65]], [noise[0]], [noise[1]], [noise[2]]]
    words, _, _ = verdicts(values, arms)
    assert words[0] == "not enough evidence"
    assert len(words) == 10


# what decides


def test_pre_training_seeds_decide_where_there_are_three() -> None:
    """Fine-tuning seeds agree to a hair, pre-training seeds do not: over fine-tuning seeds alone the difference would be certain."""
    a = Values(np.array([[0.9, 0.9, 0.9], [0.5, 0.5, 0.5], [0.7, 0.7, 0.7]]))
    b = Values(np.array([[0.6, 0.61, 0.6]]))
    found, covers = compare_values(a, b, ((0, 1, 2), ()), "accuracy", 0.0)
    assert found.interval is not None
    assert found.interval[0] < 0 < found.interval[1]
    assert covers == "pre-training seeds, random starts"
    alone, covers = compare_values(Values(a.values[:1]), b, ((0,), ()), "accuracy", 0.0)
    assert alone.interval is not None
    assert alone.interval[0] > 0.2
    assert "not the seed of the pre-training" in covers


def test_the_same_pre_training_seeds_are_paired() -> None:
    a = Values(np.array([[0.9, 0.9], [0.5, 0.5], [0.7, 0.7]]))
    b = Values(a.values - np.array([[0.10], [0.11], [0.09]]))
    paired, covers = compare_values(a, b, ((0, 1, 2), (0, 1, 2)), "accuracy", 0.0)
    welch, _ = compare_values(a, b, ((0, 1, 2), (3, 4, 5)), "accuracy", 0.0)
    assert covers == "pre-training seeds"
    assert paired.p is not None
    assert welch.p is not None
    assert paired.p < 0.01 < 0.2 < welch.p


def test_a_small_test_file_widens_the_interval() -> None:
    """Ten records, the same two of which are right in one arm only, for every seed: the seeds agree, the records are few."""
    right = np.ones((1, 5, 10))
    other = right.copy()
    other[:, :, :2] = 0.0
    a, b = (Values(one.mean(2), one) for one in (right, other))
    with_records, covers = compare_values(a, b, ((0,), (0,)), "accuracy", 0.0)
    alone, _ = compare_values(Values(a.values), Values(b.values), ((0,), (0,)), "accuracy", 0.0)
    assert with_records.interval is not None
    assert with_records.interval[0] < 0 < 0.2 < with_records.interval[1]
    assert alone.interval == (pytest.approx(0.2), pytest.approx(0.2))
    assert "test records" in covers


def test_documents_are_the_units_where_there_are_no_labels() -> None:
    random = np.random.default_rng(0)
    a, b = (Values(one.mean(2), one, documents=True) for one in (random.random((1, 1, 200)) < 0.8, random.random((1, 1, 200)) < 0.5))
    found, covers = compare_values(a, b, ((0,), (0,)), "halves", 0.0)
    assert covers.startswith("the choice of documents")
    assert found.interval is not None
    assert found.interval[0] > 0
    assert interval_of(a, "halves", 0.0)[1] is not None


def test_an_interval_never_leaves_what_a_metric_can_be() -> None:
    mean, interval = interval_of(Values(np.array([[0.7, 1.0, 1.0]])), "accuracy", 0.25)
    assert mean == pytest.approx(0.9)
    assert interval is not None
    assert interval[1] == 1.0
    assert interval_of(Values(np.array([[0.7, 1.0]])), "accuracy", 0.25)[1] is None


# plans

NEEDS = [Need(1, (-1,), (-3, -2)), Need(1, (-1,), ()), Need(1, (-1,), ())]


def one_second(arm: int, count: int) -> float:
    return count / 100


def test_without_a_budget_everything_is_measured() -> None:
    plan = make_plan(NEEDS, one_second, seeds=5, main=900, least=8, counts=None, budget_s=None)
    assert (plan.seeds, plan.main, plan.counts, plan.further, plan.left_out) == (5, 900, [33, 100, 300], [(0, -2), (0, -3)], [])
    assert plan.points == 5 * (3 + 9 + 2)
    assert plan.seconds == pytest.approx(5 * (3 * 9 + 3 * 4.33 + 2 * 9))


@pytest.mark.parametrize(
    ("budget_s", "seeds", "counts", "further"),
    [
        (246, 5, [33, 100, 300], [(0, -2)]),
        (201, 5, [33, 100, 300], []),
        (175, 4, [33, 100, 300], []),
        (121, 3, [33, 100, 300], []),
        (95, 3, [33, 100], []),
        (81, 3, [], []),
        (148, 3, [33, 100, 300], [(0, -2)]),
    ],
)
def test_a_budget_takes_checkpoints_first_then_seeds_down_to_three_then_the_curve(
    budget_s: float, seeds: int, counts: list[int], further: list[tuple[int, int]]
) -> None:
    plan = make_plan(NEEDS, one_second, seeds=5, main=900, least=8, counts=None, budget_s=budget_s)
    assert (plan.seeds, plan.counts, plan.further) == (seeds, counts, further)
    assert plan.left_out
    assert plan.seconds <= budget_s


@pytest.mark.parametrize("budget_s", [0.001, 20.0, 60.0, 81.0, 300.0])
def test_labels_are_never_cut_and_where_three_seeds_do_not_fit_the_plan_says_what_they_take(budget_s: float) -> None:
    """A training of few labels makes as many steps as one of many, so fewer would save nothing."""
    plan = make_plan(NEEDS, lambda arm, count: 9.0, seeds=5, main=900, least=8, counts=None, budget_s=budget_s)
    assert plan.main == 900
    assert plan.seeds >= 3
    if budget_s < 81:
        assert (plan.seeds, plan.counts, plan.further) == (3, [], [])
        assert plan.seconds == pytest.approx(81.0), "more than the budget: for the caller to refuse"


def test_where_no_point_of_the_curve_fits_the_time_is_the_verdicts() -> None:
    plan = make_plan(NEEDS, lambda arm, count: 9.0, seeds=5, main=900, least=8, counts=None, budget_s=107.0)
    assert (plan.seeds, plan.counts) == (3, [])
    assert make_plan(NEEDS, lambda arm, count: 9.0 if count == 900 else 90.0, seeds=5, main=900, least=8, counts=None, budget_s=110.0).seeds == 4


def test_a_person_who_wants_two_seeds_gets_two() -> None:
    assert make_plan(NEEDS, one_second, seeds=2, main=900, least=8, counts=None, budget_s=1.0).seeds == 2


def test_counts_of_the_curve() -> None:
    assert curve_counts(900, 8) == [33, 100, 300]
    assert curve_counts(30, 8) == [10]
    assert curve_counts(10, 8) == []
    assert make_plan(NEEDS, one_second, seeds=3, main=90, least=8, counts=[50, 20, 900], budget_s=None).counts == [20, 50]
    plan = make_plan(NEEDS, one_second, seeds=3, main=90, least=8, counts=[50], budget_s=None)
    assert plan.seconds == pytest.approx(3 * (3 * 0.9 + 3 * 0.5 + 2 * 0.9))
