"""Names as a person may have meant them."""

from __future__ import annotations

import pytest

from headstart.core.words import agree, did_you_mean, first_line, plural

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


def test_a_count_and_its_noun_agree() -> None:
    """The noun may be a unit that stands in the plural; one that ends in ss has an s to keep."""
    assert [plural(count, "row") for count in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert [plural(count, "rows") for count in (1, 2)] == ["1 row", "2 rows"]
    assert plural(1, "loss") == "1 loss"
    assert [agree(count, "is", "are") for count in (0, 1, 2)] == ["are", "is", "are"]
