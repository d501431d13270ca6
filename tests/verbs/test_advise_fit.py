"""A learning curve's few points, read at the full budget."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.verbs._advise_fit import RESAMPLES, at_full_budget, fitted, resampled_means

FLOPS = np.array([1.0, 2.0, 4.0, 8.0]) * 1e11


def curve(flops: np.ndarray | float, top: float = 0.9, a: float = 0.3, b: float = 0.5) -> np.ndarray:
    """m_inf - a (F / 1e11)^-b"""
    return np.asarray(top - a * (np.asarray(flops) / 1e11) ** -b)


def noisy(means: np.ndarray, spread: float, splits: int = 5, seed: int = 0) -> np.ndarray:
    """[points, splits]: splits are easier or harder at all points alike, and a little by chance."""
    rng = np.random.default_rng(seed)
    return means[:, None] + spread * rng.standard_normal(splits) + 0.2 * spread * rng.standard_normal((len(means), splits))


def test_an_exact_power_law_is_found_and_continued() -> None:
    found = fitted(FLOPS, curve(FLOPS)[None], 64e11)
    assert found[0] == pytest.approx(curve(64e11), abs=0.004)
    assert found[0] > curve(FLOPS[-1]) + 0.05, "the curve goes on rising"


def test_a_flat_curve_stays_flat() -> None:
    full, _, is_curve = at_full_budget(FLOPS, np.full((4, 5), 0.7), 80e11)
    assert is_curve
    assert full.value == pytest.approx(0.7, abs=1e-9)
    assert (full.low, full.high) == (pytest.approx(0.7, abs=1e-9), pytest.approx(0.7, abs=1e-9))


def test_a_falling_curve_promises_no_gain() -> None:
    found = fitted(FLOPS, np.array([[0.80, 0.75, 0.72, 0.70]]), 100e11)
    assert found[0] <= 0.80
    assert found[0] == pytest.approx(0.7425), "the mean: a law that saturates from below cannot fall"


def test_nothing_is_promised_above_the_ceiling() -> None:
    rising = np.array([[0.6, 0.75, 0.9, 0.99]])
    assert fitted(FLOPS, rising, 1000e11)[0] <= 1.0
    full, samples, _ = at_full_budget(FLOPS, noisy(rising[0], 0.02), 1000e11)
    assert full.high <= 1.0
    assert samples.max() <= 1.0


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """The splits of these draws are independent, so the corrected interval is wider than 95 %; it must never be narrower."""
    hits = 0
    for seed in range(60):
        full, _, _ = at_full_budget(FLOPS, noisy(curve(FLOPS), 0.02, seed=seed), 32e11)
        hits += full.low <= curve(32e11) <= full.high
    assert hits >= 55


@pytest.mark.parametrize("points", [1, 2, 3])
def test_three_points_or_fewer_give_a_range_and_no_curve(points: int) -> None:
    values = noisy(curve(FLOPS[:points]), 0.005)
    full, _, is_curve = at_full_budget(FLOPS[:points], values, 64e11)
    assert not is_curve
    assert full.value == pytest.approx(values[-1].mean())
    if points > 1:
        promised = values[-1].mean() + np.log2(64e11 / FLOPS[points - 1]) * (values[-1] - values[-2]).mean()
        assert full.high >= min(1.0, promised), "it reaches to what the last doubling promises"
    assert full.low < values[-1].mean()


def test_the_splits_are_drawn_alike_for_all_arms_so_differences_are_paired() -> None:
    """A split that is easy is easy for both: their difference is certain although each is not."""
    hard = noisy(np.array([0.7]), 0.1)
    difference = resampled_means(hard + 0.05)[:, 0] - resampled_means(hard)[:, 0]
    assert difference == pytest.approx(np.full(RESAMPLES, 0.05))
    assert np.ptp(resampled_means(hard)[:, 0]) > 0.2


def test_the_spread_of_a_mean_over_overlapping_halves_is_that_of_nadeau_and_bengio() -> None:
    values = noisy(np.array([0.7]), 0.03)
    low, high = np.quantile(resampled_means(values)[:, 0], [0.025, 0.975])
    margin = 2.776 * values[0].std(ddof=1) * np.sqrt(1 / 5 + 1.0)  # t of 4 degrees of freedom
    assert (high - low) / 2 == pytest.approx(margin, rel=0.15)
