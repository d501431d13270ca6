"""The two tables that go through the stages: pages as they were crawled, and the documents that were made of them.

A stage takes a table and gives it back with the column `dropped`: null where the row stays, else the reason, a few words that are counted. Rows
keep their
place; who runs the stages takes the dropped ones out (`passes`), so each stage can be looked at alone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

Stage: TypeAlias = Callable[[pa.Table], pa.Table]

PAGES = pa.schema(
    [
        ("order", pa.int64()),  # shard << 32 | record: the order of the input
        ("id", pa.string()),
        ("url", pa.string()),
        ("snapshot", pa.string()),
        ("content_type", pa.string()),
        ("html", pa.large_binary()),
        ("dropped", pa.string()),
    ]
)
DOCUMENTS = pa.schema(
    [
        ("order", pa.int64()),
        ("id", pa.string()),
        ("url", pa.string()),
        ("snapshot", pa.string()),
        ("language", pa.string()),
        ("language_probability", pa.float32()),
        ("text_list", pa.list_(pa.string())),
        ("image_list", pa.list_(pa.string())),
        ("words", pa.int32()),  # words and CJK characters
        ("images", pa.int32()),
        ("formulas", pa.int32()),
        ("math_prob", pa.float32()),  # of the first classifier
        ("quality_prob", pa.float32()),  # of the second
        ("html_bytes", pa.int64()),
        ("image_facts", pa.string()),  # JSON: address -> what an earlier curation knew of the image that it fetched
        ("dropped", pa.string()),
    ]
)
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\w+")
_FORMULA = re.compile(r"\\.|\$\$(?:\\.|[^\\$]|\$(?!\$))*\$\$|\$(?:\\.|[^\\$])*\$", re.DOTALL)
ITEMS = b"items"


def with_column(table: pa.Table, name: str, values: Any, kind: pa.DataType) -> pa.Table:
    """The table with a column set, in its place where it is there already."""
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, type=kind)
    place = table.schema.get_field_index(name)
    return table.append_column(pa.field(name, kind), column) if place < 0 else table.set_column(place, pa.field(name, kind), column)


def drop(table: pa.Table, reasons: Sequence[str | None]) -> pa.Table:
    """The table with `dropped` set; None stays."""
    return with_column(table, "dropped", reasons, pa.string())


def with_items(table: pa.Table, items: Counter[str]) -> pa.Table:
    """Carries counts of what was dropped within documents (images, formulas) beside the table, and of what is only worth telling (`text: ...`)."""
    return table.replace_schema_metadata({ITEMS: json.dumps(items, sort_keys=True).encode()})


def items_of(table: pa.Table) -> Counter[str]:
    """What `with_items` carries."""
    return Counter(json.loads((table.schema.metadata or {}).get(ITEMS, b"{}")))


def text_of(texts: Iterable[str | None]) -> str:
    """The text of a document without its images, one line break between two parts."""
    return "\n".join(text for text in texts if text is not None)


def texts_of(table: pa.Table) -> list[str]:
    """The text of each document of a table."""
    return [text_of(texts or ()) for texts in table["text_list"].to_pylist()]


def without_formulas(text: str) -> str:
    """The text without what stands between its dollars; a literal dollar is written \\$ and stays."""
    return _FORMULA.sub(lambda found: found[0] if found[0].startswith("\\") else " ", text) if "$" in text else text


def count_words(text: str) -> int:
    """Words, and each CJK character as one: about a token each."""
    return sum(1 for _ in _WORD.finditer(text))


def year_of(snapshot: str) -> str:
    """The calendar year in a snapshot's name (CC-MAIN-YYYY-WW); the whole name where there is none."""
    found = re.search(r"(?<!\d)(19|20)\d\d(?!\d)", snapshot)
    return found[0] if found else snapshot
