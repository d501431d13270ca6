"""Spans of 8 tokens, hashed: what near-duplicates and leaks are found by. Time is linear in the corpus, memory is set by what is looked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from headstart.data.permute import mix

SPAN = 8
"""Tokens in a span. Lee et al. 2021 (arXiv 2107.06499) deduplicate training text by exact spans too (of 50 tokens); shorter ones catch edited
copies."""

BLOCK_TOKENS = 2**22


class SpanTable:
    """Where span hashes stand among known ones.

    Args:
        unique: uint64 [n], sorted, each once; at least one.
    """

    def __init__(self, unique: np.ndarray) -> None:
        self.unique = unique
        # Most spans of a corpus are not among them; a look-up in a table of 16 bits a span settles that, faster than a binary search.
        bits = max(int(np.ceil(np.log2(len(unique)))) + 4, 10)
        self.shift = np.uint64(64 - bits)
        self.table = np.zeros(2**bits, bool)
        self.table[unique >> self.shift] = True

    def find(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the spans that occur here, and their positions in `unique`."""
        maybe = np.flatnonzero(self.table[spans >> self.shift])
        position = np.minimum(np.searchsorted(self.unique, spans[maybe]), len(self.unique) - 1)
        hit = self.unique[position] == spans[maybe]
        return maybe[hit], position[hit]


class WantedTexts:
    """How much of each of many texts stands in a corpus that is read once, as a stream.

    A text of at least a span is looked for by its spans, anywhere; a shorter one must stand there alone, as a whole document or line.

    Args:
        texts: integers [tokens] of each.
        span: tokens of a span.
    """

    def __init__(self, texts: Sequence[np.ndarray], span: int = SPAN) -> None:
        self.n_texts, self.span = len(texts), span
        self.owner, spans = hash_spans(np.concatenate(texts), np.repeat(np.arange(len(texts)), [len(text) for text in texts]), span)
        unique, self.position = np.unique(spans, return_inverse=True)
        self.seen = np.zeros(len(unique), bool)
        self.table = SpanTable(unique) if len(unique) else None

    def look_into(self, tokens: np.ndarray, document: np.ndarray) -> None:
        """Takes a part of the corpus: integers [n], and the number of the document of each, ascending."""
        if self.table is not None and len(tokens):
            self.seen[self.table.find(hash_spans(tokens, document, self.span)[1])[1]] = True

    def shares(self) -> np.ndarray:
        """float64 [texts]: the share of each text's spans that were seen; 0 for an empty text."""
        total = np.bincount(self.owner, minlength=self.n_texts)
        seen = np.bincount(self.owner, weights=self.seen[self.position], minlength=self.n_texts)
        return seen / np.maximum(total, 1)


def spans_of_documents(tokens: np.ndarray, offsets: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of whole documents: (number of the first, document of each span counted from it, span hashes uint64), for the documents among
    `wanted`."""
    first = 0
    while first < len(wanted):
        last = max(int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1, first + 1)
        document = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        keep = wanted[first:last][document]
        if keep.any():
            yield first, *hash_spans(np.asarray(tokens[offsets[first] : offsets[last]])[keep], document[keep])
        first = last


def hash_spans(tokens: np.ndarray, document: np.ndarray, span: int = SPAN) -> tuple[np.ndarray, np.ndarray]:
    """Document and hash of every span of `span` tokens. A document shorter than that has one span: all of it."""
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    lengths = np.diff(starts, append=len(document))
    remaining = np.repeat(starts + lengths, lengths) - np.arange(len(document))  # tokens from here to the document's end
    mixed = mix(tokens.astype(np.uint64) + np.uint64(1))
    hashes = np.zeros(len(tokens), np.uint64)
    for place in range(min(span, len(tokens))):
        factor = np.uint64(pow(0x9E3779B97F4A7C15, place + 1, 2**64))
        inside = remaining[: len(mixed) - place] > place
        hashes[: len(inside)] += np.where(inside, mixed[place:] * factor, np.uint64(0))
    is_span = remaining >= span
    is_span[starts] = True
    return document[is_span], mix(hashes[is_span])

