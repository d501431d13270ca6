"""Rows of parquet files, with memory bounded by one page and one value.

A file may state one long string once and refer to it a million times: columns of strings stay encoded as a dictionary, and rows are made one by one.
Extension types are read as what they are stored as; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.compressed import refuse_bomb

BATCH = 256
ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, TypeError, LookupError, RecursionError, MemoryError)
"""What a damaged file, or a value that Python cannot hold (a date in the year 300,000), may raise."""


def schema(path: Path) -> pa.Schema:
    """Columns and types. Raises one of `ERRORS`."""
    with pq.ParquetFile(path) as table:
        return table.schema_arrow


def rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Column name -> value of each row. Raises one of `ERRORS`, among them `compressed.Bomb`."""
    packed, size = path.stat().st_size, 0
    with pq.ParquetFile(path) as table:
        texts = [field.name for field in table.schema_arrow if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    with pq.ParquetFile(path, read_dictionary=texts) as table:
        for batch in table.iter_batches(batch_size=BATCH, columns=None if columns is None else list(columns)):
            for index in range(len(batch)):
                row = {name: column[index].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}
                size += sum(len(value) for value in row.values() if isinstance(value, str))
                refuse_bomb(size, packed)
                yield row
