"""What lies in a folder: kinds by ending and by the first record, and the cards that fit."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.catalog import card, cards
from headstart.catalog.folder import ENDINGS, READ_AS_TEXT, READ_COMPRESSED, TABLES, fitting, kinds_of_fields, what_lies_here
from headstart.cli.list import in_words
from headstart.core.errors import BadInput
from headstart.data.image.sources import KINDS
from headstart.data.text.sources import COMPRESSIONS, FORMATS


def write(path: Path, content: bytes | str = b"x" * 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tiff(bands: int, order: str = "<") -> bytes:
    """The header and first directory of a classic TIFF with one tag, SamplesPerPixel."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HIHHHIHH", 42, 8, 1, 277, 3, 1, bands, 0)


@pytest.mark.parametrize(
    ("record", "kinds"),
    [
        ({"text": ""}, ("text",)),
        ({"Text": "", "label": 1}, ("text", "labelled text")),
        ({"title": "", "text": "", "category": ""}, ("text", "records")),
        ({"code": "", "doc": ""}, ("code",)),
        ({"id": 1, "turns": []}, ("dialogue",)),
        ({"url": "", "html": ""}, ("html",)),
        ({"image": "", "captions": []}, ("captioned images",)),
        ({"URL": "", "text_list": [], "image_list": [], "metadata": ""}, ("interleaved documents", "text")),
        ({"texts": [], "images": [], "metadata": "", "general_metadata": ""}, ("interleaved documents", "text")),
        ({"image": "", "conversations": []}, ("interleaved documents",)),
        ({"images": [], "question": "", "answer": ""}, ("interleaved documents",)),
        ({"audio": "", "text": ""}, ("transcribed audio",)),
        ({"audio": "", "text": "", "translation": ""}, ("transcribed audio", "translated audio")),
        ({"page": "", "sections": []}, ("linked pages",)),
        ({"N": 1, "D": 1, "loss_general": 1, "loss_domain": 1}, ("loss table",)),
        ({"sequence": "", "value": 1}, ("scored objects",)),
        ({"rating": 1, "city": ""}, ("records",)),
        ({"n": 1}, ()),
    ],
)
def test_field_names_tell_the_kind(record: dict[str, object], kinds: tuple[str, ...]) -> None:
    assert kinds_of_fields(record) == kinds


def test_what_the_readers_take_is_known_by_its_ending() -> None:
    """`list --data` and the readers of texts and images speak of the same files."""
    pictures = {suffix for suffix, kind in KINDS.items() if kind == "picture"} - {".npy"}  # an array may be anything
    assert {suffix for suffix in pictures if ENDINGS.get(suffix) != "images"} == set()
    assert {suffix for suffix, form in FORMATS.items() if form in ("txt", "document") and ENDINGS.get(suffix) != "text"} == set()
    assert {suffix for suffix, form in FORMATS.items() if form not in ("txt", "document")} <= TABLES


def test_tables_are_read_in_every_form(tmp_path: Path) -> None:
    line = json.dumps({"code": "pass", "lang": "python"})
    write(tmp_path / "a.jsonl", line + "\n" + "not json, never read\n")
    write(tmp_path / "b.jsonl.gz", gzip.compress(line.encode()))
    with pa.output_stream(str(tmp_path / "c.jsonl.zst"), compression="zstd") as stream:
        stream.write(line.encode())
    write(tmp_path / "d.csv", 'code,lang\n"a,b",python\n')
    write(tmp_path / "e.tsv", "\ufeffcode\tlang\n")
    write(tmp_path / "f.json", json.dumps([{"code": "pass", "lang": "python"}]))
    pq.write_table(pa.table({"code": ["pass"], "lang": ["python"]}), tmp_path / "g.parquet")
    assert what_lies_here(tmp_path).kinds == {"code": 7}


