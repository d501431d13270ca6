"""Input from web servers of every temper: what breaks off is taken up again, what does not come is an error that names the file, and never damage."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import random
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput, MachineError
from headstart.curate.addresses import find_sources, open_source
from headstart.curate.config import CurateConfig, ReadConfig
from headstart.curate.pipeline import curate
from headstart.curate.sources import read_source
from tests.curate.crawl import crawl, record
from tests.faithfulness.test_webmath_pipeline import digest
from tests.running import quiet

HASTY = ReadConfig(timeout_s=0.5, tries=1)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` at /TEMPER/NAME; `asked` remembers (method, path, range)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken = False
        self.ending = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def address(self, temper: str, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{temper}/{name}"

    def handle_error(self, *arguments: Any) -> None:
        """A client that hangs up is no news."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        temper, _, name = self.path.strip("/").partition("/")
        wanted = self.headers.get("Range")
        self.server.asked.append((self.command, self.path, wanted))
        data = self.server.files[name]
        if temper.isdigit():
            self.send_error(int(temper))
            return
        if temper == "silent" and with_body:
            self.server.ending.wait(20)
            return
        if temper in ("ranges", "shorter") and wanted and with_body:
            start, stop = wanted.removeprefix("bytes=").split("-")
            part = data[: len(data) // 2 if temper == "shorter" else None][int(start) : int(stop) + 1]
            self.send_response(206 if part else 416)
            self.send_header("Content-Range", f"bytes {start}-{stop}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)
            return
        self.send_response(200)
        self.send_header(*(("Connection", "close") if temper == "no-size" else ("Content-Length", str(len(data)))))
        self.end_headers()
        first = sum(asked[:2] == ("GET", self.path) for asked in self.server.asked) == 1
        breaks = temper == "breaks" or (temper == "breaks-once" and first) or (temper == "fickle" and self.server.broken)
        if with_body:
            self.wfile.write(data[: len(data) // 2] if breaks else data)
        self.close_connection = breaks or temper == "no-size"

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started
    started.ending.set()
    started.shutdown()


@cache
def large(name: str) -> bytes:
    """A file of 12 MB (6 MB in gzip), more than fsspec reads at once."""
    rows = [{"url": f"https://x.org/{number}", "html": random.Random(number).randbytes(60_000).hex()} for number in range(100)]
    if name == "a.parquet":
        data = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), data)
        return data.getvalue()
    if name == "a.warc":
        return b"".join(record(row["url"], row["html"]) for row in rows)
    lines = "\n".join(map(json.dumps, rows)).encode()
    return gzip.compress(lines, 1) if name.endswith(".gz") else lines


def urls(address: str, config: ReadConfig = HASTY) -> list[str]:
    """The addresses of the pages that are read; nothing may count as damage."""
    tables = list(read_source(address, 0, config))
    assert all(reason is None for table in tables for reason in table["dropped"].to_pylist())
    return [url for table in tables for url in table["url"].to_pylist()]


NAMES = ("a.jsonl", "a.jsonl.gz", "a.warc", "a.parquet")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_read_whole_with_ranges_without_them_and_without_its_size(server: Server, name: str) -> None:
    server.files[name] = large(name)
    for temper in ("ranges", "plain", "no-size"):
        if (name, temper) == ("a.parquet", "no-size"):
            with pytest.raises(BadInput, match="comes without its size"):
                urls(server.address(temper, name))
            continue
        (source,) = find_sources([server.address(temper, name)])
        assert source.size == (-1 if temper == "no-size" else len(server.files[name]))
        assert urls(source.address) == [f"https://x.org/{number}" for number in range(100)], temper
    assert len([asked for asked in server.asked if asked[0] == "GET" and asked[1].startswith("/ranges")]) > 1, "it is read in pieces"


def test_what_is_asked_of_a_server_is_no_part_of_a_files_name(server: Server) -> None:
    server.files["a.warc?token=1"] = record("https://x.org/")
    (source,) = find_sources([server.address("ranges", "a.warc?token=1")])
    assert urls(source.address) == ["https://x.org/"]
    for address in ("a.txt", "a"):
        with pytest.raises(BadInput, match=r"is none of \.warc"):
            find_sources([server.address("ranges", address)])


@pytest.mark.parametrize("name", NAMES)
def test_what_breaks_off_is_taken_up_again(server: Server, name: str) -> None:
    server.files[name] = large(name)
    assert len(urls(server.address("breaks-once", name), ReadConfig(tries=2))) == 100


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("temper", "says"),
    [("breaks", "ClientPayloadError"), ("shorter", "it ends there, and has"), ("silent", "no answer in time; --read"), ("404", "answers 404")],
)
def test_what_does_not_come_is_an_error_that_names_the_file(server: Server, name: str, temper: str, says: str) -> None:
    server.files[name] = large(name)
    address = server.address(temper, name)
    with pytest.raises(BadInput, match=says) as error:
        urls(address)
    assert str(error.value).startswith(f"{address}: cannot be read")
    assert "give the same command: it goes on" in str(error.value)


def test_an_address_that_cannot_be_asked_for_says_why(server: Server) -> None:
    server.files["a.warc"] = b""
    for status, tries in (("404", 1), ("403", 1), ("503", 2)):
        server.asked.clear()
        with pytest.raises(BadInput, match=rf"a\.warc cannot be reached \(the server answers {status}"):
            find_sources([server.address(status, "a.warc")], ReadConfig(tries=2))
        assert len(server.asked) == 2 * tries, "what another try may change is asked for again"
    with pytest.raises(BadInput, match=r"cannot be opened: Protocol not known: nothing\."):
        find_sources(["nothing://bucket/a.warc"])
    with pytest.raises(MachineError, match=r"gs:// addresses cannot be read: .*gcsfs"):
        find_sources(["gs://bucket/a.warc"])


def test_a_file_that_is_not_on_this_machine_says_where_it_must_be(tmp_path: Path) -> None:
    """As on a cluster whose machines do not see the same folders."""
    with pytest.raises(BadInput, match=r"gone\.warc: cannot be read \(No such file or directory\)\.\nCheck the file; on a cluster every machine"):
        list(read_source(str(tmp_path / "gone.warc"), 0, ReadConfig()))


def test_a_bomb_a_cut_file_and_a_broken_connection_are_told_apart(server: Server, tmp_path: Path) -> None:
    reasons = {}
    for name, data in (("bomb.jsonl.gz", gzip.compress(bytes(300_000_000), 9)), ("cut.jsonl.gz", large("a.jsonl.gz")[:-1000])):
        (tmp_path / name).write_bytes(data)
        reasons[name] = [reason for table in read_source(str(tmp_path / name), 0, ReadConfig()) for reason in table["dropped"].to_pylist() if reason]
    assert reasons == {"bomb.jsonl.gz": ["unreadable: decompression bomb"], "cut.jsonl.gz": ["unreadable: damaged compression"]}
    server.files["a.jsonl.gz"] = large("a.jsonl.gz")
    with pytest.raises(BadInput, match="cannot be read"):
        urls(server.address("breaks", "a.jsonl.gz"))


def test_a_place_in_a_remote_file_can_be_looked_at_again(server: Server) -> None:
    server.files["a.jsonl"] = data = large("a.jsonl")
    for temper in ("ranges", "plain"):
        with open_source(server.address(temper, "a.jsonl"), HASTY) as file:
            for start in (6_500_000, 10, 6_000_000):  # forth and back
                file.seek(start)
                assert file.read(50) == data[start : start + 50], temper


@pytest.mark.slow
def test_a_curation_over_the_network_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    """The second file breaks off; when it comes, the same command ends with what files of this machine give."""
    files = crawl(tmp_path / "crawl", files=2, pages_each=6)
    server.files = {file.name: file.read_bytes() for file in files}
    addresses = [server.address("ranges", files[0].name), server.address("fickle", files[1].name)]
    config = CurateConfig(read=ReadConfig(timeout_s=2, tries=1))
    server.broken = True
    with pytest.raises(BadInput, match=rf"fickle/{files[1].name}: cannot be read"):
        curate("extract", addresses, tmp_path / "out", config, say=quiet)
    server.broken = False
    assert curate("extract", addresses, tmp_path / "out", config, say=quiet).stages[-1].kept == 13
    curate("extract", [str(file) for file in files], tmp_path / "local", config, say=quiet)
    assert digest(tmp_path / "out" / "documents", *addresses) == digest(tmp_path / "local" / "documents", *files)
