"""Names as a person may have meant them."""

from __future__ import annotations

import pytest

from headstart.core.words import did_you_mean, first_line

FLAGS = ["--seed", "--budget.steps", "--budget.minutes", "--optimizer.learning-rate", "--optimizer.name", "--schedule.name", "--out"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("--sed", "--seed"),
        ("--Seed", "--seed"),
        ("--budget.minute", "--budget.minutes"),
        ("--minutes", "--budget.minutes"),
        ("--learning_rate", "--optimizer.learning-rate"),
        ("--name", "--optimizer.name"),  # the first of several
        ("--foo", None),
        ("--x", None),
        ("", None),
    ],
)
def test_the_closest_name_is_offered_and_none_where_none_is_close(name: str, closest: str | None) -> None:
    assert did_you_mean(name, FLAGS) == (f"Did you mean {closest}? " if closest else "")


def test_a_name_is_offered_as_it_is_spelt() -> None:
    assert did_you_mean("graph-codebert", ["graph_code_bert", "mlm"]) == "Did you mean graph_code_bert? "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("cannot identify image file <_io.BytesIO object at 0x7f3c967e3940>"), "cannot identify image file"),
        (ValueError("malformed node on line 1: <ast.Name object at 0x7f3c967e3a90>"), "malformed node on line 1"),
        (OSError("it is gone.\nand more"), "it is gone"),
        (KeyError(), "KeyError"),
    ],
)
def test_what_a_library_says_has_no_addresses_of_objects(error: Exception, said: str) -> None:
    assert first_line(error) == said
