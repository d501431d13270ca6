"""The page of a curation: what it says, and that nothing of a stranger's page runs in it."""

from __future__ import annotations

from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.core.files import write_json
from headstart.curate.counts import StageCounts, to_json
from headstart.report.funnel import read_funnel, render, write_funnel

EVIL = '<script>alert(1)</script><img src=x onerror=alert(1)>"\'&\x1b[31m'


def stages(scale: int = 1) -> list[StageCounts]:
    read = StageCounts("read", 100 * scale, 90 * scale, Counter({EVIL: 10 * scale}), samples={EVIL: [[f"javascript:{EVIL}", EVIL]]})
    rules = StageCounts("rules", 90 * scale, 60 * scale, Counter({"lorem ipsum": 30 * scale}), 1200 * scale, 7, items=Counter({f"image: {EVIL}": 3}))
    return [read, StageCounts("signatures", 90, 90), rules]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    write_json(tmp_path / "curate.json", {"recipe": "webmath", "sources": [["a", 1]]})
    write_json(tmp_path / "counts.json", {"stages": to_json(stages())})
    return tmp_path


class Elements(HTMLParser):
    """Names of the elements of a page, and their attributes that could run or load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.risky: list[tuple[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        runs = [(name, value) for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")]
        self.risky += runs + [(name, value) for name, value in attributes if name in ("src", "style")]


def test_the_page_says_what_each_stage_kept(finished: Path) -> None:
    page = write_funnel(finished).read_text()
    assert "60 documents of mathematical pages with their images of 100 records" in page
    assert "1.2\u202fk words, 7 images" in page
    assert "lorem ipsum 30" in page
    assert ">signatures<" not in page, "a stage that only prepares another"


def test_nothing_of_a_strangers_page_runs(finished: Path) -> None:
    page = render(read_funnel(finished))
    found = Elements(page)
    assert "script" not in found.names
    assert "img" not in found.names
    assert found.risky == []
    assert "&lt;script&gt;alert(1)" in page, "it is shown all the same"
    assert "\x1b" not in page
    assert "default-src 'none'" in unescape(page)


def test_a_curation_that_goes_on_is_counted_as_far_as_it_is(tmp_path: Path) -> None:
    write_json(tmp_path / "curate.json", {"recipe": "text", "sources": [["a", 1], ["b", 1], ["c", 1]]})
    assert "Nothing is counted yet" in render(read_funnel(tmp_path))
    for shard in (0, 1):
        (tmp_path / "work" / "0" / "counts").mkdir(parents=True, exist_ok=True)
        write_json(tmp_path / "work" / "0" / "counts" / f"shard-{shard:05d}.json", {"stages": to_json(stages())})
    page = render(read_funnel(tmp_path))
    assert "2 of 3 shards are counted" in page
    assert "of 200 records" in page


def test_what_is_no_curation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no curation"):
        write_funnel(tmp_path)
    write_json(tmp_path / "curate.json", [1])
    with pytest.raises(BadInput, match="no description"):
        write_funnel(tmp_path)
    write_json(tmp_path / "curate.json", {"recipe": "webmath", "sources": []})
    write_json(tmp_path / "counts.json", {"stages": [{"stage": "read"}]})
    with pytest.raises(BadInput, match="no counts"):
        write_funnel(tmp_path)