def test_forms_that_no_reader_of_texts_takes_are_named(tmp_path: Path) -> None:
    """`list --data` called a .json file text that mlm fits, and `prepare` found no text there."""
    write(tmp_path / "a.json", json.dumps([{"text": "a"}]))
    write(tmp_path / "b.txt.bz2", b"x")
    write(tmp_path / "c.py", "pass\n")
    write(tmp_path / "d.txt.gz", gzip.compress(b"text"))
    write(tmp_path / "e.jsonl", json.dumps({"text": "a"}))
    contents = what_lies_here(tmp_path)
    assert contents.unread == {".json": 1, ".txt.bz2": 1, ".py": 1}
    assert contents.kinds == {"text": 4, "code": 1}
    assert any("not read as they are: 1 .json, 1 .txt.bz2, 1 .py" in line for line in in_words(contents))
    assert {*FORMATS} == READ_AS_TEXT
    assert {"", *COMPRESSIONS} == READ_COMPRESSED


def test_the_first_record_is_found_behind_blank_lines_and_utf_16_is_no_table(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "\n \n" + json.dumps({"text": "a"}) + "\n")
    write(tmp_path / "b.csv", "text,label\na,b\n".encode("utf-16"))
    contents = what_lies_here(tmp_path)
    assert (contents.kinds, contents.passed_over) == ({"text": 1}, {".csv": 1})


def test_a_readme_does_not_make_a_corpus(tmp_path: Path) -> None:
    write(tmp_path / "scan.png", b"x" * 200_000)
    write(tmp_path / "README.md", "about the scan")
    contents = what_lies_here(tmp_path)
    assert contents.kinds == {"images": 1}
    assert contents.passed_over == {".md": 1}


def test_pairs_are_told_by_names_by_stereo_folders_and_by_lists(tmp_path: Path) -> None:
    for name in ("a_1.jpg", "a_2.jpg", "alone_1.jpg", "scene/IM0.png", "scene/im1.png"):
        write(tmp_path / "names" / name)
    for name in ("left/1.png", "left/2.png", "right/1.png", "right/2.png", "right/3.png"):
        write(tmp_path / "rig" / name)
    for name in ("image_2/000_10.png", "image_3/000_10.png"):
        write(tmp_path / "kitti" / name)
    write(tmp_path / "list" / "pairs.txt", "# views\na/1.jpg b/1.jpg\n")
    write(tmp_path / "table" / "pairs.csv", "image1,image2\na.jpg,b.jpg\n")
    found = {name: what_lies_here(tmp_path / name).kinds for name in ("names", "rig", "kitti", "list", "table")}
    assert found["names"]["image pairs"] == 2
    assert found["rig"] == {"images": 5, "image pairs": 2}, "the folders are sides of a rig, no classes"
    assert found["kitti"]["image pairs"] == 1
    assert found["list"] == {"image pairs": 1}
    assert found["table"] == {"image pairs": 1}
    assert [chosen.slug for chosen, _ in fitting(what_lies_here(tmp_path / "list"), cards())] == ["croco"]


def test_one_folder_per_class_is_labelled(tmp_path: Path) -> None:
    for name in ("cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"):
        write(tmp_path / "train" / name)
    assert what_lies_here(tmp_path).kinds == {"images": 3, "labelled images": 3}


