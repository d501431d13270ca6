"""Fetching images: only what is public, allowed, small and a picture; what is there is not asked for again."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headstart.curate.config import CurateConfig, ImagesConfig, RulesConfig
from headstart.curate.download import NotFetched, carry_images, fetch_images, public, real_image
from headstart.curate.pipeline import curate
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.store import prepare_interleaved
from tests.running import quiet

OPEN = ImagesConfig(allow_private=True, delay_s=0, max_image_mb=1)
DOWNLOAD = CurateConfig(images=replace(OPEN, https=False, download=True))


def picture(form: str, size: tuple[int, int] = (8, 6)) -> bytes:
    data = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(data, form)
    return data.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.robots = (200, b"User-agent: *\nDisallow: /secret")
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        bodies = {"/big": bytes(3_000_000), "/gif": picture("GIF"), "/html": b"<html>"}
        bodies |= {"/a.png": picture("PNG"), "/b.jpg": picture("JPEG"), "/copy.png": picture("PNG")}
        moved = {"/moved": "/a.png", "/inward": "http://127.0.0.1:1/x", "/loop": "/loop"}
        if self.path == "/robots.txt":
            self.send_response(self.server.robots[0])
            self.end_headers()
            self.wfile.write(self.server.robots[1])
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
        elif self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
        elif self.path in bodies:
            self.send_response(200)
            if self.path != "/big":  # and says not how large it is
                self.send_header("Content-Length", str(len(bodies[self.path])))
            self.end_headers()
            self.wfile.write(bodies[self.path])
        else:
            self.send_error(404)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    threading.Thread(target=started.serve_forever, daemon=True).start()
    yield started
    started.shutdown()


def statuses(urls: list[str], folder: Path, config: ImagesConfig = OPEN) -> dict[str, str]:
    table = fetch_images(urls, folder, config, say=lambda line: None)
    assert table["url"].to_pylist() == sorted(set(urls))
    return dict(zip(table["url"].to_pylist(), table["status"].to_pylist(), strict=True))


def test_each_address_has_its_answer(server: Server, tmp_path: Path) -> None:
    expected = {
        "/a.png": "fetched", "/b.jpg": "fetched", "/copy.png": "fetched", "/moved": "fetched", "/big": "too large", "/gif": "no PNG or JPEG",
        "/html": "no PNG or JPEG", "/404": "status 404", "/secret/x.png": "robots.txt forbids it", "/loop": "too many redirects",
    }  # fmt: skip
    found = statuses([server.root + path for path in expected], tmp_path)
    assert {url.removeprefix(server.root): status for url, status in found.items()} == expected
    assert "/secret/x.png" not in server.asked
    assert len(list(tmp_path.glob("*/*.png"))) == 1, "the same picture is kept once"
    asked = len(server.asked)
    assert statuses([server.root + path for path in expected], tmp_path) == found
    assert len(server.asked) == asked, "nothing is asked for twice"


def test_what_keeps_an_image_away_has_its_own_name(server: Server, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, and not listening
        closed = f"http://127.0.0.1:{nobody.getsockname()[1]}/a.png"
        expected = {f"{server.root}/cut": "cut off", closed: "no connection", "http://[broken/a.png": "no web address", "data:,x": "no web address"}
        assert statuses([*expected], tmp_path) == expected
    asked = server.asked.count("/cut")
    statuses([*expected], tmp_path)
    assert server.asked.count("/cut") > asked, "what may come the next time is asked for again"


def test_a_host_that_is_silent_is_left(server: Server, tmp_path: Path) -> None:
    """Not for the time of thousands of images; another host goes on, and the next call asks again."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = [f"http://localhost:{nobody.getsockname()[1]}/{n:02d}.png" for n in range(12)]
        found = statuses([*closed, f"{server.root}/a.png"], tmp_path, replace(OPEN, per_host=1))
        assert [found[url] for url in closed] == ["no connection"] * 5 + ["host does not answer"] * 7
        assert found[f"{server.root}/a.png"] == "fetched"
        assert set(statuses(closed[5:6], tmp_path).values()) == {"no connection"}
    said: list[str] = []
    fetch_images([f"{server.root}/{name}" for name in ("a.png", "404", "405", "gif")], tmp_path, OPEN, said.append)
    assert said == ["images: 1 of 4 fetched; not: status 404 2, no PNG or JPEG 1"]


