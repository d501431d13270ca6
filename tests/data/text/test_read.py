"""Every kind of bad input as the real fault: what is said, and what is still accepted."""

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput
from headstart.core.hardware import memory_total
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault, Reading, Record
from headstart.data.text.sources import find_inputs


def read(path: Path, **config: object) -> list[Record | Fault]:
    (file,) = find_inputs([path]).files
    return list(Reading(file, TextConfig(**config)))  # type: ignore[arg-type]


def texts(items: list[Record | Fault]) -> list[str]:
    assert all(isinstance(item, Record) for item in items), items
    return [item.text for item in items]  # type: ignore[union-attr]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


LINES = b'{"text": "one"}\n{"text": "two\\nlines"}\n'


@pytest.mark.parametrize(
    ("name", "data"), [("a.jsonl", LINES), ("a.jsonl.gz", gzip.compress(LINES, mtime=0)), ("a.ndjson.zst", pa.compress(LINES, "zstd", asbytes=True))]
)
def test_json_lines(tmp_path: Path, name: str, data: bytes) -> None:
    assert texts(read(write(tmp_path / name, data))) == ["one", "two\nlines"]


def test_gzip_of_several_members_is_read_to_the_end(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.jsonl.gz", gzip.compress(LINES) + gzip.compress(LINES)))) == ["one", "two\nlines"] * 2


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "broken', "not valid JSON"),
        (b'["a", "list"]', "a JSON list, not an object"),
        (b'{"text": "first", "n": 1, "text": "second"}', "the key 'text' comes twice"),
        (b'{"body": "x", "title": "y"}', "no field 'text' (its fields: 'body', 'title')"),
        (b'{"text": 7}', "field 'text' is 7, not a string"),
        (b'{"text": null}', "field 'text' is null, not a string"),
        (b'{"text": "caf\xe9"}', "not UTF-8 (byte 14 of the line is 0xe9)"),
        (b'{"text": "a\\u0000b"}', "NUL byte"),
        (b'{"text": "half \\ud83d"}', "half of a surrogate pair (\\ud83d)"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_bad_json_line_is_named_by_its_number_and_the_rest_is_read(tmp_path: Path, line: bytes, what: str) -> None:
    first, bad, last = read(write(tmp_path / "a.jsonl", b'{"text": "one"}\n\n' + line + b'\n{"text": "last"}'))
    assert isinstance(bad, Fault)
    assert bad.number == 3
    assert what in bad.what
    assert bad.mend
    assert texts([first, last]) == ["one", "last"]


def test_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n{"text": "two"}\r\n'))) == ["one", "two"]
    assert texts(read(write(tmp_path / "a.csv", b"\xef\xbb\xbftext,id\r\none,1\r\n"))) == ["one"]
    assert texts(read(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n\r\nthree\r\nfour\r\n"))) == ["one\r\ntwo\r", "three\r\nfour\r"]


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("auto", ["one\ntwo", "three"]),
        ("blank-line", ["one\ntwo", "three"]),
        ("file", ["\none\ntwo\n \t\n\nthree"]),
        ("line", ["one", "two", "three"]),
    ],
)
def test_documents_of_a_text_file(tmp_path: Path, split: str, expected: list[str]) -> None:
    assert texts(read(write(tmp_path / "a.txt", b"\none\ntwo\n \t\n\nthree\n"), document_split=split)) == expected


def test_paragraphs_of_one_line_are_one_document_by_default(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.txt", b"A paragraph.\n\nAnother.\n\nA third.\n"))) == ["A paragraph.\n\nAnother.\n\nA third."]


def test_markdown_is_one_document_whatever_its_blank_lines(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.md", b"# Title\ntext\n\nmore\nlines\n"))) == ["# Title\ntext\n\nmore\nlines"]


def test_broken_utf8_in_text_is_named_by_its_line(tmp_path: Path) -> None:
    good, bad, last = read(write(tmp_path / "a.txt", b"one\ntwo\n\nthree\ncaf\xe9\n\nfour\nfive\n"))
    assert isinstance(bad, Fault)
    assert (bad.number, bad.what) == (5, "is not UTF-8 (byte 4 of the line is 0xe9).")
    assert texts([good, last]) == ["one\ntwo", "four\nfive"]


def test_utf16_is_recognised(tmp_path: Path) -> None:
    (bad,) = read(write(tmp_path / "a.txt", "hello world".encode("utf-16")))
    assert isinstance(bad, Fault)
    assert "UTF-16" in bad.what
    assert "iconv" in bad.mend


def test_a_binary_file_with_a_text_suffix_is_refused(tmp_path: Path) -> None:
    (bad,) = read(write(tmp_path / "a.txt", b"ELF\0\0\0\1"))
    assert isinstance(bad, Fault)
    assert "NUL" in bad.what


def test_csv_and_tsv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'id,text\n1,"two\nlines, and ""quotes"""\n2,plain\n\n3,too,many\n4,caf\xe9\n5,last\n')
    first, second, many, broken, last = read(path)
    assert texts([first, second, last]) == ['two\nlines, and "quotes"', "plain", "last"]
    assert isinstance(many, Fault)
    assert (many.number, many.what) == (6, "has 3 fields, the header has 2.")
    assert isinstance(broken, Fault)
    assert (broken.number, broken.what) == (7, "is not UTF-8.")
    assert texts(read(write(tmp_path / "a.tsv", b"id\tbody\n1\tx, y\n"), text_field="body")) == ["x, y"]


def test_csv_without_the_column_names_those_there_are(tmp_path: Path) -> None:
    (bad,) = read(write(tmp_path / "a.csv", b"id,body\n1,x\n"))
    assert isinstance(bad, Fault)
    assert "no column 'text' (its columns: 'id', 'body')" in bad.what
    assert "--text.text-field" in bad.mend


@pytest.mark.parametrize(
    ("name", "header", "mend"),
    [
        ("a.csv", "id;text", "separated by ';'. Write it with commas, or with tabs as .tsv."),
        ("a.csv", "id\ttext", "separated by a tab. Call it .tsv."),
        ("a.tsv", "id,text", "separated by ','. Call it .csv."),
    ],
    ids=["semicolons", "tabs", "commas"],
)
def test_a_table_with_another_delimiter_is_told_so(tmp_path: Path, name: str, header: str, mend: str) -> None:
    (bad,) = read(write(tmp_path / name, f"{header}\n1\n".encode()))
    assert isinstance(bad, Fault)
    assert bad.mend.endswith(mend)


def test_a_table_of_utf_16_is_named_as_that(tmp_path: Path) -> None:
    (bad,) = read(write(tmp_path / "a.csv", "text,label\r\na,b\r\n".encode("utf-16")))
    assert isinstance(bad, Fault)
    assert bad.what == "is UTF-16, not UTF-8."


def test_a_column_that_is_there_twice_is_not_chosen_from(tmp_path: Path) -> None:
    """Another column may be."""
    (bad,) = read(write(tmp_path / "a.csv", b"text,id,text\nx,1,y\n"))
    assert isinstance(bad, Fault)
    assert bad.what == "has two columns 'text'."
    assert texts(read(write(tmp_path / "b.csv", b"id,text,id\n1,x,2\n"))) == ["x"]
    table = pa.table([pa.array(["x"]), pa.array(["y"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    (bad,) = read(tmp_path / "a.parquet")
    assert isinstance(bad, Fault)
    assert bad.what == "has two columns 'text'."


def test_csv_with_a_quote_that_never_closes(tmp_path: Path) -> None:
    items = read(write(tmp_path / "a.csv", b'text\none\n"open\ntwo\n'))
    assert texts(items[:1]) == ["one"]
    assert isinstance(items[1], Fault)
    assert items[1].number == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"id": [1, 2, 3], "text": pa.array(["one", None, "two"], kind)}), tmp_path / "a.parquet")
    first, bad, last = read(tmp_path / "a.parquet")
    assert texts([first, last]) == ["one", "two"]
    assert isinstance(bad, Fault)
    assert (bad.number, bad.what) == (2, "column 'text' is null, not a string.")


def test_parquet_of_other_columns_or_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    (bad,) = read(tmp_path / "a.parquet")
    assert isinstance(bad, Fault)
    assert "of type int64, not string" in bad.what
    (bad,) = read(tmp_path / "a.parquet", text_field="body")
    assert isinstance(bad, Fault)
    assert "no column 'body' (its columns: 'text')" in bad.what


def big() -> bytes:
    return b"".join(json.dumps({"text": f"document {i} {os.urandom(100).hex()}"}).encode() + b"\n" for i in range(20_000))


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("zst", zstd)])
def test_a_truncated_archive_gives_its_whole_records_and_one_fault(tmp_path: Path, suffix: str, compress: object) -> None:
    data = compress(big())  # type: ignore[operator]
    *good, bad = read(write(tmp_path / f"a.jsonl.{suffix}", data[: len(data) // 2]))
    assert isinstance(bad, Fault)
    assert "damaged or cut off" in bad.what
    assert 100 < len(texts(good)) < 20_000
    assert bad.number == len(good) + 1


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_file_that_only_has_the_suffix_of_an_archive(tmp_path: Path, suffix: str) -> None:
    (bad,) = read(write(tmp_path / f"a.jsonl.{suffix}", LINES))
    assert isinstance(bad, Fault)
    assert "damaged or cut off" in bad.what


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [os.urandom(20).hex() for _ in range(5000)]}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (bad,) = read(write(tmp_path / "b.parquet", data[: len(data) // 2]))
    assert isinstance(bad, Fault)
    assert "damaged, cut off, or no parquet file" in bad.what
    middle = len(data) // 3
    items = read(write(tmp_path / "c.parquet", data[:middle] + bytes(200) + data[middle + 200 :]))
    assert any(isinstance(item, Fault) for item in items)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz"])
def test_an_empty_file(tmp_path: Path, name: str) -> None:
    (bad,) = read(write(tmp_path / name, b""))
    assert isinstance(bad, Fault)
    assert bad.what == "is empty."


def test_a_document_larger_than_a_tenth_of_the_memory(tmp_path: Path) -> None:
    """A sparse file: its size is real, its blocks are not."""
    total = memory_total()
    assert total is not None
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(total // 10 + 10)
    (source,) = find_inputs([path]).files
    bad = next(iter(Reading(source, TextConfig())))
    assert isinstance(bad, Fault)
    assert "the document is larger than" in bad.what
    assert "--text.document-split" in bad.mend


@pytest.mark.parametrize(
    ("name", "data", "number"),
    [
        ("a.jsonl", b'{"text": "small"}\n{"text": "' + b"x" * 3_000_000 + b'"}\n{"text": "last"}\n', 2),
        ("a.txt", b"small\none\n\n" + b"long line\n" * 300_000 + b"\nlast\none\n", 4),
        ("a.txt", b"small\none\n\n" + b"x" * 3_000_000 + b"\n\nlast\none\n", 4),
    ],
)
def test_a_document_over_the_limit_is_passed_over_without_keeping_it(tmp_path: Path, name: str, data: bytes, number: int) -> None:
    first, bad, last = read(write(tmp_path / name, data), max_document_mb=1.0)
    assert isinstance(bad, Fault)
    assert (bad.number, bad.what) == (number, "the document is larger than 1.0 MB.")
    assert len(texts([first, last])) == 2


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.jsonl").symlink_to(tmp_path / "folder")
    os.mkfifo(tmp_path / "pipe.txt")  # opening it would wait for a writer for ever
    for name, what in (("dangling", "cannot be read"), ("loop", "cannot be read"), ("pipe", "not a regular file")):
        (bad,) = read(tmp_path / f"{name}.txt")
        assert isinstance(bad, Fault)
        assert what in bad.what


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", big())
    (file,) = find_inputs([path]).files
    records = iter(Reading(file, TextConfig()))
    next(records)
    with path.open("ab") as writer:
        writer.write(LINES)
    with pytest.raises(BadInput, match="changed while it was read"):
        list(records)


def test_a_file_that_is_rewritten_with_the_same_size_while_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINES)
    (file,) = find_inputs([path]).files
    records = iter(Reading(file, TextConfig()))
    next(records)
    os.utime(path, ns=(0, 1))
    with pytest.raises(BadInput, match="changed while it was read"):
        list(records)


def test_a_file_that_changed_between_listing_and_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", LINES)
    (file,) = find_inputs([path]).files
    path.write_bytes(LINES + LINES)
    with pytest.raises(BadInput, match="changed while it was read"):
        list(Reading(file, TextConfig()))


@pytest.mark.parametrize(
    ("name", "data", "records"),
    [
        ("a.jsonl", (json.dumps({"text": "x" * 1000}).encode() + b"\n") * 40_000, 40_000),
        ("one-line.jsonl", b'{"text": "' + b"x" * 40_000_000, 1),
        ("one-document.txt", b"a line\n\nof a document\nthat does not end\n" + (b"more " * 40 + b"\n") * 200_000, 2),
    ],
)
def test_memory_is_bounded_by_the_document_limit_not_by_the_file(tmp_path: Path, name: str, data: bytes, records: int) -> None:
    """40 MB are read with a few MB of Python memory."""
    (file,) = find_inputs([write(tmp_path / name, data)]).files
    config = TextConfig(max_document_mb=1.0)
    tracemalloc.start()
    try:
        assert sum(1 for _ in Reading(file, config)) == records
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


PIECES = ["# Sums", None, "The sum of $a$ and $b$ is ", None, "$a + b$.", None]
INTERLEAVED = "# Sums\nThe sum of $a$ and $b$ is $a + b$."


@pytest.mark.parametrize("field", ["text_list", "texts"])
def test_interleaved_documents_are_read_as_their_texts_alone(tmp_path: Path, field: str) -> None:
    images = [None, "https://example.org/a.png", None, "https://example.org/b.png", None, "https://example.org/c.png"]
    columns = {"URL": ["https://example.org"], field: [PIECES], "image_list": [images], "metadata": ["{}"]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert texts(read(tmp_path / "a.parquet")) == [INTERLEAVED]
    line = json.dumps({name: values[0] for name, values in columns.items()}).encode()
    assert texts(read(write(tmp_path / "a.jsonl", line))) == [INTERLEAVED]
    assert texts(read(tmp_path / "a.parquet", text_field=field)) == [INTERLEAVED]
    (bad,) = read(tmp_path / "a.parquet", text_field="body")
    assert isinstance(bad, Fault)


def test_a_field_of_text_goes_before_the_list(tmp_path: Path) -> None:
    assert texts(read(write(tmp_path / "a.jsonl", b'{"text": "whole", "text_list": ["piece"]}'))) == ["whole"]


def test_a_list_of_other_things_is_no_text(tmp_path: Path) -> None:
    (bad,) = read(write(tmp_path / "a.jsonl", b'{"text_list": ["one", 2]}'))
    assert isinstance(bad, Fault)
    assert "not a string" in bad.what


def test_lists_that_refer_to_one_long_string_a_thousand_times_are_a_bomb(tmp_path: Path) -> None:
    long = "x" * 2**20
    pq.write_table(pa.table({"text_list": [[long] * 100] * 20}), tmp_path / "a.parquet", dictionary_pagesize_limit=2**22)
    assert (tmp_path / "a.parquet").stat().st_size < 2**21
    *_, last = read(tmp_path / "a.parquet", max_document_mb=1000)
    assert isinstance(last, Fault)
    assert "decompression bomb" in last.what


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.txt", b"one,\ntwo.\n\nthree.\nfour.\n", ["one,\ntwo.", "three.\nfour."]),
        ("a.jsonl", b'{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ("a.csv", b'text,n\n"one, ""two""",1\nthree,2\n', ['one, "two"', "three"]),
        ("a.tsv", b"n\ttext\n1\tone\n2\ttwo\n", ["one", "two"]),
    ],
    ids=["txt", "jsonl", "csv", "tsv"],
)
def test_lines_may_end_in_lf_crlf_or_cr_alone(tmp_path: Path, name: str, data: bytes, expected: list[str]) -> None:
    """CR alone is what Excel saves for the Macintosh: such a file was one line."""
    for end in (b"\n", b"\r\n", b"\r"):
        found = [text.replace("\r", "") for text in texts(read(write(tmp_path / name, data.replace(b"\n", end))))]
        assert found == expected, end


def test_a_quote_that_takes_whole_records_of_a_tsv_is_named(tmp_path: Path) -> None:
    """A lone quote that begins a field closes in a later line: two records would be one, and nobody would know. A text of two lines is one record."""
    lone = read(write(tmp_path / "a.tsv", b'text\tlabel\n"Well, he said.\tplot\nfine\tplot\nthe "end"\tplot\n"So," she said."\treview\nlast\tplot\n'))
    assert [(item.number, item.what.partition(")")[2]) for item in lone if isinstance(item, Fault)] == [
        (2, "; all up to line 4 goes with it."), (5, "."),
    ]  # fmt: skip
    swallowed, last = read(write(tmp_path / "b.tsv", b'text\tlabel\n"Well, he said.\tplot\nto the end"\tplot\nlast\tplot\n'))
    assert isinstance(swallowed, Fault)
    assert (swallowed.number, swallowed.what[:22]) == (2, "holds several records:")
    assert texts([last]) == ["last"]
    assert texts(read(write(tmp_path / "c.tsv", b'text\tlabel\n"two\nlines ""so"""\tplot\n'))) == ['two\nlines "so"']
