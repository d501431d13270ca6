"""The numbered checks of the specification of re-warming: schedule, windows, losses, switches between runs, and what a curve says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headstart.interventions.rewarm.config import RewarmConfig
from headstart.interventions.rewarm.schedule import decay_end, share, warmup_steps

PEAK, FLOOR, STEPS = 3e-4, 3e-5, 100
RELATIVE = RewarmConfig(preset="relative", warmup_steps=10)


def rate(step: int, config: RewarmConfig = RELATIVE, total: int = STEPS, old: float = FLOOR) -> float:
    return PEAK * share(step, total, config, old / PEAK)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 3.0e-5), (1, 3.0e-5), (5, 1.5e-4), (10, 3.0e-4), (11, 2.999178e-4), (32, 2.621109e-4), (55, 1.65e-4), (78, 6.788913e-5), (100, 3.0e-5)],
)
def test_01_the_cosine_rises_from_near_zero_to_the_peak_and_falls_to_the_floor(step: int, expected: float) -> None:
    assert rate(step) == pytest.approx(expected, rel=1e-6)


def test_02_after_the_end_of_the_decay_the_rate_stays_at_the_floor() -> None:
    """gpt-neox's formula goes up again: 6.158400e-5 at step 120."""
    config = replace(RELATIVE, decay_fraction=100 / 150)
    assert decay_end(config, 150) == 100
    assert rate(32, config, 150) == pytest.approx(2.621109e-4, rel=1e-6)
    assert rate(120, config, 150) == pytest.approx(FLOOR)


@pytest.mark.parametrize(("step", "expected"), [(0, 3.0e-4), (1, 2.999334e-4), (50, 1.65e-4), (100, 3.0e-5)])
def test_03_without_a_warm_up_the_first_rate_is_the_peak(step: int, expected: float) -> None:
    assert rate(step, replace(RELATIVE, warmup_steps=0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 3e-5), (5, 1.65e-4), (10, 3e-4), (11, 2.999178e-4)])
def test_04_a_warm_up_from_the_floor_is_linear_between_the_two_rates(step: int, expected: float) -> None:
    assert rate(step, replace(RELATIVE, warmup_start="floor")) == pytest.approx(expected, rel=1e-6)


def test_08_a_budget_in_tokens_gives_the_steps_of_the_paper() -> None:
    total = round(297e9 / (1104 * 2048))
    paper = RewarmConfig(preset="paper-410m")
    assert total == 131_358
    assert (warmup_steps(paper, total), decay_end(paper, total)) == (1_314, 106_148)


@pytest.mark.parametrize(("step", "expected"), [(10, 3e-4), (32, 2.34e-4), (55, 1.65e-4), (100, 3e-5), (120, 3e-5)])
def test_17_a_linear_decay_reaches_the_floor_and_stays(step: int, expected: float) -> None:
    config = replace(RELATIVE, shape="linear", decay_fraction=100 / 150)
    assert rate(step, config, 150) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(11, 2.812891e-4), (35, 1.729217e-4), (60, 1.5e-4), (70, 1.5e-4), (90, 6.708204e-5), (100, 3e-5)],
)
def test_17_the_infinite_schedule_cools_down_holds_and_anneals(step: int, expected: float) -> None:
    assert rate(step, replace(RELATIVE, shape="inv_sqrt_infinite")) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("step", [10, 11, 55, 100])
def test_17_a_constant_shape_stays_at_the_peak(step: int) -> None:
    assert rate(step, replace(RELATIVE, shape="constant")) == PEAK
