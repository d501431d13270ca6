"""What the benchmark of extraction counts; nothing here is timed."""

from __future__ import annotations

import pytest

pytest.importorskip("trafilatura")  # extra bench
pytest.importorskip("resiliparse")

from benchmarks.extract import EXTRACTORS, PARSERS, images_in_order, kept
from tests.curate.pages import kept_expected, kept_pages


def test_formulas_are_counted_by_markup() -> None:
    expected = [
        {"id": "a", "markup": "one", "formulas": [{"tex": "x"}, {"tex": "y"}]},
        {"id": "b", "markup": "two", "formulas": [{"tex": "z"}, {"tex": r"\[ w \]"}]},
        {"id": "c", "markup": "two"},
    ]
    figures = kept({"a": "$y$ then $x$ and $q$", "b": r"$z$ \[w\]"}, expected)
    assert (figures["recall, one"], figures["precision, one"], figures["recall, two"], figures["precision, two"]) == (0.5, 0.3333, 1, 1)
    assert (figures["recall, all"], figures["formulas of 4, all"]) == (0.75, 3)


def test_ours_keeps_all_of_the_kept_pages_and_every_extractor_runs() -> None:
    pages, expected = kept_pages(), [row for row in kept_expected() if "formulas" in row]
    found = {name: kept({row["id"]: extractor(pages[row["id"]]) for row in expected}, expected) for name, extractor in EXTRACTORS.items()}
    assert (found["headstart"]["recall, all"], found["headstart"]["precision, all"]) == (1, 1)
    assert all(figures["recall, all"] > 0 for figures in found.values()), "these pages carry raw delimiters"
    assert images_in_order(pages, expected) == 1
    assert all(count(pages["p081"]["html"]) > 50 for _, count in PARSERS.values())
