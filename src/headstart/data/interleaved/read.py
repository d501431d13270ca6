"""From one file to its documents, in one streaming pass: jsonl (gzip, zstd) and parquet.

Nothing is guessed: a record that is no document becomes a `Fault` with its number, the reason and how to mend it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from headstart.core.errors import BadInput
from headstart.core.words import first_line
from headstart.data import parquet
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.documents import KNOWN, LISTS, Piece, Refused, Text, pieces_of
from headstart.data.text.encode import content_hash
from headstart.data.text.read import Fault, FileReading, Lines, document_limit, json_objects, not_utf8, too_large
from headstart.data.text.sources import InputFile, Inputs, find_inputs

FORMATS = ("jsonl", "parquet")
FLAT = ("caption", "text", "question", "answer")
"""Columns of strings that a parquet file may have instead of the lists."""
OF_IMAGES = ("image", "images")
"""Columns of names or of bytes beside them."""


@dataclass(frozen=True)
class Document:
    """One document. `number` is its 1-based line or row."""

    number: int
    pieces: Sequence[Piece]
    hash: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        content = json.dumps([piece.text if isinstance(piece, Text) else [piece.name] for piece in self.pieces], ensure_ascii=False).encode()
        object.__setattr__(self, "hash", content_hash(content))
        object.__setattr__(self, "size", len(content))


class Documents(FileReading[Document]):
    """The documents of a file."""

    def __init__(self, file: InputFile, config: InterleavedConfig) -> None:
        super().__init__(file, document_limit(config.of_texts()))

    def from_lines(self, lines: Lines) -> Iterator[Document | Fault]:
        for found in json_objects(lines):
            yield found if isinstance(found, Fault) else self._document(*found)

    def from_parquet(self) -> Iterator[Document | Fault]:
        number = 0
        try:
            columns = parquet.schema(self.file.path)
            wanted = next((list(pair) for pair in LISTS if set(pair) <= set(columns.names)), None)
            if wanted is None:
                wanted = [field.name for field in columns if _is_wanted(field)]
            elif not parquet.is_texts((texts := columns.field(wanted[0])).type):
                yield Fault(0, f"column {texts.name!r} is of type {texts.type}, not a list of strings.", f"Known forms: {KNOWN}.")
                return
            elif not _is_names_or_images((images := columns.field(wanted[1])).type):
                yield Fault(0, f"column {images.name!r} is of type {images.type}, not a list of strings or of images.", f"Known forms: {KNOWN}.")
                return
            if not wanted:
                there = ", ".join(repr(name) for name in columns.names[:8])
                yield Fault(0, f"is of no known form (its columns: {there}).", f"Known forms: {KNOWN}.")
                return
            for row in parquet.rows(self.file.path, wanted):
                number += 1
                yield self._document(number, {name: value for name, value in row.items() if value is not None})
        except UnicodeDecodeError as error:
            yield not_utf8(number + 1, error)
        except parquet.ERRORS as error:
            yield Fault(number + 1, f"is damaged, cut off, or no parquet file ({first_line(error)}).", "Copy or download the file again.")

    def _document(self, number: int, record: object) -> Document | Fault:
        try:
            document = Document(number, pieces_of(record))
        except Refused as refused:
            return Fault(number, refused.what, refused.mend)
        return too_large(number, self.limit) if document.size > self.limit else document


def _is_wanted(column: pa.Field) -> bool:
    """Whether a column of a file without the lists is one of ours."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if column.name in OF_IMAGES:
        return bool(is_text or parquet.is_texts(column.type) or parquet.is_images(column.type))
    return bool(column.name in FLAT and is_text)


def _is_names_or_images(kind: pa.DataType) -> bool:
    """Whether a column holds lists of names of images, or of images."""
    return parquet.is_texts(kind) or (parquet.is_list(kind) and parquet.is_images(kind))


def find_documents(sources: Sequence[str | Path]) -> Inputs:
    """The files of `sources` that may hold interleaved documents; files of other kinds are passed over where a folder or pattern is given.

    Raises:
        BadInput: there is none, or a file that is named is of another kind.
    """
    inputs = find_inputs(sources)
    named = {str(source) for source in sources}
    for file in inputs.files:
        if file.format not in FORMATS:
            if str(file.path) in named:
                raise BadInput("holds no interleaved documents.", "Give .jsonl (also .gz, .zst) or .parquet files.", file=file.name)
            inputs.passed_over[file.path.suffix] += 1
    inputs.files = [file for file in inputs.files if file.format in FORMATS]
    if not inputs.files:
        mend = "Give .jsonl (also .gz, .zst) or .parquet files."
        raise BadInput("no files of interleaved documents found.", mend, file=", ".join(map(str, sources[:3])))
    return inputs
