"""Training examples of ELECTRA: running text, usually in two segments, as the official builder makes them (build_pretraining_dataset.py).

- Sentences are collected until their length reaches a target, then emitted as `[CLS] A [SEP] B [SEP]`; one example in ten has A only, one in twenty
  is followed by an example of random length. There is no next-sentence task.
- The collected sentences are ranges of the store's token array, so the work per sentence is an addition, and an example copies its tokens once.
- One generator of coins per input file, seeded by (seed, file name), target reset at each file start: any number of workers writes the same rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

SINGLE_SEGMENT = 0.1
RANDOM_LENGTH = 0.05
SHORTEST = 5
_NO_LIMIT = 100_000

Range = tuple[int, int]
"""Start and stop in the store's token array."""


class Example(NamedTuple):
    """The token ranges of the two segments, in order; `second` is empty for a single segment."""

    first: list[Range]
    second: list[Range]


class ExampleBuilder:
    """The official builder, coin for coin.

    Args:
        max_length: M, tokens of a row, special tokens included.
        uniform: draws from [0, 1); integer: draws from low..high, both included.
    """

    def __init__(self, max_length: int, uniform: Callable[[], float], integer: Callable[[int, int], int]) -> None:
        self.max_length = max_length
        self.target_length = max_length
        self.uniform = uniform
        self.integer = integer
        self._sentences: list[Range] = []
        self._length = 0

    def add_sentence(self, start: int, stop: int) -> Example | None:
        """Takes tokens start..stop; gives an example when the target is reached. Special tokens do not count towards it."""
        self._sentences.append((start, stop))
        self._length += stop - start
        return self._emit() if self._length >= self.target_length else None

    def end_document(self) -> Example | None:
        """Gives what is there, if anything; the target goes on into the next document."""
        return self._emit() if self._length else None

    def _emit(self) -> Example:
        target = _NO_LIMIT if self.uniform() < SINGLE_SEGMENT else (self.target_length - 3) // 2
        first: list[Range] = []
        second: list[Range] = []
        in_first = in_second = 0
        for start, stop in self._sentences:
            n = stop - start
            # Official order of the conditions: the coin is thrown only when the first two fail.
            if not in_first or in_first + n < target or (not in_second and in_first < target and self.uniform() < 0.5):
                first.append((start, stop))
                in_first += n
            else:
                second.append((start, stop))
                in_second += n
        first, in_first = _cut(first, self.max_length - 2)
        second, _ = _cut(second, max(0, self.max_length - in_first - 3))
        self._sentences = []
        self._length = 0
        self.target_length = self.integer(SHORTEST, self.max_length) if self.uniform() < RANDOM_LENGTH else self.max_length
        return Example(first, second)


def build_examples(
    documents: Iterable[np.ndarray], max_length: int, seed: int, file_name: str, blank_lines_separate_documents: bool = True
) -> Iterator[Example]:
    """The examples of one input file.

    Args:
        documents: for each document its sentence boundaries in the token array, int64 [sentences + 1].
    """
    coins = random.Random(f"{seed}:{file_name}")
    builder = ExampleBuilder(max_length, coins.random, coins.randint)
    for boundaries in documents:
        for start, stop in pairwise(boundaries.tolist()):
            if start < stop and (example := builder.add_sentence(start, stop)) is not None:
                yield example
        if blank_lines_separate_documents and (example := builder.end_document()) is not None:
            yield example
    if (example := builder.end_document()) is not None:
        yield example


def assemble(example: Example, tokens: np.ndarray, cls_id: int, sep_id: int) -> tuple[np.ndarray, int]:
    """(ids `[CLS] A [SEP]` and `B [SEP]` if there is a B, where B starts; the length of the row if there is none)."""
    first = [tokens[start:stop] for start, stop in _merge(example.first)]
    second = [tokens[start:stop] for start, stop in _merge(example.second)]
    end = np.array([sep_id], dtype=tokens.dtype)
    parts = [np.array([cls_id], dtype=tokens.dtype), *first, end]
    if second:
        parts += [*second, end]
    return np.concatenate(parts), 2 + sum(map(len, first))


def _cut(ranges: list[Range], length: int) -> tuple[list[Range], int]:
    """The first `length` tokens, and their number."""
    kept: list[Range] = []
    left = length
    for start, stop in ranges:
        if left <= 0:
            break
        stop = min(stop, start + left)
        kept.append((start, stop))
        left -= stop - start
    return kept, length - max(0, left) if kept else 0


def _merge(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], stop)
        else:
            merged.append((start, stop))
    return merged
