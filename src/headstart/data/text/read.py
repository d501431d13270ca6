"""From one file to its records, in one streaming pass: memory is bounded by the largest document, never by the file.

Nothing is guessed. A record that cannot be used becomes a `Fault` with its number, the reason and how to mend it; whoever reads decides whether
that ends the work.
Accepted without a word: a UTF-8 byte order mark, CRLF and CR line ends, blank lines between JSON records.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, Generic, TypeAlias, TypeVar

import pyarrow as pa

from headstart.core.errors import BadInput
from headstart.core.files import refuse_many_values, unique_keys
from headstart.core.hardware import memory_total
from headstart.core.machine import refuse_limits
from headstart.core.words import first_line
from headstart.data import parquet
from headstart.data.compressed import Bomb, Decompressed
from headstart.data.text.config import DocumentSplit, TextConfig
from headstart.data.text.sources import InputFile

BLOCK = 2**20
NAME_COLUMN = "Name the column that holds the text with --text.text-field."
NAME_HEADER = f"{NAME_COLUMN} The first line must be a header."
RENAME = "Rename the one that is not meant."
INTERLEAVED = ("text_list", "texts")
"""Fields of interleaved documents (InfiMM-WebMath's and OBELICS' form) that are read where there is no field "text": the texts between the images."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""What a file of UTF-16 begins with."""
MEND_QUOTES = (
    "Put double quotes around such a field and double those inside, as pandas, R and spreadsheets do; or write the file as .jsonl, where a quote is a"
    " character."
)
SWALLOWED = "holds several records: its field begins with a double quote, which a later line closes."


@dataclass(frozen=True)
class Record:
    """One document. `number` is its 1-based line (text, JSON, CSV) or row (parquet) in the file; `data` is `text` as UTF-8."""

    number: int
    text: str
    data: bytes


@dataclass(frozen=True)
class Fault:
    """A record that cannot be used, and why."""

    number: int
    what: str
    mend: str


_Found: TypeAlias = tuple[int, str] | Fault
T = TypeVar("T")


