"""The input of curation: WARC files, JSON lines and Parquet of every kind, found and read; what cannot be read is counted."""

from __future__ import annotations

import gzip
import http.server
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput
from headstart.curate.addresses import find_sources
from headstart.curate.config import ReadConfig, RulesConfig
from headstart.curate.rules import rules
from headstart.curate.sources import read_source
from headstart.curate.tables import year_of
from tests.curate.crawl import crawl, record


def test_every_address_is_found_once_in_order(tmp_path: Path) -> None:
    files = crawl(tmp_path / "crawl", files=3, pages_each=1)
    (tmp_path / "crawl" / "notes.md").write_text("no input")
    found = find_sources([str(tmp_path / "crawl" / "*.gz"), str(tmp_path / "crawl"), f"file://{files[0]}"])
    assert [source.address for source in found[:3]] == sorted(str(file) for file in files)
    assert [source.size for source in found] == [file.stat().st_size for file in sorted(files)] + [files[0].stat().st_size]
    for address in (str(tmp_path / "none*.gz"), str(tmp_path / "none.warc"), "file:///none/a.warc", str(tmp_path / "crawl" / "notes.md")):
        with pytest.raises(BadInput):
            find_sources([address])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address over HTTP."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *arguments: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_crawl_is_read_over_http(served: tuple[Path, str]) -> None:
    folder, address = served
    (file,) = crawl(folder, files=1, pages_each=3)
    (source,) = find_sources([f"{address}/{file.name}"])
    remote, local = (pa.concat_tables(read_source(place, 0, ReadConfig())) for place in (source.address, str(file)))
    assert remote.equals(local)
    assert local["snapshot"].to_pylist() == ["CC-MAIN-2022-05"] * 4


