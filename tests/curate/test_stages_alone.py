"""Each stage as a command of its own: it drops what it is for, counts it, and shows an example of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headstart.cli.main import main
from headstart.curate.extract import extract
from headstart.curate.stages import RECIPES
from tests.curate.crawl import page

pytestmark = pytest.mark.slow

ALONE = [name for name in RECIPES if name not in ("webmath", "text")]
GERMAN = "Die Summe der Winkel in einem Dreieck ist gleich zwei rechten Winkeln, und das gilt in der Ebene immer."
DROPPED = {
    "prefilter": ("too short", "https://x.org/short"),
    "language": ("language de", "https://x.org/german"),
    "extract": ("not html", "https://x.org/words"),
    "recall": ("below the threshold", None),
    "near-duplicates": ("near-duplicate in its snapshot", "https://x.org/copy"),
    "urls": ("same URL in its snapshot, shorter", "https://x.org/0"),
    "rules": ("lorem ipsum", "https://x.org/lorem"),
    "precision": ("below the threshold", None),
    "decontaminate": ("quotes quiz", "https://x.org/quiz"),
    "images": ("nothing but dropped images", "https://x.org/picture"),
    "galleries": ("images without a text", "https://x.org/picture"),
}
"""Of each stage the reason, and the address of the example where one page alone is meant."""


def write_input(folder: Path, stage: str) -> Path:
    rows: list[dict[str, Any]]
    if stage in ("prefilter", "extract"):
        rows = [{"url": f"https://x.org/{n}", "html": page(n, True)} for n in range(4)]
        rows += [{"url": "https://x.org/short", "html": "<p>a"}, {"url": "https://x.org/words", "html": "no element " * 40}]
    else:
        texts = [extract(page(n, n % 2 == 0)).text() for n in range(24)]
        rows = [{"url": f"https://x.org/{n}", "text": text} for n, text in enumerate(texts)]
        rows += [{"url": "https://x.org/copy", "text": texts[1]}, {"url": "https://x.org/0", "text": "shorter, and mail to me@example.org"}]
        rows += [{"url": "https://x.org/german", "text": GERMAN}, {"url": "https://x.org/lorem", "text": "Lorem ipsum dolor sit amet."}]
        rows += [{"url": "https://x.org/quiz", "text": "He asked: which of the numbers below is prime, even and less than ten?"}]
        rows += [{"url": "https://x.org/picture", "text_list": [None], "image_list": ["http://x.org/a.png"]}]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("stage", ALONE)
def test_a_stage_alone_drops_counts_and_shows(stage: str, tmp_path: Path) -> None:
    (tmp_path / "quiz.txt").write_text("Which of the numbers below is prime, even and less than ten?\n")
    more = ["--decontaminate.benchmarks", str(tmp_path / "quiz.txt")] if stage == "decontaminate" else []
    out = tmp_path / "out"
    assert main(["curate", stage, str(write_input(tmp_path, stage)), "--out", str(out), "--workers", "1", *more]) == 0
    stages = {one["stage"]: one for one in json.loads((out / "counts.json").read_text())["stages"]}
    assert [name for name in stages if name != "signatures"] == ["read", stage]
    found = stages[stage]
    assert found["entered"] == found["kept"] + sum(found["dropped"].values())
    rows = [row for file in (out / "documents").glob("*.parquet") for row in pq.read_table(file).to_pylist()]
    assert len(rows) == found["kept"] > 1
    if stage == "private":
        assert not found["dropped"]
        assert "mail to <EMAIL>" in next(row["text_list"][0] for row in rows if "shorter" in (row["text_list"][0] or ""))
        return
    reason, url = DROPPED[stage]
    assert found["dropped"][reason] >= 1
    examples = found["samples"][reason]
    assert url is None or [one for one, _ in examples] == [url]
    assert reason in (out / "report.html").read_text()


def test_every_stage_that_drops_is_tried() -> None:
    assert set(DROPPED) == set(ALONE) - {"private"}
