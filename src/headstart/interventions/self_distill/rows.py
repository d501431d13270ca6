"""Training rows that know their number, so that what was computed once of each is found again in a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

ROW = "row"
"""Of a batch: int64 [batch], the number of each row over all stores."""


class NumberedPart:
    """The rows of one store, as they are, each with its number beside it."""

    def __init__(self, part: Any, first: int) -> None:
        self.part, self.first = part, first

    def __len__(self) -> int:
        return len(self.part)

    def __getattr__(self, name: str) -> Any:
        if name == "part":  # not there yet
            raise AttributeError(name)
        return getattr(self.part, name)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {**self.part.batch(rows), ROW: np.asarray(rows, np.int64) + self.first}


class NumberedRows:
    """The rows of all stores, one after another."""

    def __init__(self, parts: Sequence[NumberedPart]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Every row once, `size` at a time."""
        for part in self.parts:
            for start in range(0, len(part), size):
                yield part.batch(np.arange(start, min(start + size, len(part))))


def numbered(parts: Sequence[Any]) -> NumberedRows:
    """The same rows with numbers that run on over the parts."""
    firsts = np.cumsum([0, *map(len, parts)])
    return NumberedRows([NumberedPart(part, int(first)) for part, first in zip(parts, firsts, strict=False)])
