"""A crawl in an object store: a real server in a process of its own, named by the environment as a person would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.curate.addresses import find_sources
from headstart.curate.config import CurateConfig, ReadConfig
from headstart.curate.pipeline import curate
from headstart.curate.sources import read_source
from tests.curate.crawl import crawl
from tests.faithfulness.test_webmath_pipeline import digest
from tests.running import quiet
from tests.s3_server import s3_server, store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Path], str]]:
    """The files of a crawl on this machine, and the folder of the same in an object store."""
    files = crawl(tmp_path_factory.mktemp("crawl"), files=2, pages_each=6)
    with s3_server():
        fs = store()
        fs.mkdir("crawls")
        for file in files:
            fs.put_file(str(file), f"crawls/2023/{file.name}")
        yield files, "s3://crawls/2023"


def test_the_same_corpus_comes_out(crawled: tuple[list[Path], str], tmp_path: Path) -> None:
    files, address = crawled
    curate("extract", [f"{address}/*.warc.gz"], tmp_path / "remote", CurateConfig(), say=quiet)
    curate("extract", sorted(map(str, files)), tmp_path / "local", CurateConfig(), say=quiet)
    assert digest(tmp_path / "remote" / "documents", address) == digest(tmp_path / "local" / "documents", files[0].parent)


def test_what_is_not_there_or_not_whole_is_said(crawled: tuple[list[Path], str]) -> None:
    files, address = crawled
    with pytest.raises(BadInput, match=r"s3://crawls/2023/none\.warc cannot be reached \(FileNotFoundError"):
        find_sources([f"{address}/none.warc"])
    with pytest.raises(BadInput, match="names no file"):
        find_sources([f"{address}/*.jsonl"])
    whole = files[0].read_bytes()
    store().pipe_file("crawls/2023/cut.warc.gz", whole[:-100])
    reasons = [reason for table in read_source(f"{address}/cut.warc.gz", 0, ReadConfig()) for reason in table["dropped"].to_pylist()]
    assert reasons[-1] == "unreadable: truncated gzip member"
    assert reasons.count(None) == 5
    (source,) = find_sources([f"{address}/cut.warc.gz"])
    store().rm_file("crawls/2023/cut.warc.gz")
    with pytest.raises(BadInput, match=r"cut\.warc\.gz: cannot be read \(FileNotFoundError"):
        list(read_source(source.address, 0, ReadConfig(tries=1)))


def test_a_store_that_does_not_answer_is_said(crawled: tuple[list[Path], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(BadInput, match=r"s3://elsewhere/a\.warc cannot be reached \(EndpointConnectionError"):
        find_sources(["s3://elsewhere/a.warc"], ReadConfig(timeout_s=3, tries=1))
