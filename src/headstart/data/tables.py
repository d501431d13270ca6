"""Tables with a header and JSON lines, read whole: labelled files, points of a fit, items, rewards (csv, tsv, jsonl, parquet; also .gz and .zst).

A .tsv is a .csv with tabs: a field that begins with a double quote ends with one, and quotes inside are doubled, as pandas, R and spreadsheets write
it. A quote elsewhere is a character.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.files import open_regular, refuse_many_values, unique_keys
from headstart.core.hardware import memory_total
from headstart.data import parquet
from headstart.data.compressed import Decompressed
from headstart.data.text.read import BLOCK, BYTE_ORDER_MARK, MEND_QUOTES, SWALLOWED, UTF_16, not_utf8, other_delimiter, swallows
from headstart.data.text.sources import COMPRESSIONS

MEMORY_SHARE = 8
"""A file is read whole: it may be as large as this part of the memory."""

NO_RECORDS = "Give a file that has some: a table with a line of column names, or one JSON object a line."


def records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or record number from 1, record) of a csv, tsv, jsonl or parquet file; csv, tsv and jsonl also with .gz or .zst."""
    suffix = suffix_of(path)
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": json_records, ".ndjson": json_records, ".parquet": _parquet}
    if suffix not in readers:
        raise BadInput(f"is of a kind that is not read here ({suffix or 'no suffix'})", "Give a .csv, .tsv, .jsonl or .parquet file.", file=path)
    empty = True
    for number, record in readers[suffix](path):
        empty = False
        yield number, record
    if empty:
        raise BadInput("holds no record", NO_RECORDS, file=path)


def suffix_of(path: str | Path) -> str:
    """What says the kind of a file, without .gz or .zst."""
    path = Path(path)
    return Path(path.stem).suffix.lower() if path.suffix.lower() in (".gz", ".zst") else path.suffix.lower()


def wrong_delimiter(path: str | Path, names: Iterable[str]) -> str:
    """What to do where the columns of a table seem to be separated by something else than its ending promises; "" where they do not."""
    delimiter = {".csv": ",", ".tsv": "\t"}.get(suffix_of(path))
    return "" if delimiter is None else other_delimiter(list(names), delimiter)


def decoded(path: str | Path, mend: str = NO_RECORDS) -> str:
    """All of a text file.

    Args:
        mend: what to give instead of an empty one.

    Raises:
        BadInput: it cannot be read, is empty, larger than `MEMORY_SHARE` of the memory, or not UTF-8.
    """
    path = Path(path)
    limit = (memory_total() or 2**33) // MEMORY_SHARE
    with open_regular(path) as raw:
        compression = COMPRESSIONS.get(path.suffix.lower())
        stream: Any = raw if compression is None else Decompressed(raw, compression, raw.tell)
        try:
            data = b"".join(_blocks(stream, limit))
        except (OSError, ValueError, EOFError) as error:
            raise BadInput(f"cannot be read ({error})", "Check the permissions; a truncated file must be copied again.", file=path) from None
    if not data.removeprefix(BYTE_ORDER_MARK).strip():
        raise BadInput("is empty", mend, file=path)
    if data.startswith(UTF_16):
        fault = not_utf8(1, utf_16=True)
        raise BadInput(fault.what, fault.mend, file=path)
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        raise BadInput("holds a NUL byte, so it is no text in UTF-8", "Save it as UTF-8.", file=path, record=line)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BadInput(f"is not UTF-8 (byte 0x{data[error.start]:02x})", "Save it as UTF-8.", file=path, record=line) from None


def _blocks(stream: Any, limit: int) -> Iterator[bytes]:
    """All of a stream. Raises ValueError when it has more than `limit` bytes."""
    size = 0
    while block := stream.read(BLOCK):
        size += len(block)
        if size > limit:
            raise ValueError(f"such a file is read whole, and this one has more than {limit:,} bytes")
        yield block


def json_value(text: str) -> Any:
    """Raises ValueError or RecursionError."""
    refuse_many_values(text)
    return json.loads(text, object_pairs_hook=unique_keys)


def _csv(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KB refuses long documents
    text = io.StringIO(decoded(path), newline="")
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    reader, number = csv.reader(text, delimiter=delimiter, strict=True), 1
    try:
        header = next(reader, [])
        if twice := [name for name in header if name and header.count(name) > 1]:
            raise BadInput(f"has two columns {twice[0]!r}", "Rename the one that is not meant.", file=path)
        number = reader.line_num + 1
        for row in reader:
            if len(row) not in (0, len(header)):
                what = f"has {len(row)} columns, the header {len(header)}"
                raise BadInput(what, "Quote fields that hold the separator.", file=path, record=number)
            if swallows(row, delimiter):
                raise BadInput(SWALLOWED, MEND_QUOTES, file=path, record=number)
            if row:
                yield reader.line_num, dict(zip(header, row, strict=True))
            number = reader.line_num + 1
    except csv.Error as error:
        kind = suffix_of(path)[1:].upper()
        raise BadInput(f"is not valid {kind} ({error}).", MEND_QUOTES, file=path, record=number) from None


def lines_of(text: str) -> list[str]:
    """Lines without their ends, LF, CRLF (whose CR stays) or, where there is no LF, CR alone."""
    return text.split("\r" if "\r" in text and "\n" not in text else "\n")


def json_records(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, object) of JSON lines."""
    for number, line in enumerate(lines_of(decoded(path)), start=1):
        if not line.strip():
            continue
        try:
            record = json_value(line)
        except (ValueError, RecursionError) as error:
            raise BadInput(f"is not valid JSON ({error})", "Each line must be one JSON object.", file=path, record=number) from None
        if not isinstance(record, dict):
            raise BadInput(f"is a {type(record).__name__}, not an object", "Each line must be one JSON object.", file=path, record=number)
        yield number, record


def _parquet(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    open_regular(path).close()
    number = 0
    try:
        for number, record in enumerate(parquet.rows(Path(path)), start=1):
            yield number, record
    except parquet.ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"is no readable parquet file ({reason})", "Write it again.", file=path, record=number + 1) from None
