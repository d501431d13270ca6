"""What the benchmark of curation counts and makes; nothing here is timed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.curate import CRAWL, by_stage, estimate, items_file, variant, write_crawl
from headstart.curate.config import ReadConfig
from headstart.curate.minhash import shingles
from headstart.curate.passes import BETWEEN
from headstart.curate.sources import read_source
from tests.curate.pages import kept_pages

COUNTED = {
    "stages": [{"stage": name, "entered": entered} for name, entered in (("read", 100), ("extract", 80), ("recall", 80), ("urls", 40))],
    "seconds": {"read": 1.0, "extract": 8.0, "recall": 1.6, "urls": 0.5, "asked: urls": 1.5, BETWEEN: 3.0},
}


def jaccard(a: str, b: str) -> float:
    first, second = set(shingles(a)), set(shingles(b))
    return len(first & second) / len(first | second)


def test_a_stage_has_the_seconds_of_its_question_too() -> None:
    assert by_stage(COUNTED) == {
        "read": {"pages": 100, "seconds": 1.0},
        "extract": {"pages": 80, "seconds": 8.0},
        "recall": {"pages": 80, "seconds": 1.6},
        "urls": {"pages": 40, "seconds": 2.0},
        BETWEEN: {"pages": 100, "seconds": 3.0},
    }


def test_a_month_costs_what_its_pages_cost_at_each_stage() -> None:
    """At .01, .1, .02, .05 and .03 seconds a page; as many come to each stage as in the paper, or all to every one."""
    found = estimate(by_stage(COUNTED), CRAWL["megabytes"] / CRAWL["pages"] / 2)
    every = CRAWL["pages"] * (0.01 + 0.1 + 0.02 + 0.05 + 0.03) / 3600
    paper = CRAWL["pages"] * (0.01 + (0.1 + 0.02) * 57.2 / 122 + 0.05 * 5.4 / 122 + 0.03 * 9.5 / 122) / 3600
    assert found["core_hours_by_pages"] == {"every_page": round(every), "as_in_the_paper": round(paper)}
    assert found["core_hours_by_bytes"] == {name: pytest.approx(2 * hours, abs=1) for name, hours in found["core_hours_by_pages"].items()}


def test_a_crawl_is_of_variants_and_of_near_copies(tmp_path: Path) -> None:
    """The same bytes each time; a variant is a page of its own, every tenth page a near-copy of the one before."""
    originals = [page["html"] for page in kept_pages().values()]
    files = write_crawl(tmp_path / "crawl", originals, pages=24, files=2)
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in write_crawl(tmp_path / "again", originals, 24, 2)]
    rows = [row for shard, file in enumerate(files) for table in read_source(str(file), shard, ReadConfig()) for row in table.to_pylist()]
    assert [row["dropped"] for row in rows] == [None] * 24
    assert len({row["url"] for row in rows}) == 24
    html = [row["html"].decode() for row in rows]
    assert jaccard(html[9], html[8]) > 0.95
    other = variant(originals[0], random.Random(0))
    assert jaccard(other, originals[0]) < 0.7
    assert len(other) == pytest.approx(len(originals[0]), rel=0.01)
    assert other.count("<") == originals[0].count("<")


def test_items_are_of_thirty_words(tmp_path: Path) -> None:
    lines = items_file(tmp_path / "items.txt", list(kept_pages().values())).read_text().splitlines()
    assert {len(line.split()) for line in lines} == {30}
    assert len(lines) == len(set(lines)) == 1000
