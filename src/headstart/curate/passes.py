"""A pass: one shard of the input through some stages, streamed in batches, to one Parquet file and its counts.

A shard is done when its counts lie there; they are written last. So a killed pass is continued by doing the shards without counts, and what comes
out is the
same: a shard is read, worked on and written in order by one process, and nothing in it depends on the others.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.core.curation import shard_name
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, read_json, write_json
from headstart.curate import stages
from headstart.curate.addresses import Source
from headstart.curate.config import CurateConfig
from headstart.curate.counts import StageCounts, from_json, to_json
from headstart.curate.duplicates import BAND_COLUMNS
from headstart.curate.layouts import laid_out
from headstart.curate.sources import read_source
from headstart.curate.stages import Answers

ROW_GROUP_BYTES = 1 << 25
ROW_GROUP_ROWS = 4096
BETWEEN = "files between passes"
"""What `run_shard` calls the time that no stage takes: documents read from and written to Parquet."""


@dataclass(frozen=True)
class Pass:
    """Some stages over every shard.

    Attributes:
        folder: where its files go.
        stages: names, in order.
        before: the folder of the pass before; None: the shards are the sources.
        sources: the input files; their places are the numbers of the shards.
        last: the output of the curation: its columns are those of `config.layout`.
        answers: what the whole corpus answered.
        draw: so many random documents of each shard, as they were extracted, are kept beside: classifiers learn from them as the other side.
    """

    folder: Path
    stages: tuple[str, ...]
    before: Path | None
    sources: tuple[Source, ...]
    config: CurateConfig
    answers: Answers
    last: bool = False
    draw: int = 0

    def documents(self, shard: int) -> Path:
        return self.folder / shard_name(shard, self.config.form if self.last else "parquet")

    def counts(self, shard: int) -> Path:
        return self.folder / "counts" / f"shard-{shard:05d}.json"

    def drawn(self, shard: int) -> Path:
        return self.folder / "random" / shard_name(shard)

    def read_counts(self, shard: int) -> list[StageCounts]:
        """The counts of a finished shard."""
        return from_json(read_json(self.counts(shard))["stages"])

    def unfinished(self) -> list[int]:
        """Shards without counts, or whose file is not the one that was counted."""
        return [shard for shard in range(len(self.sources)) if not self._finished(shard)]

    def _finished(self, shard: int) -> bool:
        file = self.documents(shard)
        return self.counts(shard).is_file() and file.is_file() and read_json(self.counts(shard))["bytes"] == file.stat().st_size


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the time of what is done within."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started


def run_shard(work: Pass, shard: int) -> dict[str, float]:
    """Takes a shard through the stages of a pass, and writes it with its counts.

    Returns:
        Seconds of each stage, of reading the input ("read") and of the files between passes. No file has them: equal work gives equal bytes.

    Raises:
        BadInput: the input holds texts where a stage needs HTML, or the other way.
    """
    work.counts(shard).parent.mkdir(parents=True, exist_ok=True)
    work.counts(shard).unlink(missing_ok=True)
    made = {name: stages.make(name, work.config, work.answers, shard) for name in work.stages}
    counts = [StageCounts(name) for name in (("read", *work.stages) if work.before is None else work.stages)]
    random = _Random(work.draw)
    draw_after = "extract" if "extract" in work.stages else counts[0].stage
    fetched = stages.fetched(work.answers) if work.last and work.config.images.download and "images" in work.stages else None
    writer_of = _Lines if work.last and work.config.form == "jsonl" else _Writer
    seconds: dict[str, float] = {}
    with atomic_write(work.documents(shard)) as file, writer_of(file) as writer:
        batches = _batches(work, shard)
        while True:
            with timed(seconds, "read" if work.before is None else BETWEEN):
                table = next(batches, None)
            if table is None:
                break
            for place, count in enumerate(counts):
                with timed(seconds, count.stage):
                    after = table if count.stage == "read" else _stage(made[count.stage], table, count.stage, work, shard)
                    kept = after.filter(pc.is_null(after["dropped"]))
                    count.add(table, after, kept, work.sources[shard].address)
                table = kept
                del after, kept
                if count.stage == draw_after:
                    with timed(seconds, BETWEEN):
                        random.add(table)
                if table.num_rows == 0 and place + 1 < len(counts):
                    break
            else:
                with timed(seconds, BETWEEN):
                    writer.write(laid_out(table, work.config.layout, fetched) if work.last else table)
        if writer.empty:  # a shard of which nothing is left still has its columns
            writer.write(_nothing(work, made, fetched))
    if work.draw:
        random.write(work.drawn(shard))
    for count in counts:
        count.check()
    write_json(work.counts(shard), {"bytes": work.documents(shard).stat().st_size, "stages": to_json(counts)})
    return seconds


def _stage(stage: Any, table: pa.Table, name: str, work: Pass, shard: int) -> pa.Table:
    pages = "html" in table.column_names
    if name in stages.PAGE_STAGES and not pages:
        return table
    if name not in (*stages.PAGE_STAGES, "language") and pages:
        asked = "near-duplicates" if name == "signatures" else name  # which begins with signatures
        what = f"holds HTML pages, and the stage {asked} works on documents."
        mend = f"Extract them first: headstart curate extract DATA --out PAGES; then headstart curate {asked} PAGES --out FOLDER."
        raise BadInput(what, mend, file=work.sources[shard].address)
    return stage(table)


def _batches(work: Pass, shard: int) -> Iterator[pa.Table]:
    if work.before is None:
        yield from read_source(work.sources[shard].address, shard, work.config.read)
        return
    path = work.before / shard_name(shard)
    with pq.ParquetFile(path) as file:
        own = [name for name in file.schema_arrow.names if name not in BAND_COLUMNS]
        for batch in file.iter_batches(batch_size=256, columns=own):
            yield pa.Table.from_batches([batch])


def _nothing(work: Pass, made: dict[str, Any], fetched: Any) -> pa.Table:
    """No rows, with the columns that rows would have had."""
    from headstart.curate.tables import DOCUMENTS, PAGES

    if work.before is not None:
        schema = pq.read_schema(work.before / shard_name(0))
    else:
        schema = PAGES if any(name in stages.PAGE_STAGES for name in work.stages) else DOCUMENTS
    table = pa.schema([field for field in schema if field.name not in BAND_COLUMNS]).empty_table()
    for name in work.stages:
        if name not in stages.PAGE_STAGES or "html" in table.column_names:
            table = made[name](table)
    return laid_out(table, work.config.layout, fetched) if work.last else table


class _Random:
    """The documents whose URL has the smallest checksum: a random choice that is the same each time."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._held: list[tuple[int, int, dict[str, Any]]] = []

    def add(self, table: pa.Table) -> None:
        if not self._count or "text_list" not in table.column_names:
            return
        for row in table.select(["order", "url", "text_list"]).to_pylist():
            self._held.append((zlib.crc32((row["url"] or "").encode()), row["order"], row))
        if len(self._held) > 2 * self._count:
            self._cut()

    def _cut(self) -> None:
        self._held = sorted(self._held, key=lambda one: one[:2])[: self._count]

    def write(self, path: Path) -> None:
        self._cut()
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = pa.schema([("order", pa.int64()), ("url", pa.string()), ("text_list", pa.list_(pa.string()))])
        with atomic_write(path) as file:
            pq.write_table(pa.Table.from_pylist([row for *_, row in self._held], schema=schema), file, compression="zstd")


