import os
from pathlib import Path

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.sources import find_inputs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def names(folder: Path, *sources: str | Path) -> list[str]:
    return [os.path.relpath(file.path, folder) for file in find_inputs(sources).files]


def test_a_folder_gives_its_text_files_recursively_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.txt", "b/1.jsonl.gz", "a/x.parquet", "z.MD", "c.csv.zst", "image.png", "noext", ".hidden.txt", ".git/x.txt", "x.parquet.gz")
    inputs = find_inputs([tmp_path])
    assert [os.path.relpath(file.path, tmp_path) for file in inputs.files] == ["c.csv.zst", "z.MD", "a/x.parquet", "b/1.jsonl.gz", "b/2.txt"]
    assert inputs.passed_over == {".png": 1, "without suffix": 1, "hidden": 2, ".gz": 1}
    assert inputs.files[0].compression == "zstd"
    assert inputs.files[0].format == "csv"


def test_a_glob(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt", "sub/c.txt", "d.md")
    assert names(tmp_path, f"{tmp_path}/*.txt") == ["a.txt", "b.txt"]
    assert names(tmp_path, f"{tmp_path}/**/*.txt") == ["a.txt", "b.txt", "sub/c.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].txt", "a1.txt")
    assert names(tmp_path, tmp_path / "a[1].txt") == ["a[1].txt"]


def test_sources_keep_their_order_and_a_file_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.txt")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    inputs = find_inputs([tmp_path / "b.txt", tmp_path])
    assert [file.path.name for file in inputs.files] == ["b.txt", "a.txt"]
    assert inputs.passed_over == {"reached twice": 2}


def test_loops_of_links_end(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.txt", "data/sub/b.txt", "elsewhere/c.txt")
    (tmp_path / "data/sub/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    inputs = find_inputs([tmp_path / "data"])
    assert [os.path.relpath(file.path, tmp_path / "data") for file in inputs.files] == ["a.txt", "linked/c.txt", "sub/b.txt"]
    assert not inputs.passed_over  # the loop was not walked until the system refused


def test_names_with_odd_characters(tmp_path: Path) -> None:
    odd = ["with space.txt", "new\nline.txt", "quote'\".txt", "ünï.txt", "-dash.txt"]
    touch(tmp_path, *odd)
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.txt"  # no valid UTF-8
    with open(raw, "wb") as file:  # noqa: PTH123 (pathlib has no bytes paths)
        file.write(b"x")
    inputs = find_inputs([tmp_path])
    assert len(inputs.files) == 6
    for file in inputs.files:
        assert file.path.read_bytes() == b"x"
        file.name.encode()  # can be written as JSON
    assert any(file.name.endswith("\\xff\\xfe.txt") for file in inputs.files)


def test_what_is_missing_or_of_no_use_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "only/image.png")
    with pytest.raises(BadInput, match="does not exist"):
        find_inputs([tmp_path / "nowhere"])
    with pytest.raises(BadInput, match=r"unknown kind of text file.*\n.*\.jsonl"):
        find_inputs([tmp_path / "only/image.png"])
    with pytest.raises(BadInput, match=r"no text files found \(found 1 \.png\)"):
        find_inputs([tmp_path / "only"])
    with pytest.raises(BadInput, match="no text files found"):
        find_inputs([f"{tmp_path}/*.txt"])
    with pytest.raises(BadInput, match="no input files"):
        find_inputs([])
    with pytest.raises(UsageError, match="unknown built-in corpus"):
        find_inputs(["builtin:poems"])