@pytest.mark.parametrize(
    ("robots", "status", "answers"),
    [
        (b"\xef\xbb\xbfUser-agent: *\nDisallow: /a", 200, "robots.txt forbids it"),
        ("User-agent: *\nCrawl-delay: \u00b2\nRequest-rate: 1/\u00b2\nDisallow: /b".encode(), 200, "fetched"),
        (b"User-agent: *\nCrawl-delay: " + b"9" * 5000 + b"\nDisallow: /a", 200, "robots.txt forbids it"),
        (b"\xff\x00" * 100, 200, "fetched"),
        (b"", 503, "robots.txt cannot be read"),
        (b"", 404, "fetched"),
    ],
    ids=["mark", "odd numbers", "endless number", "nonsense", "server error", "none"],
)
def test_rules_of_any_kind_are_followed(robots: bytes, status: int, answers: str, server: Server, tmp_path: Path) -> None:
    server.robots = (status, robots)
    url = f"{server.root}/a.png"
    assert statuses([url], tmp_path) == {url: answers}
    server.robots = (404, b"")
    asked = server.asked.count("/a.png")
    statuses([url], tmp_path)
    assert server.asked.count("/a.png") - asked == (answers == "robots.txt cannot be read"), "what was not known is asked again"


def test_where_an_event_loop_runs_already_images_are_fetched_too(server: Server, tmp_path: Path) -> None:
    """As in a notebook."""

    async def cell() -> pa.Table:
        return fetch_images([server.root + "/a.png"], tmp_path, OPEN, quiet)

    assert asyncio.run(cell()).column("status").to_pylist() == ["fetched"]


def test_a_killed_download_goes_on(server: Server, tmp_path: Path) -> None:
    statuses([f"{server.root}/a.png"], tmp_path)
    log = tmp_path / "answers.jsonl"
    log.write_text(log.read_text() + '{"url": "cut of')
    both = [f"{server.root}/a.png", f"{server.root}/b.jpg"]
    assert statuses(both, tmp_path) == dict.fromkeys(both, "fetched")
    assert server.asked.count("/a.png") == 1
    next(tmp_path.glob("*/*.png")).unlink()
    statuses([f"{server.root}/a.png"], tmp_path)
    assert server.asked.count("/a.png") == 2


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "10.1.2.3", "169.254.169.254", "[::1]",
        "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "0", "\uff11\uff12\uff17.0.0.1", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]",
    ],
    ids=ascii,
)  # fmt: skip
def test_nothing_is_asked_of_a_private_network(server: Server, host: str, tmp_path: Path) -> None:
    url = f"http://{host}:{server.server_port}/a.png"
    assert statuses([url], tmp_path, ImagesConfig(delay_s=0)) == {url: "private address"}
    assert server.asked == []


def test_which_addresses_are_public() -> None:
    assert public("93.184.215.14")
    assert public("2606:4700::1111")
    assert public("64:ff9b::808:808")
    held = ("64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1", "::ffff:10.0.0.1")
    for address in (*held, "192.168.1.1", "100.64.0.1", "0.0.0.0", "fe80::1%eth0", "fc00::1", "224.0.0.1"):
        assert not public(address), address


def test_a_picture_is_looked_at_before_its_pixels_are_made() -> None:
    assert real_image(picture("PNG", (3, 2))) == ("PNG", 3, 2)
    header = bytearray(picture("PNG"))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    for data, says in ((bytes(header), "too many pixels|no PNG"), (picture("PNG")[:40], "no PNG"), (b"", "no PNG"), (picture("BMP"), "no PNG")):
        with pytest.raises(NotFetched, match=says):
            real_image(data)


GOOD = {"url": "u", "status": "fetched", "file": f"0a/{'0a' * 32}.png", "sha256": "0a" * 32, "width": 8, "height": 6}


@pytest.mark.parametrize(
    "wrong",
    [
        {"file": 7}, {"url": ["u"]}, {"file": "x" * 300}, {"file": "a\0b"}, {"file": "../answers.jsonl"}, {"file": "answers.jsonl"},
        {"status": ["fetched"]}, {"status": "\ud800"}, {"width": "8"}, {"height": 2**40}, {"width": True},
        {"sha256": None}, {"file": None}, {"more": 1},
    ],
    ids=lambda wrong: next(f"{name}-{ascii(value)[:12]}" for name, value in wrong.items()),
)  # fmt: skip
def test_of_another_log_of_answers_only_what_it_can_hold_is_carried(wrong: dict[str, Any], tmp_path: Path) -> None:
    """The folder of a stranger stops no curation."""
    images = tmp_path / "images"
    (images / "0a").mkdir(parents=True)
    (images / GOOD["file"]).write_bytes(picture("PNG"))
    (images / "answers.jsonl").write_text(json.dumps(GOOD | wrong) + "\n" + json.dumps(GOOD | {"url": "v"}) + "\n")
    carry_images([images], tmp_path / "to", {"u", "v"}, quiet)
    assert [json.loads(line)["url"] for line in (tmp_path / "to" / "answers.jsonl").read_text().splitlines()] == ["v"]
    assert fetch_images(["v"], tmp_path / "to", OPEN, quiet)["width"].to_pylist() == [8]


