"""Entities as the BLUE scripts of sy-wada/blue_benchmark_with_transformers (utils/) cut and score them; the usual score is that of `metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from headstart.tasks.data import TaggedData

LONGEST = 30
"""Words of a sentence there."""


def cut_sentence(tags: Sequence[str], longest: int = LONGEST) -> list[int]:
    """Lengths of the parts of a sentence: while it has more words than `longest`, it is cut after the last of them that is tagged O; where none is,
    after the first word."""
    lengths, rest = [], list(tags)
    while len(rest) > longest:
        outside = [i for i, tag in enumerate(rest[:longest]) if tag == "O"]
        lengths.append(outside[-1] + 1 if outside else 1)
        rest = rest[lengths[-1] :]
    return [*lengths, len(rest)]


def cut_sentences(data: TaggedData, longest: int) -> TaggedData:
    """Each part of `cut_sentence` as a sentence of its own."""
    words, tags = [], []
    for of_words, of_tags in zip(data.words, data.tags, strict=True):
        ends = [0, *accumulate(cut_sentence(of_tags, longest))]
        for start, stop in pairwise(ends):
            words.append(of_words[start:stop])
            tags.append(of_tags[start:stop])
    return TaggedData(words, tags, source=data.source)


def phrase_f1(predicted: Sequence[Sequence[str]], truth: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1, precision and recall of phrases over all sentences as one row of tags B, I and O (with or without "-TYPE"): a B begins a phrase, and every
    later I belongs to the latest one, also after O and in later sentences. A phrase is right where all its words are, and its type is."""
    found, gold = set(_phrases(predicted)), set(_phrases(truth))
    right = len(found & gold)
    precision, recall = right / max(1, len(found)), right / max(1, len(gold))
    return {"f1": 2 * right / max(1, len(found) + len(gold)), "precision": precision, "recall": recall}


def _phrases(sentences: Sequence[Sequence[str]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(type, numbers of its words) of each phrase. An I before any B begins one; the official script fails there."""
    kind, words = "", list[int]()
    for number, tag in enumerate(tag for sentence in sentences for tag in sentence):
        mark, _, name = tag.partition("-")
        if mark in ("B", "S") or (mark in ("I", "E") and not words):
            if words:
                yield kind, tuple(words)
            kind, words = name, [number]
        elif mark in ("I", "E"):
            words.append(number)
    if words:
        yield kind, tuple(words)
