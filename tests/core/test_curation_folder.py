"""The folder of a curation given as data: its documents and images are read, what lies beside them is not; half a corpus is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.catalog.folder import what_lies_here
from headstart.core.curation import data_of, images_beside, is_curation
from headstart.core.errors import BadInput
from headstart.curate.addresses import find_sources
from headstart.data.image.sources import find_images
from headstart.data.interleaved.images import ImageFinder
from headstart.data.interleaved.read import find_documents
from headstart.data.text.pool import read_pool
from headstart.data.text.sources import find_inputs

ADDRESS = "https://x.org/a.png"


def shard(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"URL": "u", "text_list": [text, None], "image_list": [None, ADDRESS], "metadata": "{}"} for text in texts]
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def curation(tmp_path: Path) -> Path:
    """A finished one of two shards, with all that lies in its folder."""
    out = tmp_path / "corpus"
    shard(out / "documents" / "shard-00000.parquet", "one", "two")
    shard(out / "documents" / "shard-00001.parquet", "three")
    (out / "documents" / "counts").mkdir()
    (out / "documents" / "counts" / "shard-00000.json").write_text(json.dumps({"bytes": 1, "stages": ["samples " * 2000]}))
    (out / "answers").mkdir()
    pq.write_table(pa.table({"order": [1], "reason": ["r"], "other": [2]}), out / "answers" / "urls.parquet")
    (out / "images" / "ab").mkdir(parents=True)
    (out / "images" / "ab" / "abc.png").write_bytes(b"a picture")
    (out / "images" / "answers.jsonl").write_text(json.dumps({"url": ADDRESS, "status": "fetched", "file": "ab/abc.png"}) + "\n")
    (out / "curate.json").write_text(json.dumps({"recipe": "webmath", "stages": ["images"], "sources": [["a.warc", 1], ["b.warc", 1]]}))
    (out / "counts.json").write_text(json.dumps({"stages": [{"kept": 3}]}))
    (out / "report.html").write_text("<p>")
    return out


def names(folder: Path, files: Any) -> list[str]:
    return [str(Path(file.path).relative_to(folder)) for file in files]


def test_a_finished_curation_is_its_documents_and_images(curation: Path) -> None:
    shards = ["documents/shard-00000.parquet", "documents/shard-00001.parquet"]
    for folder in (curation, curation / "documents", curation.parent):  # itself, its documents, and a folder that it lies in
        assert names(curation, find_inputs([folder]).files) == shards
        assert names(curation, find_documents([folder]).files) == shards
        assert [source.address for source in find_sources([str(folder)])] == [str(curation / name) for name in shards]
        assert [document.text for document in read_pool([folder])] == ["one", "two", "three"]
    assert names(curation, find_images([curation]).files) == ["images/ab/abc.png"], "its documents are no images"
    assert what_lies_here(curation).kinds == {"interleaved documents": 2, "text": 2, "images": 1}


def test_its_images_are_found_by_address_without_being_asked_for(curation: Path) -> None:
    document = curation / "documents" / "shard-00000.parquet"
    assert images_beside(document) == curation / "images"
    assert ImageFinder(None).find(ADDRESS, document) == curation / "images" / "ab" / "abc.png"
    assert ImageFinder(None).find("https://x.org/other.png", document) is None
    assert ImageFinder(None).find(ADDRESS, curation / "shard.parquet") is None
    (curation / "images" / "answers.jsonl").unlink()
    assert images_beside(document) is None


@pytest.mark.parametrize("given", ["", "documents", ".."])
def test_an_unfinished_an_empty_and_a_torn_one_are_refused_with_the_mend(curation: Path, given: str) -> None:
    folder = curation / given
    (curation / "documents" / "shard-00001.parquet").unlink()
    with pytest.raises(BadInput, match=r"shard-00001\.parquet: is missing from its curation"):
        find_inputs([folder])
    (curation / "counts.json").write_text(json.dumps({"stages": [{"kept": 0}]}))
    with pytest.raises(BadInput, match=r"kept no document\.\n`headstart curate --report .*corpus` says"):
        find_documents([folder])
    (curation / "counts.json").write_text("{}")
    with pytest.raises(BadInput, match=r"counts\.json: is no list of counts"):
        find_inputs([folder])
    (curation / "counts.json").unlink()
    for find in (find_inputs, find_documents, find_images):
        with pytest.raises(BadInput, match=r"corpus: is a curation that is not finished\.\nGive the command that curates again"):
            find([folder])
    assert names(curation, find_inputs([curation / "documents" / "*.parquet"]).files) == ["documents/shard-00000.parquet"], "by name they are read"


def test_a_file_of_the_same_name_makes_no_curation(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"recipe": "soup"}', '{"sources": []}'):
        (tmp_path / "curate.json").write_text(text)
        assert not is_curation(tmp_path), text
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    assert len(find_inputs([tmp_path]).files) == 1
    assert data_of(tmp_path, ["texts"], ["curate.json", "b.txt"]) == (["texts"], ["curate.json", "b.txt"])


def test_from_within_its_folder_the_dot_means_the_same(curation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(curation / "documents")
    assert len(find_inputs(["."]).files) == 2
    assert what_lies_here(".").kinds == {"interleaved documents": 2, "text": 2}, "no counts"
    (curation / "counts.json").unlink()
    with pytest.raises(BadInput, match="is not finished"):
        find_inputs(["."])
