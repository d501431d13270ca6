"""Corpora as shards of about equal text, and which shards each training file holds (ConceptOfSPT/utils of the official repository).

The sample code calls the small corpus the convoy and the large one the escorts. Documents stay whole; a pass over a corpus is a permutation of its
shards, so none comes again before all have come.
"""

from __future__ import annotations

import heapq
import math
import random

import numpy as np

from headstart.core.errors import UsageError

SAMPLE_SHARDS = 5
"""Of each corpus in a training file, in the official sample."""
SAMPLE_BYTES = 100_000
"""Text of a shard there."""
SMALLEST_BYTES = 1000
"""Of a shard here."""


def number_of_shards(text_bytes: int, shard_bytes: int) -> int:
    """Of a corpus of so many bytes: to the nearest, at least 1."""
    return max(1, round(text_bytes / shard_bytes))


def shards_of(documents: np.ndarray, sentences: np.ndarray, count: int) -> list[np.ndarray]:
    """Documents cut into shards of about as many sentences each: the longest first, each to the shard with fewest (the first of equal ones).

    Args:
        documents: int64, their numbers; sentences: int64, how many each has.
        count: of shards.

    Returns:
        the documents of each shard, int64, ascending; fewer shards where there are fewer documents.
    """
    count = min(count, len(documents))
    smallest = [(0, shard) for shard in range(count)]
    members: list[list[int]] = [[] for _ in range(count)]
    for place in np.argsort(-sentences, kind="stable").tolist():
        held, shard = smallest[0]
        members[shard].append(int(documents[place]))
        heapq.heapreplace(smallest, (held + int(sentences[place]), shard))
    return [np.sort(np.array(found, np.int64)) for found in members]


def compose(small: int, large: int, small_shards: int, large_shards: int, files: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """The shards of each training file: of the small corpus, of the large one. One generator draws all orders of the first, then those of the second.

    Where the number of shards is no multiple of what a file takes, the official code comes out too short and leaves the last files without text of
    the small corpus; here passes are added until all are full.

    Args:
        small, large: how many shards there are; small_shards, large_shards: how many of them a file holds.
    """
    rng = random.Random(seed)

    def order(shards: int, of_file: int) -> list[int]:
        passes = max(files // math.ceil(shards / of_file) + 1, math.ceil(files * of_file / shards))
        found: list[int] = []
        for _ in range(passes):
            found += rng.sample(range(shards), shards)
        return found[: files * of_file]

    first, second = order(small, small_shards), order(large, large_shards)
    return [
        (first[i * small_shards : (i + 1) * small_shards], second[i * large_shards : (i + 1) * large_shards]) for i in range(files)
    ]


def shards_of_a_file(small: int, large: int, small_shards: int | None, large_shards: int | None) -> tuple[int, int]:
    """How many shards of either corpus a training file holds.

    Raises:
        UsageError: more than there are.
    """
    usual = min(SAMPLE_SHARDS, small, large)
    first = usual if small_shards is None else small_shards
    second = first if large_shards is None else large_shards
    for which, wanted, there in (("small", first, small), ("large", second, large)):
        if wanted > there:
            what = f"--method.{which}-shards is {wanted}, but the {which} corpus makes {there}."
            raise UsageError(what, f"Give --method.{which}-shards {there} or less, or a smaller --method.shard-bytes.")
    return first, second
