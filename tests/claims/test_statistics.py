"""The statistic and its verdicts, against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.claims._statistics import bootstrap_over_items, difference, overall, verdict


def test_three_pairs_by_hand() -> None:
    """Differences .02 .03 .04: mean .03, deviation .01, standard error .0057735; t(.975, 2) = 4.30265, t(.8, 2) = 1.06066."""
    found = difference([0.80, 0.82, 0.84], [0.78, 0.79, 0.80])
    assert found.mean == pytest.approx(0.03)
    assert found.interval == pytest.approx((0.03 - 0.0248414, 0.03 + 0.0248414), abs=1e-6)
    assert found.detectable == pytest.approx((4.30265 + 1.06066) * 0.0057735, abs=1e-6)


def test_seeds_are_paired_not_pooled() -> None:
    """The arms vary by .2 over seeds, their difference not at all."""
    found = difference([0.5, 0.6, 0.7], [0.49, 0.59, 0.69])
    assert found.interval == pytest.approx((0.01, 0.01))


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval_and_decide_nothing(seeds: int) -> None:
    found = difference([0.9] * seeds, [0.1] * seeds)
    assert (found.mean, found.interval, found.detectable) == (pytest.approx(0.8), None, None)
    assert verdict(found.interval) == "inconclusive"


@pytest.mark.parametrize(
    ("interval", "margin", "expected"),
    [
        ((0.001, 0.03), 0.0, "reproduced"),
        ((-0.03, -0.001), 0.0, "not reproduced"),
        ((-0.001, 0.03), 0.0, "inconclusive"),
        ((0.0, 0.03), 0.0, "inconclusive"),  # the whole interval must lie on the paper's side
        ((0.001, 0.03), 0.01, "reproduced"),  # on the paper's side, and it may be of interest
        ((0.001, 0.009), 0.01, "not reproduced"),  # surely above nothing, and surely of no interest
        ((-0.009, 0.009), 0.01, "not reproduced"),  # within the margin
        ((-0.05, 0.009), 0.01, "not reproduced"),  # on the other side or within the margin
        ((-0.05, 0.011), 0.01, "inconclusive"),
        ((0.0, 0.0), 0.0, "inconclusive"),
    ],
)
def test_verdicts(interval: tuple[float, float], margin: float, expected: str) -> None:
    assert verdict(interval, margin) == expected
    low, high = interval
    assert verdict((-high, -low), margin, higher_is_better=False) == expected, "an error is the better the lower it is"


@pytest.mark.parametrize(
    ("interval", "expected"), [((-0.009, 0.03), "reproduced"), ((-0.03, -0.011), "not reproduced"), ((-0.02, 0.03), "inconclusive")]
)
def test_not_worse_is_judged_at_minus_the_margin(interval: tuple[float, float], expected: str) -> None:
    assert verdict(interval, 0.01, claimed="not worse") == expected


def test_a_claim_of_several_comparisons() -> None:
    assert overall(["reproduced", "reproduced"]) == "reproduced"
    assert overall(["reproduced", "inconclusive"]) == "inconclusive"
    assert overall(["not reproduced", "inconclusive"]) == "not reproduced"
    assert overall([]) == "inconclusive"


def test_items_that_a_task_does_not_count_do_not_take_part() -> None:
    """A draw of nothing but pages without formulas would divide by 0."""
    items = np.array([[0.2, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert bootstrap_over_items([items]) == pytest.approx((0.2, 0.2))


def test_bootstrap_over_items_by_hand() -> None:
    """400 items, half +1, half -1: the mean has standard error 1 / sqrt(400) = .05, so the interval is about +-.098."""
    items = np.column_stack([np.repeat([1.0, -1.0], 200), np.ones(400)])
    low, high = bootstrap_over_items([items])
    assert low == pytest.approx(-0.098, abs=0.012)
    assert high == pytest.approx(0.098, abs=0.012)


def test_bootstrap_weighs_items_and_averages_tasks() -> None:
    """Every item of the first task differs by .2 of its weight, of the second by 0: .1 whatever is drawn."""
    first = np.array([[0.2, 1.0], [2.0, 10.0]])
    second = np.array([[0.0, 1.0], [0.0, 3.0]])
    assert bootstrap_over_items([first, second]) == pytest.approx((0.1, 0.1))
