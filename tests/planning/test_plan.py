"""Arithmetic of a plan: when a sweep is looked at, what it may cost, and what gives way when the domain text is short."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import UsageError
from headstart.planning.dcpt_law import plan
from headstart.planning.dcpt_law.answers import trade_off
from headstart.planning.dcpt_law.forms import L3, Law
from tests.planning.tables import DOM, GEN


def test_a_sweep_is_looked_at_in_half_octaves_from_an_eighth_on() -> None:
    assert plan.evaluation_steps(366) == (46, 65, 92, 129, 183, 259, 366)
    fine = plan.evaluation_steps(366, per_octave=4)
    assert set(plan.evaluation_steps(366)) <= set(fine)
    assert len(fine) == 13
    assert np.ptp(np.diff(np.log(fine))) < 0.03  # geometric, but for rounding


def test_no_point_lies_in_the_warm_up_and_too_short_a_run_is_refused() -> None:
    assert plan.evaluation_steps(60)[0] == 21
    with pytest.raises(UsageError, match="39 steps, 20 of them warm-up"):
        plan.evaluation_steps(39)


def test_few_runs_are_looked_at_more_often_so_that_a_law_has_its_points() -> None:
    assert len(plan.looks(400, 20)) == 7
    assert len(plan.looks(400, 4)) == 13
    assert len(plan.looks(40, 4)) == 8
    with pytest.raises(UsageError, match="3 runs of 40 steps give 24 points"):
        plan.looks(40, 3)


@pytest.mark.parametrize("total", [1_200, 1_207, 5_000])
def test_planning_takes_a_fifth_at_most_and_nothing_is_lost(total: int) -> None:
    split = plan.split_budget(total, 0.2)
    assert split.runs == 6
    assert 0.2 * total - 6 < split.planning <= 0.2 * total
    assert split.planning + split.left == total


def test_a_budget_that_cannot_plan_says_what_could() -> None:
    with pytest.raises(UsageError, match="1,199 steps leaves 39 steps") as refused:
        plan.split_budget(1_199, 0.2)
    assert "--budget.steps 1200 or more" in refused.value.mend
    with pytest.raises(UsageError) as refused:
        plan.split_budget(1_199, 0.001)
    assert "--budget.steps 240000 or more" in refused.value.mend
    assert plan.split_budget(1_200, 0.2).of_each == 40
    assert plan.split_budget(600, 0.4).left == 9 * plan.split_budget(600, 0.4).of_each


def test_a_sweep_that_repeats_its_text_is_warned_of_and_above_four_times_refused() -> None:
    """Of the domain the run with the most of it decides, of the general text the run with the least of the domain."""
    ratios = (0.1, 0.5, 0.8)
    assert plan.sweep_epochs(1e6, ratios, 0.8e6, 0.9e6) == []
    assert plan.sweep_epochs(1e6, ratios, 0.4e6, 0.3e6) == [
        "in the sweep the domain text is read up to 2 times (r_d = 0.8): the law was made for new text",
        "in the sweep the general text is read up to 3 times (r_d = 0.1): the law was made for new text",
    ]
    assert plan.sweep_epochs(1e6, ratios, 0.2e6, 1e6) == [
        "in the sweep the domain text is read up to 4 times (r_d = 0.8): the law was made for new text"
    ]
    with pytest.raises(UsageError, match=r"0\.8 of 1,000,000 tokens read 199,000 domain tokens 4\.02 times"):
        plan.sweep_epochs(1e6, ratios, 0.199e6, 1e6)
    (told,) = plan.sweep_epochs(1e6, ratios, 0.1e6, 1e6, finished=True)
    assert "read up to 8 times" in told


def test_a_subset_is_chosen_only_of_more_text_than_the_run_reads() -> None:
    assert plan.subset_tokens(2e6, 1e6) is None
    assert plan.subset_tokens(2e6, 2e6) is None
    assert plan.subset_tokens(2e6, 3e6) == 0.5e6
    assert plan.subset_tokens(2e6, 50e6) == 5e6  # a tenth of the text, more than a quarter of the run
    assert plan.epoch_tokens(2e6, 0.5, 3e6, 0.5e6) == 0.5e6
    assert plan.epoch_tokens(2e6, 0.5, 0.4e6, None) == 0.8e6
    assert plan.epoch_tokens(2e6, 0.5, 1.5e6, None) == 2e6


def best_of_a_grid(unique: float, tokens: float, ratio: float, bound: float) -> float:
    """The least domain loss of any run of at most `tokens` that reads the domain text four times at most and keeps the bound."""
    losses = []
    for r in np.linspace(1e-3, ratio, 2000):
        d = min(tokens, 4 * unique / r)
        if GEN.loss(1.8, d, 1 - r) <= bound + 1e-9:
            losses.append(DOM.loss(1.8, d, r))
    return min(losses)


@pytest.mark.parametrize(
    ("unique", "limit", "lowered"), [(10.0, 0.05, ""), (1.5, 0.20, "D"), (0.05, 0.05, "r and D"), (1.0, 0.01, "r and D"), (1.5, 0.02, "")]
)
def test_what_gives_way_when_domain_text_is_short_is_the_best_that_does(unique: float, limit: float, lowered: str) -> None:
    before = 2.4890779608
    ratio, bound = trade_off(GEN, 1.8, 10, limit, before), (1 + limit) * before
    assert ratio is not None
    found = plan.within_epochs(DOM, GEN, 1.8, 10.0, ratio, unique, bound)
    assert found.lowered == lowered
    assert found.ratio * found.tokens <= 4 * unique * (1 + 1e-6)
    assert GEN.loss(1.8, found.tokens, 1 - found.ratio) <= bound + 1e-6
    assert DOM.loss(1.8, found.tokens, found.ratio) <= best_of_a_grid(unique, 10.0, ratio, bound) + 1e-4


def test_where_tokens_count_more_than_the_ratio_the_ratio_gives_way() -> None:
    hungry = Law.of(L3, (1.2, 0.3, 0.25, 0.5, 0.5, 0.2, 0.001, 0.6, 0.08))
    assert plan.within_epochs(hungry, GEN, 1.8, 10.0, 0.8, 1.9, 99) == plan.Fitting(10.0, 0.76, "r")


@pytest.mark.parametrize(
    ("ratio", "tokens", "times", "warned"),
    [
        (0.2, 61_440, 20.48, "the old text is read 20.5 times by the run, its 2.4\u202fk tokens are learnt by heart: give more of it as --general"),
        (0.9, 61_440, 2.56, None),  # 6,144 old tokens of 2,400
        (0.75, 38_400, 4.0, None),  # 9,600 of 2,400: four times, which is let pass
        (1.0, 61_440, 0.0, None),
    ],
    ids=["most of it old", "a tenth of it old", "four times", "none of it old"],
)
def test_how_often_a_run_reads_its_old_text(ratio: float, tokens: float, times: float, warned: str | None) -> None:
    found, warning = plan.old_repeats(ratio, tokens, 2_400)
    assert found == pytest.approx(times)
    assert warning == warned