def test_arrays_of_images_in_two_folders_are_not_class_folders(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        np.savez(tmp_path / "sets" / name / "a.npz", images=np.zeros((2, 8, 8), np.uint8))
    assert what_lies_here(tmp_path).kinds == {"images": 2}


def test_a_single_folder_of_images_is_not_labelled(tmp_path: Path) -> None:
    write(tmp_path / "images" / "1.jpg")
    write(tmp_path / "images" / "2.jpg")
    assert what_lies_here(tmp_path).kinds == {"images": 2}


def test_images_beside_their_class_folders_are_not_labelled(tmp_path: Path) -> None:
    for name in ("1.jpg", "a/1.jpg", "b/1.jpg"):
        write(tmp_path / "all" / name)
    assert what_lies_here(tmp_path).kinds == {"images": 3}


def test_two_views_are_counted_as_pairs(tmp_path: Path) -> None:
    for name in ("hall_1.jpg", "hall_2.jpg", "yard_left.png", "yard_right.png", "lone_1.jpg"):
        write(tmp_path / name)
    assert what_lies_here(tmp_path).kinds == {"images": 5, "image pairs": 2}


def test_texts_beside_images_and_recordings_are_captions_and_transcripts(tmp_path: Path) -> None:
    for name in ("1.jpg", "1.txt", "2.wav", "2.txt"):
        write(tmp_path / name)
    assert what_lies_here(tmp_path).kinds == {"images": 1, "captioned images": 1, "audio": 1, "transcribed audio": 1}


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_more_than_three_bands_is_multiband(tmp_path: Path, order: str) -> None:
    write(tmp_path / "ten.tif", tiff(10, order))
    write(tmp_path / "rgb.tif", tiff(3, order))
    assert what_lies_here(tmp_path).kinds == {"multiband": 1, "images": 1}


def test_array_names_of_an_npz_tell_the_kind(tmp_path: Path) -> None:
    pixels, ones = np.zeros((2, 8, 8), np.uint8), np.ones(2)
    np.savez(tmp_path / "medmnist.npz", train_images=pixels, train_labels=ones)
    np.savez(tmp_path / "pixels.npz", images=pixels)
    np.savez(tmp_path / "scene.npz", bands=pixels)
    np.savez(tmp_path / "episode.npz", image=pixels, action=ones)
    np.savez(tmp_path / "scan.npz", hu=pixels)
    np.savez(tmp_path / "other.npz", weights=ones)
    contents = what_lies_here(tmp_path)
    assert contents.kinds == {"images": 2, "labelled images": 1, "multiband": 1, "trajectories": 1, "volumes": 1}
    assert contents.passed_over == {".npz": 1}


def test_damaged_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.npz", "c.parquet", "d.jsonl.gz", "e.jsonl.zst", "f.json"):
        write(tmp_path / name, b"\x00\xff damaged")
    contents = what_lies_here(tmp_path)
    assert contents.kinds == {}
    assert sum(contents.passed_over.values()) == 6


def test_the_walk_is_bounded_and_says_so(tmp_path: Path) -> None:
    for index in range(5):
        write(tmp_path / f"{index}.wav")
    contents = what_lies_here(tmp_path, max_files=3)
    assert (contents.kinds, contents.n_files, contents.complete) == ({"audio": 3}, 3, False)
    assert what_lies_here(tmp_path, max_files=5).complete


def test_an_empty_file_is_no_record_and_is_counted_as_empty(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jpg", "c.jsonl"):
        write(tmp_path / "empty" / name, b"")
    contents = what_lies_here(tmp_path / "empty")
    assert (contents.kinds, contents.passed_over, contents.n_files, contents.empty) == ({}, {}, 3, 3)
    assert in_words(contents) == [f"{tmp_path / 'empty'}: there is no data, 3 files are empty."]
    write(tmp_path / "mixed" / "a.txt")
    for name in ("b.txt", "1.jpg"):  # 1.txt, the caption of 1.jpg, says nothing
        write(tmp_path / "mixed" / name, b"x" if name.endswith("jpg") else b"")
    write(tmp_path / "mixed" / "1.txt", b"")
    contents = what_lies_here(tmp_path / "mixed")
    assert (contents.kinds, contents.n_files, contents.empty) == ({"text": 1, "images": 1}, 4, 2)
    assert in_words(contents)[-1] == "  2 files are empty and hold no record"


def test_hidden_files_and_folders_are_passed_by(tmp_path: Path) -> None:
    for name in (".git/a.py", ".hidden.py", "b.py"):
        write(tmp_path / name)
    assert what_lies_here(tmp_path).n_files == 1


def test_links_to_folders_are_followed_once_as_in_preparing(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.txt").write_text("A sentence.\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "again").symlink_to(tmp_path / "data")
    assert what_lies_here(tmp_path / "data").kinds == {"text": 1}


def test_a_single_file_will_do(tmp_path: Path) -> None:
    assert what_lies_here(write(tmp_path / "crawl.warc.gz")).kinds == {"html": 1}


def test_a_missing_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        what_lies_here(tmp_path / "nowhere")


def test_the_cards_that_fit_name_the_kinds_that_matched(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    matched = fitting(what_lies_here(tmp_path), cards())
    assert matched == [(card("hykist"), ["audio"])]
