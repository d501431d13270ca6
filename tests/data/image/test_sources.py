"""Folders, lists and patterns become one ordered list of files with their classes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.sources import find_images


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def found(*sources: Path | str, config: ImageConfig | None = None) -> list[tuple[str, str | None]]:
    """(last part of the name, class) of each file."""
    return [(file.path.name, file.label) for file in find_images(sources, config).files]


def test_a_folder_is_read_in_the_order_of_its_paths_with_folders_as_classes(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.png", "b/10.jpg", "a/1.tif", "top.npy", "train/a/3.webp")
    assert found(tmp_path) == [("top.npy", None), ("1.tif", "a"), ("10.jpg", "b"), ("2.png", "b"), ("3.webp", "a")]


def test_images_that_a_curation_fetched_have_no_classes(tmp_path: Path) -> None:
    corpus = touch(tmp_path / "corpus", "images/ab/abc.png", "images/cd/cde.jpg", "documents/shard-00000.parquet")
    (corpus / "curate.json").write_text('{"recipe": "text", "sources": ["a.warc"]}')
    (corpus / "counts.json").write_text('{"stages": [{"kept": 1}]}')
    assert found(corpus) == found(corpus / "images") == [("abc.png", None), ("cde.jpg", None)]
    (corpus / "curate.json").unlink()
    assert [label for name, label in found(corpus / "images")] == ["ab", "cd"]


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "notes.md", "b.heic", ".hidden.png", ".cache/x.png", "README")
    inputs = find_images([tmp_path])
    assert [file.path.name for file in inputs.files] == ["a.png"]
    assert inputs.passed_over == {".md": 1, ".heic": 1, "hidden": 2, "without suffix": 1}


def test_a_file_reached_twice_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "a.png")
    inputs = find_images([tmp_path, tmp_path / "b.png"])
    assert [file.path.name for file in inputs.files] == ["a.png", "b.png"]
    assert inputs.passed_over == {"reached twice": 2}


def test_patterns_and_loops_of_links(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.png", "x/b.jpg", "y/c.png")
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    assert found(f"{tmp_path}/*/*.png") == [("a.png", None), ("c.png", None)]
    assert [name for name, _ in found(tmp_path / "x")] == ["a.png", "b.jpg", "c.png"]


def test_a_list_names_paths_from_its_own_folder_and_classes_after_them(tmp_path: Path) -> None:
    touch(tmp_path, "img/a.png", "img/my photo.jpg")
    (tmp_path / "list.txt").write_text("img/a.png 3\n\nimg/my photo.jpg\nimg/a.png\n")
    assert found(tmp_path / "list.txt") == [("a.png", "3"), ("my photo.jpg", None)]
    (tmp_path / "tabs.txt").write_text("img/my photo.jpg\ta cat\nimg/a.png\tb\n")
    assert found(tmp_path / "tabs.txt") == [("my photo.jpg", "a cat"), ("a.png", "b")]
    (tmp_path / "list.csv").write_text("file,label\nimg/a.png,x\n")
    assert found(tmp_path / "list.csv", config=ImageConfig(image_field="file")) == [("a.png", "x")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("list.txt", "a.png\nnotes about cats\n", "record 2.*no image by its suffix"),
        ("list.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("list.csv", "file,label\na.png,x\n", "no column 'image'"),
        ("list.csv", 'image,label\n"a.png,x\n', "no valid table"),
        ("list.csv", "image,label,image\na.png,x,b.png\n", "has two columns 'image'"),
        ("list.tsv", "image\tlabel\tlabel\na.png\tx\ty\n", "has two columns 'label'"),
        ("list.csv", "image,label\n,x\n", "names no image"),
    ],
)
def test_a_damaged_list_is_refused_with_its_line(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=words):
        find_images([tmp_path / name])


def test_sources_without_an_image_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md", "empty/x.doc")
    refused = {tmp_path / "none": "does not exist", tmp_path / "notes.md": "unknown kind", tmp_path: "no images found", "*.zzz": "no images"}
    for source, words in refused.items():
        with pytest.raises(BadInput, match=words):
            find_images([source])
    with pytest.raises(BadInput, match="no input files"):
        find_images([])


def test_names_that_are_not_utf8_can_be_shown(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(path)).write_bytes(b"x")
    (file,) = find_images([tmp_path]).files
    assert file.name.endswith("caf\\xe9.png")