class FileReading(Generic[T]):
    """One pass over one file. Iterate over it once; afterwards `sha256` is the hash of the file's bytes. A subclass says what its records are.

    Args:
        file: what to read.
        limit: bytes of the largest record.

    Raises (while iterating):
        BadInput: the file changed while it was read. This is never quarantined: what was already taken may be half old, half new.
    """

    def __init__(self, file: InputFile, limit: int) -> None:
        self.file = file
        self.limit = limit
        self.sha256 = ""
        self._hashed: _HashedFile | None = None

    @property
    def position(self) -> int:
        """Bytes of the file that were read so far."""
        return 0 if self._hashed is None else self._hashed.size

    def from_lines(self, lines: Lines) -> Iterator[T | Fault]:
        """The records of a file of lines."""
        raise NotImplementedError

    def from_parquet(self) -> Iterator[T | Fault]:
        """The records of a parquet file."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[T | Fault]:
        try:
            before = self.file.path.stat()
            if not stat.S_ISREG(before.st_mode):  # opening a named pipe would wait for ever
                yield Fault(0, "is not a regular file.", "Give a file; copy what a pipe or device holds into one.")
                return
            opened = self.file.path.open("rb")
        except OSError as error:
            refuse_limits(error, self.file.path)
            yield Fault(0, f"cannot be read ({error.strerror}).", "Check that it exists and its permissions.")
            return
        with opened as raw:
            hashed = self._hashed = _HashedFile(raw)
            if before.st_size == 0:
                yield Fault(0, "is empty.", "Remove it, or copy it again if the copy was cut off.")
            else:
                yield from self._records(hashed)
            self.sha256, size = hashed.finish()
            after = self.file.path.stat()
        known = (self.file.size, self.file.mtime_ns)
        if (after.st_size, after.st_mtime_ns, size) != (*known, known[0]) or (before.st_size, before.st_mtime_ns) != known:
            raise BadInput(
                f"the file changed while it was read ({known[0]:,} bytes before, {after.st_size:,} after).",
                "Let its writer finish, then start the same command again.",
                file=self.file.name,
            )

    def _records(self, hashed: _HashedFile) -> Iterator[T | Fault]:
        if self.file.format == "parquet":
            yield from self.from_parquet()
            return
        try:
            stream: Any = hashed
            if self.file.compression:
                stream = Decompressed(hashed, self.file.compression, lambda: hashed.size)
            lines = Lines(stream, self.limit)
            yield from self.from_lines(lines)
        except Bomb as error:
            yield Fault(lines.number + 1, f"{error}.", "Leave the file out, or give it uncompressed.")
        except (pa.ArrowException, OSError) as error:
            refuse_limits(error, self.file.path)
            how = f"the {self.file.compression} data is damaged or cut off" if self.file.compression else "cannot be read"
            yield Fault(lines.number + 1, f"{how} ({first_line(error)}).", "Copy or download the file again.")


class Reading(FileReading[Record]):
    """The texts of a file.

    Args:
        file: what to read.
        config: `text_field`, `document_split` and the document limit are used.
    """

    def __init__(self, file: InputFile, config: TextConfig) -> None:
        super().__init__(file, document_limit(config))
        self.field = "text" if file.format == "builtin" else config.text_field
        self.split: DocumentSplit = config.document_split if file.format == "txt" else "file"

    def from_lines(self, lines: Lines) -> Iterator[Record | Fault]:
        match self.file.format:
            case "jsonl" | "builtin":
                found = _json_lines(lines, self.field)
            case "csv" | "tsv":
                found = _table(lines, self.field, "," if self.file.format == "csv" else "\t", self.limit)
            case _:
                found = _text(lines, self.split, self.limit, 0 if self.file.compression else self.file.size)
        yield from map(checked, found)

    def from_parquet(self) -> Iterator[Record | Fault]:
        yield from map(checked, _parquet(self.file, self.field, self.limit))


def document_limit(config: TextConfig) -> int:
    """Largest document in bytes: as configured, else a tenth of the memory."""
    if config.max_document_mb is not None:
        return int(config.max_document_mb * 1e6)
    return (memory_total() or 2**33) // 10


def bad_input(file: InputFile, fault: Fault) -> BadInput:
    """The error that ends the work when bad input is not quarantined."""
    mend = f"{fault.mend} Or go on without such records: --text.on-bad-input quarantine."
    return BadInput(fault.what, mend, file=file.name, record=fault.number or None)


def checked(found: _Found) -> Record | Fault:
    """A text as a record, if it is one (`why_no_text`)."""
    if isinstance(found, Fault):
        return found
    number, text = found
    if reason := why_no_text(text):
        return Fault(number, f"{reason}.", "Remove it; the file may be binary or of another encoding.")
    return Record(number, text, text.encode())


def joined(pieces: Sequence[Any]) -> str | None:
    """The text of an interleaved document without its images: its pieces, on lines of their own where no white space stands between them. None
    stands where an image is. None if an entry is neither."""
    texts = [piece for piece in pieces if piece is not None]
    if not all(isinstance(piece, str) for piece in texts):
        return None
    text = ""
    for piece in texts:
        text += piece if not text or text[-1:].isspace() or piece[:1].isspace() else f"\n{piece}"
    return text


def field_of_text(names: Collection[str], field: str) -> str:
    """Which field holds the text: `field`, or where that is left at its default and missing, the list of an interleaved document."""
    if field in names or field != TextConfig.text_field:
        return field
    return next((name for name in INTERLEAVED if name in names), field)


def why_no_text(value: str) -> str | None:
    """Why a string is no text, None if it is: NUL bytes and lone surrogates, which JSON can spell."""
    if "\0" in value:
        return "holds a NUL byte"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return f"holds half of a surrogate pair (\\u{ord(value[error.start]):04x})"
    return None


class _HashedFile:
    """A file that hashes what is read from it, so that hashing costs no second pass."""

    def __init__(self, raw: IO[bytes]) -> None:
        self.raw = raw
        self.digest = hashlib.sha256()
        self.size = 0
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data

    def finish(self) -> tuple[str, int]:
        """Read what nobody read (after a fault, or a parquet file) and return the hash and the number of bytes."""
        while self.read(BLOCK):
            pass
        return self.digest.hexdigest(), self.size

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


class Lines:
    """Lines of a stream as bytes without their end, None for a line longer than `limit`. `number` is the last line's number, from 1."""

    def __init__(self, stream: Any, limit: int) -> None:
        self.stream = stream
        self.limit = limit
        self.number = 0

    @cached_property
    def head(self) -> bytes:
        """The first block, without a byte order mark."""
        data: bytes = self.stream.read(BLOCK)
        return data.removeprefix(BYTE_ORDER_MARK)

    @cached_property
    def end(self) -> bytes:
        """What ends a line: CR alone where there is no other (tables that Excel saves for the Macintosh)."""
        return b"\r" if b"\r" in self.head and b"\n" not in self.head else b"\n"

    def __iter__(self) -> Iterator[bytes | None]:
        block, pending, pending_size = self.head, [], 0  # type: bytes, list[bytes], int
        while block:
            first, *rest = block.split(self.end)
            if pending_size <= self.limit:
                pending.append(first)
            pending_size += len(first)
            if rest:
                self.number += 1
                yield b"".join(pending) if pending_size <= self.limit else None
                for line in rest[:-1]:
                    self.number += 1
                    yield line
                pending, pending_size = [rest[-1]], len(rest[-1])
            block = self.stream.read(BLOCK)
        if pending_size:
            self.number += 1
            yield b"".join(pending) if pending_size <= self.limit else None


