"""Thinned curves: small, in order, and no spike lost."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.report.thin import packed, thinned

values = st.floats(-1e30, 1e30) | st.just(math.nan) | st.just(math.inf)


def test_a_spike_of_one_step_among_100_000_stays() -> None:
    y = np.sin(np.arange(100_000) / 1000)
    y[54_321], y[77_777] = 40.0, -40.0
    steps, kept = thinned(range(100_000), y, 300)
    assert len(steps) <= 602
    assert 54_321 in steps
    assert 77_777 in steps
    assert (kept.max(), kept.min()) == (40.0, -40.0)


def test_a_short_curve_is_left_as_it_is() -> None:
    steps, kept = thinned([3, 6, 9], [1.0, math.nan, 2.0], 300)
    assert steps.tolist() == [3, 6, 9]
    assert np.isnan(kept[1])


def test_columns_follow_the_step_and_not_the_number_of_lines() -> None:
    """A run that logs each step at first must not have its late part starved of columns."""
    steps = [*range(1000), *range(1000, 100_000, 1000)]
    kept, _ = thinned(steps, np.random.default_rng(0).normal(size=len(steps)), 50)
    late = [step for step in steps if step >= 2000]
    assert [step for step in kept.tolist() if step >= 2000] == late


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**53 - 1), values), max_size=300), st.integers(1, 40))
def test_any_curve_is_ordered_bounded_and_keeps_its_extremes(points: list[tuple[int, float]], columns: int) -> None:
    latest = dict(points)  # of a step logged twice the later value
    steps, kept = thinned([step for step, _ in points], [value for _, value in points], columns)
    assert len(steps) <= max(2 * columns, 3 * columns + 2)
    assert (np.diff(steps) > 0).all()
    for step, value in zip(steps.tolist(), kept.tolist(), strict=True):
        assert value == latest[step] or math.isnan(value)
    finite = [value for value in latest.values() if math.isfinite(value)]
    if finite:
        assert np.nanmax(kept[np.isfinite(kept)]) == max(finite)
        assert np.nanmin(kept[np.isfinite(kept)]) == min(finite)
    if any(not math.isfinite(value) for value in latest.values()):
        assert not np.isfinite(kept).all(), "that a loss was no number is seen as a gap"


def test_what_is_packed_is_json_that_unpacks_to_the_same_steps() -> None:
    made = json.loads(json.dumps(packed([5, 10, 20], [1.234567, math.nan, 3.0], 100), allow_nan=False))
    assert np.cumsum(made["x"]).tolist() == [5, 10, 20]
    assert made["y"] == [1.2346, None, 3]
