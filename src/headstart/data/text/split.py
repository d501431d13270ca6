"""Held-out documents, and training documents that nearly repeat one of them.

- A document is held out if the hash of its text falls below the share: independent of file order, stable when files are added, and exact copies
  fall on one side.
- Near-duplicates are found by spans of 8 tokens, hashed over the memory-mapped tokens in blocks: time is linear in the corpus, memory is set by the
  held-out part. A training document is dropped when at least `near_duplicate_share` (default half) of its spans occur in held-out documents (it is
  contained in them), or that share of one held-out document's spans occurs in it (it contains one). Documents shorter than 8 tokens must be equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from headstart.data.permute import mix

SPAN = 8
"""Tokens in a span. Lee et al. 2021 (arXiv 2107.06499) deduplicate training text by exact spans too (of 50 tokens); shorter ones catch edited
copies."""

BLOCK_TOKENS = 2**22
COMMON = 16
"""A span in more held-out documents than this is boilerplate; it tells none of them apart and is left out of the second direction."""


def held_out_documents(hashes: np.ndarray, share: float) -> np.ndarray:
    """bool [n_documents]: the documents with the smallest content hashes. At least one is held out and one is not, if there are two different
    documents.

    Args:
        hashes: uint64 [n_documents], content hashes.
        share: expected share; 0 holds out nothing.
    """
    if share == 0 or len(hashes) == 0:
        return np.zeros(len(hashes), bool)
    held_out = hashes < np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    if not held_out.any():
        held_out = hashes == hashes.min()
    if held_out.all():
        held_out = hashes != hashes.max()
    return held_out


def near_duplicates(tokens: np.ndarray, offsets: np.ndarray, held_out: np.ndarray, share: float) -> np.ndarray:
    """bool [n_documents]: training documents that nearly repeat a held-out one, exact copies included.

    Args:
        tokens: [n_tokens], may be a memory map.
        offsets: int64 [n_documents + 1].
        held_out: bool [n_documents].
        share: above 0, at most 1, see the module's head.
    """
    dropped = np.zeros(len(held_out), bool)
    if not held_out.any() or held_out.all():
        return dropped
    index = _HeldOut(tokens, offsets, held_out)
    for base, documents, spans in _spans(tokens, offsets, ~held_out):
        at, position = index.find(spans)
        if not len(at):
            continue
        # Contained in held-out documents: the share of its spans that are hits.
        total = np.bincount(documents)
        hits = np.bincount(documents[at], minlength=len(total))
        dropped[base : base + len(total)] |= (hits > 0) & (hits >= share * total)
        # Contains a held-out document: distinct hits for each pair of a document and an owner of the span.
        pairs = np.unique(documents[at] * len(index.unique) + position)
        document, position = pairs // len(index.unique), pairs % len(index.unique)
        document, owner = index.owners_of(document, position)
        pairs, found = np.unique(document * len(held_out) + owner, return_counts=True)
        contains = found >= share * index.spans_of_document[pairs % len(held_out)]
        dropped[base + pairs[contains] // len(held_out)] = True
    return dropped


class _HeldOut:
    """The distinct spans of the held-out documents, sorted, and which documents own each."""

    def __init__(self, tokens: np.ndarray, offsets: np.ndarray, held_out: np.ndarray) -> None:
        blocks = [(spans, base + documents) for base, documents, spans in _spans(tokens, offsets, held_out)]
        spans = np.concatenate([block[0] for block in blocks])
        owners = np.concatenate([block[1] for block in blocks])
        order = np.lexsort((owners, spans))
        spans, owners = spans[order], owners[order]
        distinct = np.append(True, (np.diff(spans) != 0) | (np.diff(owners) != 0))
        self.owners = owners[distinct]
        self.unique, self.first, self.n_owners = np.unique(spans[distinct], return_index=True, return_counts=True)
        telling = np.repeat(self.n_owners <= COMMON, self.n_owners)
        self.spans_of_document = np.bincount(self.owners[telling], minlength=len(held_out))
        # Most spans are in no held-out document; a look-up in a table of 16 bits a span settles that, faster than a binary search.
        bits = max(int(np.ceil(np.log2(len(self.unique)))) + 4, 10)
        self.shift = np.uint64(64 - bits)
        self.table = np.zeros(2**bits, bool)
        self.table[self.unique >> self.shift] = True

    def find(self, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the spans that occur here, and their positions in `unique`."""
        maybe = np.flatnonzero(self.table[spans >> self.shift])
        position = np.minimum(np.searchsorted(self.unique, spans[maybe]), len(self.unique) - 1)
        hit = self.unique[position] == spans[maybe]
        return maybe[hit], position[hit]

    def owners_of(self, document: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (document, owner) for pairs (document, position in `unique`); boilerplate left out."""
        keep = self.n_owners[position] <= COMMON
        document, position = document[keep], position[keep]
        copies = self.n_owners[position]
        within = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
        return np.repeat(document, copies), self.owners[np.repeat(self.first[position], copies) + within]


def _spans(tokens: np.ndarray, offsets: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of whole documents: (number of the first, document of each span counted from it, span hashes uint64), for the documents among
    `wanted`."""
    first = 0
    while first < len(wanted):
        last = max(int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1, first + 1)
        document = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        keep = wanted[first:last][document]
        if keep.any():
            yield first, *_hash_spans(np.asarray(tokens[offsets[first] : offsets[last]])[keep], document[keep])
        first = last


def _hash_spans(tokens: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Document and hash of every span of SPAN tokens. A document shorter than that has one span: all of it."""
    starts = np.flatnonzero(np.diff(document, prepend=-1))
    lengths = np.diff(starts, append=len(document))
    remaining = np.repeat(starts + lengths, lengths) - np.arange(len(document))  # tokens from here to the document's end
    mixed = mix(tokens.astype(np.uint64) + np.uint64(1))
    hashes = np.zeros(len(tokens), np.uint64)
    for place in range(min(SPAN, len(tokens))):
        factor = np.uint64(pow(0x9E3779B97F4A7C15, place + 1, 2**64))
        inside = remaining[: len(mixed) - place] > place
        hashes[: len(inside)] += np.where(inside, mixed[place:] * factor, np.uint64(0))
    is_span = remaining >= SPAN
    is_span[starts] = True
    return document[is_span], mix(hashes[is_span])