def test_images_behind_a_link_are_left_and_counted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / Path(GOOD["file"]).name).write_bytes(picture("PNG"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "0a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "answers.jsonl").write_text(json.dumps(GOOD) + "\n")
    said: list[str] = []
    carry_images([tmp_path / "images"], tmp_path / "to", {"u"}, said.append)
    assert said == ["images: 1 of the input lie outside of their folder (behind a link) and are left"]
    assert (tmp_path / "to" / "answers.jsonl").read_text() == ""


def with_images(server: Server, folder: Path) -> Path:
    """The corpus of nine documents that name three images, of which two arrive."""
    images = [server.root + name for name in ("/a.png", "/b.jpg", "/404")]
    rows = [{"url": f"https://x.org/{n}", "text_list": [f"Figure {n} shows it.", None], "image_list": [None, images[n % 3]]} for n in range(9)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = curate("images", [str(folder / "rows.jsonl")], folder / "corpus", DOWNLOAD, say=lambda line: None)
    assert done.stages[-1].items == {"image: not fetched": 3}
    return folder / "corpus"


def prepared(corpus: Path, store: Path) -> dict[str, int]:
    counts = prepare_interleaved([corpus], store, InterleavedConfig(vocab_size=300, image_size=8, held_out_share=0.0)).manifest["counts"]
    return {name: counts[name] for name in ("documents", "images", "placed_images", "missing_images")}


@pytest.mark.slow
def test_fetched_images_train_without_being_told_where_they_lie(server: Server, tmp_path: Path) -> None:
    """From addresses to an image store by the folder of the curation alone."""
    corpus = with_images(server, tmp_path)
    assert prepared(corpus, tmp_path / "store") == {"documents": 9, "images": 2, "placed_images": 6, "missing_images": 0}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_corpus_that_is_curated_again_keeps_its_images(form: Any, server: Server, tmp_path: Path) -> None:
    """Their hashes in the metadata, and the files of those that are still named, without asking anyone; a download asks for the others alone."""
    corpus = with_images(server, tmp_path)
    asked = len(server.asked)
    curate("urls", [str(corpus)], tmp_path / "again", CurateConfig(form=form), say=lambda line: None)
    before, after = (sorted(rows(folder), key=lambda row: row["URL"]) for folder in (corpus, tmp_path / "again"))
    assert after == before
    assert [set(one) for one in json.loads(after[0]["metadata"])["images"]] == [{"url", "status", "sha256", "width", "height", "file"}]
    assert prepared(tmp_path / "again", tmp_path / "store") == {"documents": 9, "images": 2, "placed_images": 6, "missing_images": 0}
    assert sorted(path.stat().st_nlink for path in (tmp_path / "again" / "images").glob("*/*")) == [2, 2], "links, where the disk has them"

    curate("urls", [str(corpus)], tmp_path / "obelics", CurateConfig(form=form, layout="obelics"), say=quiet)
    assert len(list((tmp_path / "obelics" / "images").glob("*/*"))) == 2

    numbers = [row["URL"][-1] for row in before if row["image_list"][-1] == f"{server.root}/b.jpg"]  # which stand in the texts
    (tmp_path / "words.txt").write_text("\n".join(numbers) + "\n")
    without = CurateConfig(rules=RulesConfig(nsfw_words=tmp_path / "words.txt"), form=form)
    curate("rules", [str(corpus)], tmp_path / "fewer", without, say=lambda line: None)
    assert {path.suffix for path in (tmp_path / "fewer" / "images").glob("*/*")} == {".png"}, "no document names the other any more"
    assert len(server.asked) == asked
    curate("images", [str(corpus)], tmp_path / "more", DOWNLOAD, say=lambda line: None)
    assert len(server.asked) == asked, "all that are named are there"


def rows(corpus: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in sorted((corpus / "documents").glob("shard-*")):
        found += pq.read_table(file).to_pylist() if file.suffix == ".parquet" else [json.loads(line) for line in file.read_text().splitlines()]
    return found