def too_large(number: int, limit: int) -> Fault:
    return Fault(
        number,
        f"the document is larger than {limit / 1e6:,.1f} MB.",
        "Cut it into documents (--text.document-split blank-line or line for .txt), or raise --text.max-document-mb.",
    )


def json_objects(lines: Lines, once: str | None = None) -> Iterator[tuple[int, Any] | Fault]:
    """Line number and value of each line of JSON.

    Args:
        once: the only key that may not come twice in an object, which is quicker to know; None: no key may.
    """
    name = None if once is None else json.dumps(once, ensure_ascii=False).encode(errors="replace")
    for line in lines:
        number = lines.number
        if line is None:
            yield too_large(number, lines.limit)
            continue
        if not line.strip():
            continue
        try:
            refuse_many_values(line)
            hook = unique_keys if name is None or line.count(name) > 1 else None  # slower, and hardly ever needed
            yield number, json.loads(line.decode(), object_pairs_hook=hook)
        except UnicodeDecodeError as error:
            yield not_utf8(number, error)
        except (ValueError, RecursionError) as error:
            yield Fault(number, f"is not valid JSON ({first_line(error)}).", "Write one JSON object a line.")


def _json_lines(lines: Lines, field: str) -> Iterator[_Found]:
    for found in json_objects(lines, once=field):
        yield found if isinstance(found, Fault) else field_of(*found, field)


def field_of(number: int, record: Any, field: str) -> _Found:
    """The text of a JSON record, in `field` or, of an interleaved document, in its list of texts."""
    if not isinstance(record, dict):
        return Fault(number, f"is a JSON {type(record).__name__}, not an object.", f'Write one object a line, like {{"{field}": "..."}}.')
    field = field_of_text(record, field)
    if field not in record:
        there = ", ".join(repr(name) for name in list(record)[:8]) or "none"
        return Fault(number, f"has no field {field!r} (its fields: {there}).", "Name the field that holds the text with --text.text-field.")
    text = joined(record[field]) if isinstance(record[field], list) else record[field]
    if not isinstance(text, str):
        return Fault(number, f"field {field!r} is {json.dumps(record[field])[:40]}, not a string.", "Write the text as a JSON string.")
    return number, text


