"""Source -> store: what is in it, the same bytes every time, resumed after a kill, and bad input by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headstart.core.errors import BadInput, OtherStore, UsageError
from headstart.core.files import sha256_file
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.encode import encode_parts
from headstart.data.interleaved.read import find_documents
from headstart.data.interleaved.store import InterleavedStore, open_interleaved_store, prepare_interleaved
from tests.data.interleaved.conftest import page, write_images, write_lines

CONFIG = {"vocab_size": 300, "image_size": 8, "held_out_share": 0.1}


def prepared(source: Path, out: Path, **settings: object) -> InterleavedStore:
    return prepare_interleaved([source], out, InterleavedConfig(**{**CONFIG, **settings}))  # type: ignore[arg-type]


def told(number: int) -> list[str]:
    """The texts of a page of the corpus."""
    return [text for text in page(number, None)["text_list"] if text is not None]


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*.npy"))}


def test_a_store_holds_the_documents_with_their_images_in_place(corpus: Path, tmp_path: Path) -> None:
    store = prepared(corpus, tmp_path / "store")
    counts = store.manifest["counts"]
    assert (counts["documents"], counts["placed_images"], counts["images"], counts["missing_images"]) == (40, 30, 12 - 3, 0)
    assert store.images is not None
    number = int(store.document(1)[2][0])
    assert store.marked(1) == f"[image {number}]".join(told(1))
    assert store.images.source(number)[0].endswith("/1.png")
    assert store.marked(3) == "".join(told(3))
    store.verify()


def test_parquet_and_the_other_layout_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    records = [json.loads(line) for line in corpus.read_text().splitlines()]
    columns = {name: [record[name] for record in records] for name in records[0]}
    pq.write_table(pa.table(columns), corpus.parent / "pages.parquet")
    renamed = {"texts": columns["text_list"], "images": columns["image_list"], "metadata": columns["metadata"], "general_metadata": columns["URL"]}
    pq.write_table(pa.table(renamed), corpus.parent / "obelics.parquet")
    first = hashes(prepared(corpus, tmp_path / "one").folder)
    assert hashes(prepared(corpus.parent / "pages.parquet", tmp_path / "two").folder) == first
    assert hashes(prepared(corpus.parent / "obelics.parquet", tmp_path / "three").folder) == first


def test_encoding_goes_on_after_its_last_whole_part(corpus: Path, tmp_path: Path) -> None:
    store, files = prepared(corpus, tmp_path / "store"), find_documents([corpus]).files
    parts = encode_parts(files, store.tokenizer, InterleavedConfig(**CONFIG), tmp_path / "parts", per_part=7)  # type: ignore[arg-type]
    whole = {path.name: path.read_bytes() for path in parts}
    assert len(whole) == 6
    for path in parts[3:]:
        path.unlink()
    kept = [path.stat().st_mtime_ns for path in parts[:3]]
    again = encode_parts(files, store.tokenizer, InterleavedConfig(**CONFIG), tmp_path / "parts", per_part=7)  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in again} == whole
    assert [path.stat().st_mtime_ns for path in parts[:3]] == kept


def test_a_damaged_image_stops_the_work_by_name_and_once_mended_it_goes_on(corpus: Path, tmp_path: Path) -> None:
    whole = hashes(prepared(corpus, tmp_path / "whole").folder)
    picture = corpus.parent / "5.png"
    good = picture.read_bytes()
    picture.write_bytes(good[:60])
    with pytest.raises(BadInput, match=r"5\.png"):
        prepared(corpus, tmp_path / "store")
    (part,) = (tmp_path / "store" / ".work" / "parts").iterdir()
    made = part.stat().st_ino
    picture.write_bytes(good)
    (tmp_path / "link").hardlink_to(part)
    assert hashes(prepared(corpus, tmp_path / "store").folder) == whole
    assert (tmp_path / "link").stat().st_ino == made
    assert (tmp_path / "link").read_bytes()


def test_damaged_images_can_be_left_out_with_their_markers(corpus: Path, tmp_path: Path) -> None:
    (corpus.parent / "5.png").write_bytes(b"no image")
    store = prepared(corpus, tmp_path / "store", on_bad_input="quarantine", max_bad_share=0.2)
    assert store.manifest["counts"]["damaged_images"] == 3
    assert store.marked(5) == "".join(told(5))
    assert "5.png" in (tmp_path / "store" / "images" / "quarantine.jsonl").read_text()


def test_images_that_are_not_there_are_left_out_and_counted(tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 2)
    addresses = ["https://example.org/a.png", "https://example.org/b.png", "https://example.org/c.png"]
    folder = tmp_path / "fetched"
    write_images(folder, 2)
    (folder / "1.png").rename(folder / f"{hashlib.sha256(addresses[1].encode()).hexdigest()}.png")
    answers = [{"url": addresses[0], "status": "timeout", "file": None}, {"url": addresses[2], "status": "no image", "file": None}]
    log = write_lines(folder / "answers.jsonl", [*answers, {"url": addresses[0], "status": "fetched", "file": "0.png"}])
    strange = ["[1]", '{"url": 7}', '{"url": ["u"], "file": "0.png"}', json.dumps({"url": addresses[2], "file": "x" * 300})]
    log.write_text(log.read_text() + "\0" * 4096 + "\n" + "\n".join(strange) + '\n{"url": "https://exam')  # as a power cut and a kill leave it
    pages = [page(n, address) for n, address in enumerate(addresses)] + [page(3, names[0]), page(4, None)]
    source = write_lines(tmp_path / "data" / "pages.jsonl", pages)
    store = prepared(source, tmp_path / "store", images=str(folder))
    assert store.manifest["counts"]["missing_images"] == 1
    assert [len(store.document(n)[1]) for n in range(5)] == [1, 1, 0, 1, 0]
    assert prepared(source, tmp_path / "beside").manifest["counts"]["missing_images"] == 3, "without the folder an address is nowhere"


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname"])
def test_an_image_outside_of_the_folder_is_bad_input(name: str, corpus: Path, tmp_path: Path) -> None:
    with corpus.open("a") as lines:
        lines.write(json.dumps(page(41, name)) + "\n")
    with pytest.raises(BadInput, match="outside") as caught:
        prepared(corpus, tmp_path / "store")
    assert (caught.value.record, caught.value.file) == (41, str(corpus))
    assert "--interleaved.on-bad-input quarantine" in caught.value.mend


def test_a_bad_record_stops_the_work_by_its_number_or_is_quarantined(corpus: Path, tmp_path: Path) -> None:
    with corpus.open("a") as lines:
        lines.write('{"text_list": ["a"], "image_list": []}\n')
    with pytest.raises(BadInput, match="record 41") as caught:
        prepared(corpus, tmp_path / "stop")
    assert "image_list 0" in caught.value.reason
    store = prepared(corpus, tmp_path / "store", on_bad_input="quarantine")
    assert store.manifest["counts"]["quarantined"] == 1
    (line,) = [json.loads(line) for line in (store.folder / "quarantine.jsonl").read_text().splitlines()]
    assert line["record"] == 41
    with pytest.raises(BadInput, match=r"more than --interleaved\.max-bad-share allows"):
        prepared(corpus, tmp_path / "strict", on_bad_input="quarantine", max_bad_share=0.01)


def test_a_finished_store_is_opened_and_another_one_is_refused_with_the_difference(corpus: Path, tmp_path: Path) -> None:
    store = prepared(corpus, tmp_path / "store")
    made = (store.folder / "manifest.json").stat().st_mtime_ns
    prepared(corpus, tmp_path / "store", workers=1)
    assert (store.folder / "manifest.json").stat().st_mtime_ns == made
    with pytest.raises(OtherStore, match="vocab_size 300 -> 301"):
        prepared(corpus, tmp_path / "store", vocab_size=301)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(corpus.parent / "1.png")
    with pytest.raises(OtherStore, match=r"images: 1 changed input files \(.*1\.png\)"):
        prepared(corpus, tmp_path / "store")


def test_captions_that_repeat_each_other_are_no_near_duplicates_and_texts_are(tmp_path: Path) -> None:
    names = write_images(tmp_path / "data", 40)
    long = "the quick brown fox jumps over the lazy dog and runs away from all the hounds of the old town"
    pairs = [{"image": name, "caption": long} for name in names]
    texts = [{"text": f"{long} {n}"} for n in range(40)]
    store = prepared(write_lines(tmp_path / "data" / "pairs.jsonl", pairs), tmp_path / "pairs")
    assert store.manifest["counts"]["near_duplicate_documents"] == 0
    texts.append({"text": "something else entirely, of which no word was said before"})
    store = prepared(write_lines(tmp_path / "data" / "all.jsonl", texts), tmp_path / "texts")
    assert store.manifest["counts"]["near_duplicate_documents"] > 30


def test_a_damaged_store_is_refused(corpus: Path, tmp_path: Path) -> None:
    store = prepared(corpus, tmp_path / "store")
    places = np.array(store.image_places)
    places[3] = 10_000
    np.save(store.folder / "image_places.npy", places)
    with pytest.raises(BadInput, match="does not fit the other arrays"):
        open_interleaved_store(store.folder)


def test_other_files_are_refused_where_they_are_named_and_passed_over_in_a_folder(corpus: Path, tmp_path: Path) -> None:
    note = corpus.parent / "note.txt"
    note.write_text("a text")
    with pytest.raises(BadInput, match="no interleaved documents"):
        prepared(note, tmp_path / "one")
    store = prepared(corpus.parent, tmp_path / "two")
    assert store.manifest["passed_over"][".txt"] == 1
    with pytest.raises(UsageError, match="would lie inside the data folder"):
        prepared(corpus.parent, corpus.parent / "store")
