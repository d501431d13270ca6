"""Which of several models of equal loss to take."""

from __future__ import annotations

import pytest

from headstart.core.errors import UsageError
from headstart.planning.implicit_bias import Candidate, Choice, choose, equal_loss


def test_of_equal_losses_the_flattest_is_taken_and_ties_are_said() -> None:
    found = choose([Candidate("early", 0.018, 42.0, 0.5), Candidate("late", 0.010, 21.0, 0.4), Candidate("other", 0.012, 21.9, 0.4)])
    assert found == Choice("late", "trace", ("other",))


def test_a_probe_decides_where_all_have_one() -> None:
    flat, good = Candidate("flat", 0.01, 20.0, probe=0.8), Candidate("good", 0.01, 40.0, probe=0.9)
    assert choose([flat, good]).name == "good"
    assert choose([flat, Candidate("good", 0.01, 40.0)]) == Choice("flat", "trace", ())


def test_losses_that_differ_are_refused_with_the_excess_of_each() -> None:
    with pytest.raises(UsageError) as caught:
        equal_loss([Candidate("a", 0.01), Candidate("b", 0.05), Candidate("c", 0.031)])
    assert "b by 0.0400, c by 0.0210" in caught.value.what
    equal_loss([Candidate("a", 0.01), Candidate("b", 0.05)], tolerance=0.05)


def test_what_is_not_known_is_said() -> None:
    with pytest.raises(UsageError, match="Of table neither probe nor trace"):
        choose([Candidate("net", 0.0, 3.0), Candidate("table", 0.0)])
    with pytest.raises(UsageError, match="nothing to choose"):
        choose([])