def _table(lines: Lines, field: str, delimiter: str, limit: int) -> Iterator[_Found]:
    """CSV and TSV with a header line. Bytes that are not UTF-8 travel as surrogates until the record they belong to is known."""
    csv.field_size_limit(limit)

    def decoded() -> Iterator[str]:
        for line in lines:
            yield ("" if line is None else line.decode("utf-8", "surrogateescape")) + "\n"

    if lines.head.startswith(UTF_16):
        yield not_utf8(1, utf_16=True)
        return
    kind = "CSV" if delimiter == "," else "TSV"
    rows = csv.reader(decoded(), delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        yield Fault(1, f"is not valid {kind} ({error}).", "The first line must be a header.")
        return
    if field not in header:
        there = ", ".join(repr(name) for name in header[:8])
        yield Fault(1, f"has no column {field!r} (its columns: {there}).", other_delimiter(header, delimiter) or NAME_HEADER)
        return
    if header.count(field) > 1:
        yield Fault(1, f"has two columns {field!r}.", RENAME)
        return
    column = header.index(field)
    while True:
        number = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            taken = "" if rows.line_num <= number else f"; all up to line {rows.line_num} goes with it"
            yield Fault(number, f"is not valid {kind} ({error}){taken}.", MEND_QUOTES)
            continue
        if not row:
            continue
        if len(row) != len(header):
            yield Fault(number, f"has {len(row)} fields, the header has {len(header)}.", "Quote fields that hold the delimiter or a line end.")
        elif swallows(row, delimiter):
            yield Fault(number, SWALLOWED, MEND_QUOTES)
        elif re.search("[\udc80-\udcff]", row[column]):
            yield not_utf8(number)
        else:
            yield number, row[column]


def swallows(row: list[str], delimiter: str) -> bool:
    """Whether a row of a .tsv of several lines is several records: each of its lines has all delimiters. (In a .csv commas stand in texts, too.)"""
    if delimiter != "\t" or len(row) < 2 or not any("\n" in field or "\r" in field for field in row):
        return False
    return all(line.count(delimiter) == len(row) - 1 for line in re.split("\r\n|\r|\n", delimiter.join(row)))


def other_delimiter(header: list[str], delimiter: str) -> str:
    """What to do where a table of one column has another delimiter in its first line than its ending promises; "" where it has none."""
    found = next((other for other in ";\t,|" if other != delimiter and len(header) == 1 and other in header[0]), None)
    if found is None:
        return ""
    known = {"\t": ("a tab", "Call it .tsv."), ",": ("','", "Call it .csv.")}
    name, mend = known.get(found, (repr(found), "Write it with commas, or with tabs as .tsv."))
    return f"Its columns seem to be separated by {name}. {mend}"


def _parquet(file: InputFile, field: str, limit: int) -> Iterator[_Found]:
    number = 0
    try:
        columns = parquet.schema(file.path)
        field = field_of_text(columns.names, field)
        if field not in columns.names:
            there = ", ".join(repr(name) for name in columns.names[:8])
            yield Fault(0, f"has no column {field!r} (its columns: {there}).", NAME_COLUMN)
            return
        if columns.names.count(field) > 1:
            yield Fault(0, f"has two columns {field!r}.", RENAME)
            return
        kind = columns.field(field).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or parquet.is_texts(kind)):
            yield Fault(0, f"column {field!r} is of type {kind}, not string.", NAME_COLUMN)
            return
        for row in parquet.rows(file.path, [field]):
            text = joined(row[field]) if isinstance(row[field], list) else row[field]
            number += 1
            if text is None:
                yield Fault(number, f"column {field!r} is null, not a string.", "Leave the row out, or write the text.")
            elif len(text) > limit:
                yield too_large(number, limit)
            else:
                yield number, text
    except UnicodeDecodeError as error:
        yield not_utf8(number + 1, error)
    except parquet.ERRORS as error:
        yield Fault(number + 1, f"is damaged, cut off, or no parquet file ({first_line(error)}).", "Copy or download the file again.")


def _text(lines: Lines, split: DocumentSplit, limit: int, known_size: int) -> Iterator[_Found]:
    if split == "auto":
        split = "blank-line" if blank_lines_separate(lines.head.replace(lines.end, b"\n")) else "file"
    if split == "file" and known_size > limit:  # no need to read it
        yield too_large(1, limit)
        return
    if split == "line":
        for line in lines:
            if line is None or line.strip():
                yield _document(lines.number, [line], limit)
        return
    first, size, block = 1, 0, []  # type: int, int, list[bytes | None]
    for line in lines:
        if split == "blank-line" and line is not None and not line.strip():
            if block:
                yield _document(first, block, limit)
            first, size, block = lines.number + 1, 0, []
            continue
        size += limit + 1 if line is None else len(line) + 1
        block.append(line if size <= limit else None)
        if size > limit:  # keep the mark that it is too large, not its bytes
            del block[:-1]
    if block:
        yield _document(first, block, limit)


def _document(first: int, block: list[bytes | None], limit: int) -> _Found:
    if block[-1] is None:
        return too_large(first, limit)
    data = b"\n".join(line for line in block if line is not None)
    try:
        return first, data.decode()
    except UnicodeDecodeError as error:
        return not_utf8(first + data.count(b"\n", 0, error.start), error)


def blank_lines_separate(head: bytes) -> bool:
    """Whether blank lines end documents in a .txt file that begins with `head`: there are several blocks, and one of them has several lines.

    One line a block is a text whose paragraphs are set apart, so one document; blocks of lines are documents of sentences (the format of BERT and
    ELECTRA).
    """
    blocks = [block for block in re.split(rb"\n(?:[ \t\r]*\n)+", head.strip()) if block]
    return len(blocks) > 1 and any(b"\n" in block for block in blocks)


def not_utf8(number: int, error: UnicodeDecodeError | None = None, utf_16: bool = False) -> Fault:
    where = ""
    if error:
        place = error.start - error.object.rfind(b"\n", 0, error.start)
        where = f" (byte {place:,} of the line is 0x{error.object[error.start]:02x})"
    if utf_16 or (error and error.object[:2] in UTF_16):
        return Fault(number, "is UTF-16, not UTF-8.", "Convert it: iconv -f UTF-16 -t UTF-8.")
    return Fault(number, f"is not UTF-8{where}.", "Convert the file, for example: iconv -f LATIN1 -t UTF-8.")
