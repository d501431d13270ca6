"""Budgets and phases become steps."""

from __future__ import annotations

import pytest

from headstart.core.errors import UsageError
from headstart.engine.budget import Budget, steps_within
from headstart.engine.method import Phase
from headstart.engine.trial import spans, total_cost
from tests.engine.toy import Toy, ToyConfig


def test_exactly_one_unit() -> None:
    assert Budget(minutes=2).unit() == "minutes"
    for wrong in (Budget(), Budget(steps=1, tokens=1), Budget(steps=0), Budget(minutes=float("nan"))):
        with pytest.raises(UsageError):
            wrong.unit()


@pytest.mark.parametrize("limit", [1.0, 9.9, 10.0, 1234.5])
def test_steps_within_is_the_largest_that_fits(limit: float) -> None:
    steps = steps_within(limit, lambda n: n * 2.5)
    assert steps == max(1, int(limit / 2.5))


def test_phases_fill_the_run_in_order() -> None:
    found = spans([Phase("a", 3), Phase("b"), Phase("c", 2)], 10)
    assert [(p.name, start, stop) for p, start, stop in found] == [("a", 0, 3), ("b", 3, 8), ("c", 8, 10)]


def test_phases_that_do_not_fit_are_refused_with_their_lengths() -> None:
    with pytest.raises(UsageError, match=r"alone take 5 \(a 3, c 2\)"):
        spans([Phase("a", 3), Phase("b"), Phase("c", 2)], 5)
    with pytest.raises(UsageError, match="exactly one phase"):
        spans([Phase("a", 3)], 5)


def test_cost_counts_each_phase_at_its_own_price() -> None:
    method = Toy(ToyConfig(first=4))
    assert total_cost(method, 10, {"frozen": 1.0, "train": 3.0}) == 4 * 1.0 + 6 * 3.0
    steps = steps_within(22.0, lambda n: total_cost(method, n, {"frozen": 1.0, "train": 3.0}))
    assert steps == 10
