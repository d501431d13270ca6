"""Texts with their names, one after another: what is scored and chosen from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.core.errors import BadInput
from headstart.core.files import open_regular, refuse_many_values, unique_keys
from headstart.core.words import first_line
from headstart.data.compressed import Bomb, Decompressed
from headstart.data.text.config import TextConfig
from headstart.data.text.read import BYTE_ORDER_MARK, Fault, Reading, why_no_text
from headstart.data.text.sources import InputFile, find_inputs

BLOCK = 2**20


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        id: its own `id` where it has one, else FILE:NUMBER.
        source: its `source` (or `src`), "" where it says none.
        text: the text.
        file, number: where it stands, from 1.
    """

    id: str
    source: str
    text: str
    file: str
    number: int


def read_pool(sources: Sequence[str | Path], text_field: str = "text") -> Iterator[Document]:
    """All documents of files, folders and globs, as a stream. Records of .jsonl keep their `id` and `source`.

    Raises:
        BadInput: a record that cannot be used, by file and number; an id that is no string or number.
    """
    config = TextConfig(text_field=text_field)
    for file in find_inputs(sources).files:
        if file.format == "jsonl":
            yield from _of_json(file, text_field)
            continue
        for record in Reading(file, config):
            if isinstance(record, Fault):
                raise BadInput(record.what, record.mend, file=file.name, record=record.number or None)
            yield Document(f"{Path(file.name).name}:{record.number}", "", record.text, file.name, record.number)


def _of_json(file: InputFile, field: str) -> Iterator[Document]:
    for number, line in _lines(file):
        try:
            refuse_many_values(line)
            record = json.loads(line, object_pairs_hook=unique_keys)
        except (ValueError, RecursionError) as error:
            mend = "Write one JSON object a line, in UTF-8."
            raise BadInput(f"is not valid JSON ({first_line(error)}).", mend, file=file.name, record=number) from None
        text = record.get(field) if isinstance(record, dict) else None
        if not isinstance(text, str):
            raise BadInput(f"has no text in the field {field!r}.", f'Write {{"{field}": "..."}}, or name the field.', file=file.name, record=number)
        if reason := why_no_text(text):
            raise BadInput(f"{reason}.", "Remove it; the file may be binary or of another encoding.", file=file.name, record=number)
        name = record.get("id", f"{Path(file.name).name}:{number}")
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise BadInput(f"has the id {json.dumps(name)[:40]}.", "Make it a string or a number.", file=file.name, record=number)
        source = record.get("source", record.get("src", ""))
        yield Document(str(name), source if isinstance(source, str) else "", text, file.name, number)


def _lines(file: InputFile) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line that is not blank."""
    with open_regular(file.path) as raw:
        stream: Any = raw if file.compression is None else Decompressed(raw, file.compression, raw.tell)
        number, rest = 0, b""
        try:
            while block := stream.read(BLOCK):
                *whole, rest = (rest + block.removeprefix(BYTE_ORDER_MARK if number == 0 and not rest else b"")).split(b"\n")
                for line in whole:
                    number += 1
                    if line.strip():
                        yield number, line
        except Bomb as error:
            raise BadInput(f"{error}.", "Leave the file out, or give it uncompressed.", file=file.name) from None
        except (pa.ArrowException, OSError) as error:
            what = f"the {file.compression or ''} data is damaged or cut off ({first_line(error)})."
            raise BadInput(what, "Copy the file again.", file=file.name, record=number + 1) from None
        if rest.strip():
            yield number + 1, rest
