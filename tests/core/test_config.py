"""Configuration: names, types and defaults are those of the dataclasses, everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from headstart.core.config import (
    differences,
    dotted,
    field_docs,
    flatten,
    leaves,
    plain,
    provenance,
    read_yaml,
    replace_nested,
    several,
    to_yaml,
)
from headstart.core.errors import BadInput, UsageError


@dataclass
class Inner:
    rate: float = 1e-3
    """Peak rate."""
    kind: Literal["a", "b"] = "a"
    """Which one."""


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)
    """The group."""
    steps: int | None = None
    """How long."""
    where: Path | None = None
    names: tuple[str, ...] = ()


def test_yaml_holds_every_setting_with_its_docstring_and_comes_back(tmp_path: Path) -> None:
    config = Outer(Inner(2e-5, "b"), 7, Path("x"), ("p", "q"))
    text = to_yaml(config)
    assert "# Peak rate." in text
    (tmp_path / "c.yaml").write_text(text)
    assert replace_nested(Outer(), read_yaml(tmp_path / "c.yaml")) == config


def test_a_text_or_a_path_is_one_entry_and_not_its_letters() -> None:
    assert several("ab") == ["ab"]
    assert several(Path("a/b")) == [Path("a/b")]
    assert several(("a", "b")) == ["a", "b"]
    with pytest.raises(UsageError, match="None is neither an entry nor a list"):
        several(None)


def test_nested_and_dotted_names_mean_the_same() -> None:
    assert replace_nested(Outer(), {"inner.rate": 1}) == replace_nested(Outer(), {"inner": {"rate": 1.0}}) == Outer(Inner(1.0))


def test_yaml_exponents_without_a_dot_are_numbers() -> None:
    assert replace_nested(Outer(), {"inner": {"rate": "1e-4"}}).inner.rate == 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": 1}, "no setting 'stepz'"),
        ({"inner": 3}, "group of settings"),
        ({"steps": "many"}, "steps must be int"),
        ({"steps": True}, "steps must be int"),
        ({"inner.kind": "c"}, "must be a or b"),
        ({"steps.x": 1}, "single value"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace_nested(Outer(), changes)


def test_a_keyword_without_its_dot_is_told_the_name() -> None:
    """`pretrain("mlm", data, budget_minutes=10)`: a keyword cannot have a dot, so this is what one tries first."""
    with pytest.raises(UsageError, match=r"there is no setting 'inner_rate'\.\nDid you mean inner\.rate\? In Python: \*\*\{'inner\.rate': \.\.\.\}"):
        replace_nested(Outer(), {"inner_rate": 1.0})


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object/apply:os.system ['true']", "", "\x00", "[" * 5000])
def test_hostile_yaml_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(BadInput):
        read_yaml(tmp_path / "c.yaml")


def test_a_missing_or_huge_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_bytes(b"a: 1\n" * 300_000)
    with pytest.raises(BadInput, match="a configuration file has at most 262,144"):
        read_yaml(tmp_path / "big.yaml")


def test_provenance_names_the_last_layer_that_changed_a_value() -> None:
    preset = replace_nested(Outer(), {"inner.rate": 1.0})
    final = replace_nested(preset, {"steps": 3})
    assert provenance([("default", Outer()), ("preset", preset), ("flag", final)]) == {
        "inner.rate": "preset", "inner.kind": "default", "steps": "flag", "where": "default", "names": "default",
    }  # fmt: skip


def test_leaves_are_the_values_of_nested_and_dotted_settings() -> None:
    nested = {"method": {"hidden_size": 16, "no": {}, "deep": {"a": [1, {"b": 2}]}}, "batch.size": None}
    assert list(leaves(nested)) == [("method.hidden_size", 16), ("method.deep.a", [1, {"b": 2}]), ("batch.size", None)]
    assert list(dotted(nested)) == ["method.hidden_size", "method.deep.a", "batch.size"]
    assert list(leaves({})) == []


def test_differences_list_old_and_new() -> None:
    assert differences(plain(Outer()), plain(Outer(steps=3))) == [("steps", None, 3)]


def test_field_docs_and_flatten() -> None:
    assert field_docs(Inner)["kind"] == "Which one."
    assert flatten(Outer())["inner.rate"] == 1e-3
