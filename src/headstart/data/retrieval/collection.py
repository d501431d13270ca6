"""Documents and queries with their names.

    documents.jsonl   {"id": "d17", "title": "Pump manual", "text": "Switch the pump off before ..."}; also .csv, .parquet and .tsv with a header
    documents.tsv     of MS MARCO, without a header: docid, url, title, body; or pid, passage
    queries.tsv       qid, query, without a header; or a table with id and text

A document with a title is read as "title. text". Compressed files (.gz, .zst) are read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.data.tables import decoded, lines_of, records, suffix_of
from headstart.data.text.read import why_no_text

IDS = ("id", "_id", "docid", "doc_id", "pid", "qid", "query_id")
TEXTS = ("text", "body", "contents", "passage", "query", "question")
OF_MSMARCO = {4: (0, 2, 3), 2: (0, None, 1)}
"""Fields of a line without a header -> which are id, title and text."""


@dataclass(frozen=True)
class Named:
    """Texts with a name each: documents, or queries.

    Attributes:
        empty: how many of them have no text; of queries none has.
    """

    ids: list[str]
    texts: list[str]
    source: str = ""
    empty: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def number(self) -> dict[str, int]:
        """Name -> its place."""
        return {name: place for place, name in enumerate(self.ids)}


def read_documents(path: str | Path) -> Named:
    """The documents of a collection.

    Raises:
        BadInput: a record has no id or text, another number of fields, or an id that an earlier one has.
    """
    return _read(path, "document")


def read_queries(path: str | Path) -> Named:
    """Queries; arguments and errors as `read_documents`. A query without words is refused."""
    found = _read(path, "query")
    if found.empty:
        number = next(i for i, text in enumerate(found.texts) if not text.strip())
        raise BadInput(f"the query {found.ids[number]!r} is empty", "Remove it, or give it words.", file=path)
    return found


def _read(path: str | Path, what: str) -> Named:
    ids: list[str] = []
    texts: list[str] = []
    seen: dict[str, int] = {}
    for record, name, text in _lines(path) if suffix_of(path) == ".tsv" and not _has_header(path) else _records(path):
        if name in seen:
            raise BadInput(f"the {what} id {name!r} stands in record {seen[name]} already", "Give each an id of its own.", file=path, record=record)
        seen[name] = record
        ids.append(name)
        texts.append(text)
    return Named(ids, texts, str(path), sum(not text.strip() for text in texts))


def _has_header(path: str | Path) -> bool:
    first = next((line for line in lines_of(decoded(path)) if line.strip()), "")
    fields = [field.strip().strip('"').lower() for field in first.rstrip("\r").split("\t")]
    return any(field in IDS for field in fields) and any(field in TEXTS for field in fields)


def _lines(path: str | Path) -> Iterator[tuple[int, str, str]]:
    """A table without a header: a quote is a character, as MS MARCO has it."""
    fields = 0
    for number, line in enumerate(lines_of(decoded(path)), 1):
        if not line.strip():
            continue
        parts = line.rstrip("\r").split("\t")
        fields = fields or len(parts)
        if len(parts) != fields or fields not in OF_MSMARCO:
            wanted = f"{fields} as the first" if fields in OF_MSMARCO and number > 1 else "4 (docid, url, title, body) or 2 (id, text)"
            raise BadInput(f"has {len(parts)} fields between tabs, not {wanted}", "Correct the line, or give a header.", file=path, record=number)
        name, title, text = (None if at is None else parts[at] for at in OF_MSMARCO[fields])
        yield number, _named(name, path, number), _joined(title, text, path, number)


def _records(path: str | Path) -> Iterator[tuple[int, str, str]]:
    for number, record in records(path):
        name, text = _first(record, IDS, path, number), _first(record, TEXTS, path, number)
        yield number, _named(name, path, number), _joined(record.get("title"), text, path, number)


def _first(record: dict[str, Any], names: Sequence[str], path: str | Path, number: int) -> Any:
    for name in names:
        if name in record:
            return record[name]
    shown = ", ".join(map(repr, list(record)[:8]))
    raise BadInput(f"has no field {names[0]!r} (its fields: {shown})", f"A record has {IDS[0]} and {TEXTS[0]}.", file=path, record=number)


def _named(value: Any, path: str | Path, number: int) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not name or len(name.split()) > 1:
        raise BadInput(f"the id is {value!r}: an id is one word", "Files of TREC separate by blanks; give it another one.", file=path, record=number)
    return name


def _joined(title: Any, text: Any, path: str | Path, number: int) -> str:
    for value in (title, text):
        if value is not None and not isinstance(value, str):
            raise BadInput(f"holds {type(value).__name__} where a text belongs", "Correct or remove the record.", file=path, record=number)
        if isinstance(value, str) and value and (reason := why_no_text(value)) and value.strip():
            raise BadInput(f"holds a text that {reason}", "Correct or remove the record.", file=path, record=number)
    title, text = (title or "").strip(), (text or "").strip()
    return f"{title}. {text}" if title and text else title or text
