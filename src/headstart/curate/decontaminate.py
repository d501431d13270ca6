"""Documents that quote a benchmark (webmath A9): a shared 10-gram of words, both sides normalised as for MinHash; short items must stand there whole.

The paper describes no decontamination; the rule is DeepSeekMath's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.core.errors import BadInput
from headstart.core.words import first_line
from headstart.curate.config import DecontaminateConfig
from headstart.curate.minhash import normalised
from headstart.curate.tables import Stage, drop, texts_of
from headstart.data import parquet
from headstart.data.tables import decoded, lines_of

SHORTEST = 3
NO_ITEM = "Give test items as .jsonl, .txt or .parquet."


@dataclass(frozen=True)
class Benchmarks:
    """n-grams of test items.

    Attributes:
        grams: length in words -> n-gram -> names of the benchmarks that have it.
        items: of each benchmark, how many items are looked for, and how many were too short.
    """

    grams: dict[int, dict[str, tuple[str, ...]]]
    items: dict[str, tuple[int, int]]

    def quoted_in(self, text: str) -> tuple[str, ...]:
        """Names of the benchmarks that a text quotes, sorted."""
        words = normalised(text).split()
        found: set[str] = set()
        for length, grams in self.grams.items():
            for gram in map(" ".join, zip(*(words[i:] for i in range(length)), strict=False)):
                if names := grams.get(gram):
                    found.update(names)
        return tuple(sorted(found))


def read_benchmarks(paths: Sequence[Path], n_gram: int = 10) -> Benchmarks:
    """The items of files: a record is one, or a line of a .txt file. Of its texts those of `n_gram` words and more are looked for by their n-grams;
    where none is so long the longest must stand there whole. What stands beside a longer text is not looked for: a subject such as
    "high_school_mathematics", or a choice "none of the above", would take every page that has these words.

    Raises:
        BadInput: a file has no item that is long enough.
    """
    grams: dict[int, dict[str, tuple[str, ...]]] = {}
    items: dict[str, tuple[int, int]] = {}
    for path in paths:
        name, looked_for, short = path.name.split(".")[0], 0, 0
        for item in _items(path):
            texts = [normalised(part).split() for part in item]
            length = min(n_gram, max(map(len, texts), default=0))
            if length < SHORTEST:
                short += 1
                continue
            looked_for += 1
            table = grams.setdefault(length, {})
            for words in texts:
                for start in range(len(words) - length + 1):
                    gram = " ".join(words[start : start + length])
                    names = table.get(gram, ())
                    table[gram] = names if name in names else (*names, name)
        if not looked_for:
            raise BadInput(f"has no item of {SHORTEST} words or more.", NO_ITEM, file=path)
        items[name] = (looked_for, short)
    return Benchmarks(grams, items)


def _items(path: Path) -> Iterator[list[str]]:
    """The strings of each record."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            rows: Iterator[Any] = (row for batch in pq.ParquetFile(path).iter_batches() for row in batch.to_pylist())
            yield from (list(_strings(row)) for row in rows)
        except parquet.ERRORS as error:
            raise BadInput(f"is damaged, cut off, or no Parquet file ({first_line(error)}).", "Copy or download it again.", file=path) from error
        return
    if path.suffix not in (".jsonl", ".txt"):
        raise BadInput("is no file of test items.", "Give .jsonl, .txt or .parquet, uncompressed.", file=path)
    for number, line in enumerate(lines_of(decoded(path, NO_ITEM)), start=1):  # a JSON string may hold other line ends
        if path.suffix == ".jsonl" and line.strip():
            try:
                yield list(_strings(json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise BadInput(f"is not valid JSON ({error}).", "Mend the line.", file=path, record=number) from error
        elif line.strip():
            yield [line]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


@cache
def _cached(paths: tuple[Path, ...], n_gram: int) -> Benchmarks:
    return read_benchmarks(paths, n_gram)


def decontaminate(config: DecontaminateConfig) -> Stage:
    """The stage. The reason names every benchmark that the document quotes."""

    def stage(table: pa.Table) -> pa.Table:
        if not config.benchmarks:
            return drop(table, [None] * table.num_rows)
        known = _cached(config.benchmarks, config.n_gram)
        quoted = [known.quoted_in(text) for text in texts_of(table)]
        return drop(table, [f"quotes {', '.join(names)}" if names else None for names in quoted])

    return stage