def test_a_warc_names_its_crawl_by_file_record_or_date(tmp_path: Path) -> None:
    info = record("", b"isPartOf: CC-MAIN-2021-10\r\n", kind="warcinfo", http=b"")
    (tmp_path / "a.warc").write_bytes(record("https://x.org/1") + info + record("https://x.org/2"))
    (table,) = read_source(str(tmp_path / "a.warc"), 7, ReadConfig())
    assert table["snapshot"].to_pylist() == ["2023-48", "CC-MAIN-2021-10", "CC-MAIN-2021-10"]
    assert table["order"].to_pylist() == [7 << 32, 7 << 32 | 1, 7 << 32 | 2]
    assert table["dropped"].to_pylist() == [None, "record type warcinfo", None]
    (named,) = read_source(str(tmp_path / "a.warc"), 0, ReadConfig(snapshot="mine"))
    assert set(named["snapshot"].to_pylist()) == {"mine"}
    assert year_of("CC-MAIN-2021-10") == "2021"
    assert year_of("mine") == "mine"


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_a_warc_file_of_no_record_is_damage(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (table,) = read_source(str(tmp_path / name), 3, ReadConfig())
    assert table.select(["order", "dropped"]).to_pylist() == [{"order": 3 << 32, "dropped": "unreadable: empty file"}]


def test_lines_that_are_no_records_are_counted(tmp_path: Path) -> None:
    lines = ['{"url": "https://x.org", "html": "<p>é</p>"}', "no json", "[1]", '{"url": "u"}', "", '{"html": 3}', "[" * 100_000]
    data = ("\n".join(lines) + "\n").encode()
    (tmp_path / "a.jsonl").write_bytes(data)
    with pa.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as file:
        file.write(data)
    for name in ("a.jsonl", "a.jsonl.zst"):
        table = pa.concat_tables(read_source(str(tmp_path / name), 0, ReadConfig()))
        reasons = ["not JSON", "not a JSON object", "no html", "no html", "not JSON"]
        assert table["dropped"].to_pylist() == [None, *(f"unreadable: {reason}" for reason in reasons)]
        assert table["html"][0].as_py() == "<p>é</p>".encode()
    (tmp_path / "a.jsonl.zst").write_bytes((tmp_path / "a.jsonl.zst").read_bytes()[:-20])
    cut = pa.concat_tables(read_source(str(tmp_path / "a.jsonl.zst"), 0, ReadConfig()))
    assert cut["dropped"].to_pylist()[-1] == "unreadable: damaged compression"


def test_lines_before_the_end_of_a_cut_file_are_read(tmp_path: Path) -> None:
    written = [json.dumps({"url": f"https://x.org/{number}", "html": random.Random(number).randbytes(1000).hex()}) for number in range(100)]
    data = gzip.compress("\n".join(written).encode(), mtime=0)
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    cut = pa.concat_tables(read_source(str(tmp_path / "a.jsonl.gz"), 0, ReadConfig()))
    reasons = cut["dropped"].to_pylist()
    assert reasons == [None] * (len(reasons) - 1) + ["unreadable: damaged compression"]
    assert 35 < len(reasons) < 55


def test_documents_are_read_in_both_forms_and_must_interleave(tmp_path: Path) -> None:
    rows = [
        {"URL": "a", "text_list": ["t", None], "image_list": [None, "i"], "metadata": '{"ft_lang_label": "zh", "ft_lang_prob": 0.5}'},
        {"URL": "b", "text_list": ["t", None], "image_list": [None, None], "metadata": "{}"},
        {"URL": "c", "text_list": ["t"], "image_list": [None, "i"], "metadata": "{}"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table = pa.concat_tables(read_source(str(tmp_path / "a.parquet"), 0, ReadConfig()))
    assert table["dropped"].to_pylist() == [None] + ["unreadable: texts and images do not interleave"] * 2
    assert table["language"].to_pylist() == ["zh", None, None]
    assert table["images"].to_pylist()[0] == 1


def test_half_characters_and_broken_metadata_are_read(tmp_path: Path) -> None:
    pages_ = [
        {"url": "https://x.org/\ud800", "html": "<p>a\ud83d</p>", "id": "\ud800", "snapshot": "\udfff"},
        {"url": None, "html": "<p>b</p>", "snapshot": 5},
    ]
    texts = [
        {"url": "u", "text_list": ["t\ud800", None], "image_list": [None, "https://x.org/\ud800.png"], "language": "e\ud800"},
        {"url": "v", "text": "t", "metadata": '{"ft_lang_label": '},
        {"url": "w", "text": "t", "metadata": "[" * 100_000},
    ]
    for name, rows in (("pages", pages_), ("texts", texts)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (read,) = read_source(str(tmp_path / "pages.jsonl"), 0, ReadConfig())
    assert read.select(["id", "url", "snapshot", "html", "dropped"]).to_pylist() == [
        {"id": "\ufffd", "url": "https://x.org/\ufffd", "snapshot": "\ufffd", "html": "<p>a\ufffd</p>".encode(), "dropped": None},
        {"id": "0-1", "url": "", "snapshot": "5", "html": b"<p>b</p>", "dropped": None},
    ]
    (read,) = read_source(str(tmp_path / "texts.jsonl"), 0, ReadConfig())
    assert read["dropped"].to_pylist() == [None] * 3
    assert read["text_list"].to_pylist() == [["t\ufffd", None], ["t"], ["t"]]
    assert read["image_list"][0].as_py() == [None, "https://x.org/\ufffd.png"]
    assert read["language"].to_pylist() == ["e\ufffd", None, None]
    assert rules(RulesConfig())(read)["dropped"].to_pylist() == ["Unicode error", None, None], "half a character is a broken one"


def test_rows_of_parquet_that_python_cannot_hold_are_counted_and_the_others_read(tmp_path: Path) -> None:
    texts = pa.array([b"one", b"\xff\xfe", b"three", b"four"]).view(pa.string())  # one of them is no UTF-8
    far = pa.array([0, 0, 2**53, 0], pa.timestamp("s"))  # a year that Python has not
    pq.write_table(pa.table({"text": texts, "crawled": far, "url": ["a", "b", "c", "d"]}), tmp_path / "a.parquet")
    (table,) = read_source(str(tmp_path / "a.parquet"), 0, ReadConfig())
    assert table["dropped"].to_pylist() == [None, "unreadable: not UTF-8", "unreadable: a value that cannot be read", None]
    assert table["url"].to_pylist() == ["a", "", "", "d"]


def test_documents_whose_images_are_no_addresses_are_counted_as_that(tmp_path: Path) -> None:
    images = pa.array([[None, b"\x89PNG"]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"text_list": [["t", None]], "image_list": images}), tmp_path / "a.parquet")
    (table,) = read_source(str(tmp_path / "a.parquet"), 0, ReadConfig())
    assert table["dropped"].to_pylist() == ["unreadable: images that are no addresses"]


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a" * 1000]}), tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(BadInput, match=r"a\.parquet: is damaged, cut off, or no Parquet file"):
        list(read_source(str(tmp_path / "a.parquet"), 0, ReadConfig()))


def test_record_types_of_a_file_are_few_whatever_it_says(tmp_path: Path) -> None:
    """Each reason is counted and shown: a stranger must not make a million of them."""
    kinds = ["request", "revisit", *(f"x{n}" for n in range(50))]
    (tmp_path / "a.warc").write_bytes(b"".join(record("https://x.org/", kind=kind) for kind in kinds))
    (table,) = read_source(str(tmp_path / "a.warc"), 0, ReadConfig())
    assert set(table["dropped"].to_pylist()) == {"record type request", "record type revisit", "record type unknown"}
