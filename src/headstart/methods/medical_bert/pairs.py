"""Pairs of segments as BERT was trained on them (create_pretraining_data.py of NVIDIA/DeepLearningExamples): does the second follow the first?

Sentences of a document are collected until a target length is reached and cut at a random one into A and B; half of the time, and always where there
is one sentence, B comes from another document of the pool. The draws come in the official order, so the same generator gives the same pairs. Segments
are ranges of the store's token array: no token is copied before a row is written.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

SHORTEST = 2
"""Tokens of the shortest target."""
TRIES = 10
"""Draws of another document."""


class Pair(NamedTuple):
    """Two ranges of the token array, and where they come from. Without a second segment `second_start` and `second_stop` are equal."""

    first_start: int
    first_stop: int
    second_start: int
    second_stop: int
    is_random: bool
    document: int
    """Place in the pool of the document that the first segment is of."""
    other: int
    """Of the one that the second segment is of."""


def make_pairs(documents: Sequence[Sequence[int]], length: int, rng: random.Random, short_share: float, next_sentence: bool = True) -> Iterator[Pair]:
    """The pairs of every document of a pool, in order.

    Args:
        documents: of each the bounds of its sentences in the token array, ascending: one more than it has sentences.
        length: tokens of a row, three of them special.
        short_share: share of documents whose pairs aim at a random shorter length.
        next_sentence: draw B from another document half of the time; otherwise B always follows A, and a lone sentence has none.
    """
    for number in range(len(documents)):
        yield from _of_document(documents, number, length - 3, rng, short_share, next_sentence)


def _of_document(
    documents: Sequence[Sequence[int]], number: int, most: int, rng: random.Random, short_share: float, next_sentence: bool
) -> Iterator[Pair]:
    bounds = documents[number]
    last = len(bounds) - 2
    target = rng.randint(SHORTEST, most) if rng.random() < short_share else most
    first = i = 0  # the chunk is the sentences first..i
    while i <= last:
        if i < last and bounds[i + 1] - bounds[first] < target:
            i += 1
            continue
        in_chunk = i + 1 - first
        cut = first + (rng.randint(1, in_chunk - 1) if in_chunk >= 2 else 1)  # A ends before this sentence
        a, b, other, is_random = (bounds[first], bounds[cut]), (bounds[cut], bounds[i + 1]), number, False
        if next_sentence and (in_chunk == 1 or rng.random() < 0.5):
            other = _another(len(documents), number, rng)
            is_random = other != number  # the official code: a document next to itself counts as followed
            b = _segment(documents[other], target - (a[1] - a[0]), rng)
            i = cut - 1  # the sentences behind A go into the next chunk
        yield Pair(*_shortened(a, b, most, rng), is_random, number, other)
        i += 1
        first = i


def _another(count: int, number: int, rng: random.Random) -> int:
    drawn = number
    for _ in range(TRIES):
        drawn = rng.randint(0, count - 1)
        if drawn != number:
            break
    return drawn


def _segment(bounds: Sequence[int], wanted: int, rng: random.Random) -> tuple[int, int]:
    """Sentences from a random one on, until there are as many tokens as wanted or the document ends; at least one."""
    start = stop = rng.randint(0, len(bounds) - 2)
    while stop < len(bounds) - 1:
        stop += 1
        if bounds[stop] - bounds[start] >= wanted:
            break
    return bounds[start], bounds[stop]


def _shortened(a: tuple[int, int], b: tuple[int, int], most: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Both within `most` tokens: of the longer one (B of equal ones) a token goes, at the front or the back by a coin, until they fit."""
    a_start, a_stop, b_start, b_stop = *a, *b
    while (a_stop - a_start) + (b_stop - b_start) > most:
        at_front = rng.random() < 0.5
        if a_stop - a_start > b_stop - b_start:
            a_start, a_stop = (a_start + 1, a_stop) if at_front else (a_start, a_stop - 1)
        else:
            b_start, b_stop = (b_start + 1, b_stop) if at_front else (b_start, b_stop - 1)
    return a_start, a_stop, b_start, b_stop
