"""Figures: one style, text as text, the same bytes each time."""

from __future__ import annotations

import sys
from typing import Any
from xml.etree import ElementTree

import pytest

from headstart.core.errors import MissingDependency
from headstart.core.figures import GRID, plain_ticks, svg

DC = "{http://purl.org/dc/elements/1.1/}"


def paint(figure: Any) -> None:
    axes = figure.subplots()
    axes.plot([2e3, 2e9], [1, 2], label="costs $5 or $6")
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.grid()
    axes.legend()


def words(figure: bytes) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")]


def test_the_same_values_give_the_same_bytes_and_no_date() -> None:
    figure = svg(paint, (4, 3), "A figure", "What it shows")
    assert figure == svg(paint, (4, 3), "A figure", "What it shows")
    assert not list(ElementTree.fromstring(figure).iter(f"{DC}date"))


def test_names_and_ticks_are_text_as_they_are() -> None:
    found = words(svg(paint, (4, 3), "A figure", "What it shows"))
    assert "costs $5 or $6" in found, "no formula"
    assert {"2,000", "2e9"} <= set(found)


def test_the_style_is_that_of_all_figures_and_ends_with_it() -> None:
    import matplotlib

    before = matplotlib.rcParams["grid.color"]
    figure = svg(paint, (4, 3), "A figure", "What it shows")
    assert GRID in figure.decode()
    assert matplotlib.rcParams["grid.color"] == before != GRID
    assert "What it shows" in [title.text for title in ElementTree.fromstring(figure).iter(f"{DC}title")]


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # an import of it fails
    with pytest.raises(MissingDependency, match=r"A figure.*\n.*headstart\[report\]"):
        svg(paint, (4, 3), "A figure", "What it shows")
