"""Rows of parquet files, with memory bounded by one page and one value.

A file may state one long string once and refer to it a million times: columns of strings stay encoded as a dictionary, and rows are made one by one.
Extension types are read as what they are stored as; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.data.compressed import refuse_bomb

BATCH_BYTES = 2**24
"""About so much of a file is decoded at a time."""
MIN_ROWS, MAX_ROWS = 16, 2**14
CHUNK = 256
"""Rows that become Python values together, where their texts are not larger than `BATCH_BYTES`; one by one else."""
ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, TypeError, LookupError, RecursionError, MemoryError)
"""What a damaged file, or a value that Python cannot hold (a date in the year 300,000), may raise."""


def schema(path: Path) -> pa.Schema:
    """Columns and types. Raises one of `ERRORS`."""
    with pq.ParquetFile(path) as table:
        return table.schema_arrow


def rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Column name -> value of each row. Columns of lists and structures are left out, unless `columns` names one: then lists of strings are read, and
    images that are bytes (`is_images`).

    Raises one of `ERRORS`, among them `compressed.Bomb`.
    """
    packed, size = path.stat().st_size, 0
    with pq.ParquetFile(path) as table:
        flat = {field.name: field.type for field in table.schema_arrow if not pa.types.is_nested(field.type)}
        wanted = list(flat) if columns is None else list(columns)
        leaves = (table.schema.column(index) for index in range(len(table.schema)))
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.path.partition(".")[0] in wanted]
        stated = sum(table.metadata.row_group(index).total_byte_size for index in range(table.num_row_groups))
        at_once = min(max(BATCH_BYTES * table.metadata.num_rows // max(stated, 1), MIN_ROWS), MAX_ROWS)
    with pq.ParquetFile(path, read_dictionary=texts) as table:
        for batch in table.iter_batches(batch_size=at_once, columns=wanted):
            names = batch.schema.names
            for start in range(0, len(batch), CHUNK):
                for values in zip(*(_python(column.slice(start, CHUNK), size, packed) for column in batch.columns), strict=True):
                    size += sum(_size(value) for value in values)
                    refuse_bomb(size, packed)
                    yield dict(zip(names, values, strict=True))


TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists of strings, as interleaved documents do."""
    if not is_list(kind):
        return False
    inner = kind.value_type.value_type if pa.types.is_dictionary(kind.value_type) else kind.value_type
    return pa.types.is_string(inner) or pa.types.is_large_string(inner)


def is_images(kind: pa.DataType) -> bool:
    """Whether a column of this type holds the bytes of an image, or a structure with a field `bytes` (Hugging Face's datasets), or lists of them."""
    if is_list(kind):
        return is_images(kind.value_type)
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and is_images(kind.field(place).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _size(value: Any) -> int:
    """Characters or bytes of a string, or of all in a list or structure."""
    if isinstance(value, list | dict):
        return sum(map(_size, value if isinstance(value, list) else value.values()))
    return len(value) if isinstance(value, str | bytes) else 0


def _python(column: pa.Array, before: int, packed: int) -> Iterable[Any]:
    """The values, all at once where they are small: five times as fast as one by one.

    Args:
        before: bytes that came out of the file so far, whose size is `packed`: a list may refer to one long string as often as it likes.
    """
    if _stated(column) > BATCH_BYTES:
        return _one_by_one(column, before, packed)
    return (column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column).to_pylist()


def _one_by_one(column: pa.Array, before: int, packed: int) -> Iterator[Any]:
    for index in range(len(column)):
        one = column.slice(index, 1)
        refuse_bomb(before + _stated(one), packed)
        yield one.to_pylist()[0]


def _stated(column: pa.Array) -> int:
    """Bytes of the strings of a column, each as often as it is referred to."""
    if is_list(column.type):
        return _stated(column.flatten())
    if pa.types.is_struct(column.type):
        return sum(map(_stated, column.flatten()))
    if isinstance(column, pa.DictionaryArray):
        if not any(is_text(column.dictionary.type) for is_text in TEXTS):
            return 0
        return int(pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0)
    return int(pc.sum(pc.binary_length(column)).as_py() or 0) if any(is_text(column.type) for is_text in TEXTS) else 0