class _Writer:
    """Parquet in row groups of bounded size, whose borders depend on the rows alone."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._held: list[pa.Table] = []
        self._rows = self._bytes = 0

    @property
    def empty(self) -> bool:
        return self._writer is None and not self._held

    def write(self, table: pa.Table) -> None:
        self._held.append(table.replace_schema_metadata(None))
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._held)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._file, table.schema, compression="zstd", use_dictionary=["snapshot", "language"])
        self._writer.write_table(table)
        self._held, self._rows, self._bytes = [], 0, 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None and self._held:
            self._flush()
        if self._writer is not None:
            self._writer.close()


class _Lines:
    """JSON lines; of a shard of which nothing is left an empty one: a file without a byte counts as damaged."""

    empty = False  # no rows need no columns

    def __init__(self, file: Any) -> None:
        self._file = file
        self._written = False

    def write(self, table: pa.Table) -> None:
        if "html" in table.column_names and pa.types.is_large_binary(table.schema.field("html").type):
            raise BadInput("Pages as they were crawled are bytes, which JSON cannot hold.", "Leave out --form jsonl, or begin with the pre-filter.")
        for row in table.to_pylist():
            self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self._written = True

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if not self._written:
            self._file.write(b"\n")


def error_of(error: BaseException) -> str:
    """An error as a worker sends it to the driver."""
    from headstart.core.errors import HeadstartError

    if isinstance(error, HeadstartError):
        return json.dumps({"error": type(error).__name__, "what": error.what, "mend": error.mend})
    return json.dumps({"error": "bug", "what": f"{type(error).__name__}: {error}", "mend": ""})
