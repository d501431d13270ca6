"""What each stage kept and dropped, and why: the sums of all shards are the sums of the whole (webmath, check 16)."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headstart.core.errors import BadInput
from headstart.curate.tables import items_of, text_of

SAMPLES = 5
"""Dropped rows of each reason that are kept to look at."""
EXCERPT = 400


@dataclass
class StageCounts:
    """One stage over some rows.

    Attributes:
        entered, kept: rows; entered = kept + the sum of `dropped`.
        dropped: reason -> rows.
        words, images: of the kept rows, once they are documents.
        html_bytes: of the kept rows, while they are pages.
        items: what was dropped within documents, or (`duplicates.FEW`) only counted, reason -> number.
        samples: reason -> [[url, excerpt]].
    """

    stage: str
    entered: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    words: int = 0
    images: int = 0
    html_bytes: int = 0
    items: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[list[str]]] = field(default_factory=dict)

    def add(self, before: pa.Table, after: pa.Table, kept: pa.Table, file: str = "") -> None:
        """Counts a table before and after the stage, and the rows of it that stay.

        Args:
            before: samples are quoted from it: what comes behind a stage may lack the page.
            file: it comes from; file and record stand for what a sample has not, its address or its text.
        """
        self.entered += after.num_rows
        self.kept += kept.num_rows
        self.items += items_of(after)
        names = kept.column_names
        self.words += _sum(kept, "words") if "words" in names else 0
        self.images += _sum(kept, "images") if "images" in names else 0
        self.html_bytes += pc.sum(pc.binary_length(kept["html"])).as_py() or 0 if "html" in names else 0
        for row, reason in enumerate(after["dropped"].to_pylist()):
            if reason is None:
                continue
            self.dropped[reason] += 1
            if len(shown := self.samples.setdefault(reason, [])) < SAMPLES:
                place = f"{file}, record {(before['order'][row].as_py() or 0) % 2**32 + 1}"
                shown.append([before["url"][row].as_py() or place, excerpt(before, row) or place])

    def merge(self, other: StageCounts) -> None:
        """Adds the counts of other rows. Of the samples stay those whose URL has the smallest checksum: any mixture of the shards."""
        for name in ("entered", "kept", "words", "images", "html_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dropped += other.dropped
        self.items += other.items
        for reason, shown in other.samples.items():
            both = [*self.samples.get(reason, []), *shown]
            self.samples[reason] = sorted(both, key=lambda sample: (zlib.crc32(sample[0].encode()), sample))[:SAMPLES]

    def check(self) -> None:
        """Raises AssertionError if a row is in neither the kept nor the dropped ones."""
        left = self.kept + self.dropped.total()
        assert self.entered == left, f"{self.stage}: {self.entered} rows entered, {left} are accounted for"


def _sum(table: pa.Table, name: str) -> int:
    return pc.sum(table[name]).as_py() or 0


def excerpt(table: pa.Table, row: int) -> str:
    """The beginning of a page or document, in one line."""
    names = table.column_names
    if "text_list" in names:
        text = text_of(table["text_list"][row].as_py() or ())
    else:
        html = table["html"][row].as_py() if "html" in names else None
        text = (html[: 4 * EXCERPT].decode("utf-8", "replace") if isinstance(html, bytes) else (html or "")[: 4 * EXCERPT]) or ""
    return " ".join(text.split())[:EXCERPT]


def to_json(stages: Iterable[StageCounts]) -> list[dict[str, Any]]:
    """Counts as JSON; equal counts are equal bytes."""
    return [
        asdict(stage) | {name: dict(sorted(getattr(stage, name).items())) for name in ("dropped", "items", "samples")} for stage in stages
    ]


def from_json(stages: Any) -> list[StageCounts]:
    """The inverse of `to_json`. Raises BadInput for something else."""
    try:
        return [StageCounts(**(one | {"dropped": Counter(one["dropped"]), "items": Counter(one["items"])})) for one in stages]
    except (TypeError, KeyError, ValueError) as error:
        raise BadInput(f"These are no counts of stages ({error}).", "Curate again into another folder.") from error


def merged(shards: Iterable[list[StageCounts]]) -> list[StageCounts]:
    """The stages of a pass over all its shards."""
    total: list[StageCounts] = []
    for shard in shards:
        for place, stage in enumerate(shard):
            if place == len(total):
                total.append(StageCounts(stage.stage))
            total[place].merge(stage)
    for stage in total:
        stage.check()
    return total
