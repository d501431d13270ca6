"""Texts with their names, one after another: what is scored and chosen from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault, FileReading, Lines, Reading, checked, document_limit, field_of, json_objects
from headstart.data.text.sources import InputFile, find_inputs


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
            yield from _of_json(file, config)
            continue
        for record in Reading(file, config):
            if isinstance(record, Fault):
                raise _refused(file, record)
            yield Document(f"{Path(file.name).name}:{record.number}", "", record.text, file.name, record.number)


class _Objects(FileReading[tuple[int, Any]]):
    """The JSON values of a file, with their lines."""

    def from_lines(self, lines: Lines) -> Iterator[tuple[int, Any] | Fault]:
        yield from json_objects(lines)


def _of_json(file: InputFile, config: TextConfig) -> Iterator[Document]:
    for found in _Objects(file, document_limit(config)):
        if isinstance(found, Fault):
            raise _refused(file, found)
        number, record = found
        text = checked(field_of(number, record, config.text_field))
        if isinstance(text, Fault):
            raise _refused(file, text)
        name = record.get("id", f"{Path(file.name).name}:{number}")
        if not isinstance(name, str | int) or isinstance(name, bool):
            raise BadInput(f"has the id {json.dumps(name)[:40]}.", "Make it a string or a number.", file=file.name, record=number)
        source = record.get("source", record.get("src", ""))
        yield Document(str(name), source if isinstance(source, str) else "", text.text, file.name, number)


def _refused(file: InputFile, fault: Fault) -> BadInput:
    return BadInput(fault.what, fault.mend, file=file.name, record=fault.number or None)
