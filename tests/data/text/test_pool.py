"""Texts with their names."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.data.text.pool import read_pool


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    return path


def test_records_keep_their_id_and_source(tmp_path: Path) -> None:
    lines = ['{"id": 7, "source": "web", "text": "one"}', "", '{"text": "two", "src": "book"}', '{"text": "three"}']
    found = list(read_pool([write(tmp_path / "a.jsonl", *lines)]))
    assert [(d.id, d.source, d.text, d.number) for d in found] == [
        ("7", "web", "one", 1), ("a.jsonl:3", "book", "two", 3), ("a.jsonl:4", "", "three", 4),
    ]  # fmt: skip


def test_other_formats_are_read_too(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "First line.", "of one block", "", "Second block,", "two lines")
    write(tmp_path / "b.csv", "text,n", "third,1")
    assert [(d.id, d.text) for d in read_pool([tmp_path])] == [
        ("a.txt:1", "First line.\nof one block"), ("a.txt:4", "Second block,\ntwo lines"), ("b.csv:2", "third"),
    ]  # fmt: skip


def test_long_compressed_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    texts = ["x" * 3_000_000, "short", "y" * 1_500_000]
    data = "\ufeff" + "\n".join(json.dumps({"text": text}) for text in texts)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(data)
    assert [d.text for d in read_pool([tmp_path / "a.jsonl.gz"])] == texts


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not valid JSON"),
        ('["text"]', "is a JSON list, not an object"),
        ('{"text": 3}', "is 3, not a string"),
        ('{"text": "a\\u0000"}', "NUL"),
        ('{"text": "a", "id": null}', "the id null"),
        ('{"text": "a", "text": "b"}', "twice"),
    ],
    ids=["json", "list", "number", "nul", "id", "twice"],
)
def test_a_bad_record_is_named(tmp_path: Path, line: str, why: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "good"}', line)
    with pytest.raises(BadInput, match=why) as error:
        list(read_pool([path]))
    assert "a.jsonl, record 2" in str(error.value)


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"text": "good"}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="cut off"):
        list(read_pool([tmp_path / "a.jsonl.gz"]))


def test_a_record_without_the_field_is_told_which_it_has_and_the_flag(tmp_path: Path) -> None:
    """As in every other reader of texts; and a file of CR line ends is no single line."""
    write(tmp_path / "a.jsonl", '{"body": "one", "n": 1}')
    with pytest.raises(BadInput, match=r"record 1: has no field 'text' \(its fields: 'body', 'n'\)\.\nName the field .* --text\.text-field"):
        list(read_pool([tmp_path / "a.jsonl"]))
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "one"}\r{"text": "two"}\r')
    assert [document.text for document in read_pool([tmp_path / "b.jsonl"])] == ["one", "two"]
