"""Held-out documents, and training documents that nearly repeat one of them.

- A document is held out if the hash of its text falls below the share: independent of file order, stable when files are added, and exact copies
  fall on one side.
- Near-duplicates are found by spans of 8 tokens, hashed over the memory-mapped tokens in blocks: time is linear in the corpus, memory is set by the
  held-out part. A training document is dropped when at least `near_duplicate_share` (default half) of its spans occur in held-out documents (it is
  contained in them), or that share of one held-out document's spans occurs in it (it contains one). Documents shorter than 8 tokens must be equal.
"""

from __future__ import annotations

import numpy as np

from headstart.data.text.spans import SpanTable, spans_of_documents

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
    for base, documents, spans in spans_of_documents(tokens, offsets, ~held_out):
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
        blocks = [(spans, base + documents) for base, documents, spans in spans_of_documents(tokens, offsets, held_out)]
        spans = np.concatenate([block[0] for block in blocks])
        owners = np.concatenate([block[1] for block in blocks])
        order = np.lexsort((owners, spans))
        spans, owners = spans[order], owners[order]
        distinct = np.append(True, (np.diff(spans) != 0) | (np.diff(owners) != 0))
        self.owners = owners[distinct]
        self.unique, self.first, self.n_owners = np.unique(spans[distinct], return_index=True, return_counts=True)
        telling = np.repeat(self.n_owners <= COMMON, self.n_owners)
        self.spans_of_document = np.bincount(self.owners[telling], minlength=len(held_out))
        self.find = SpanTable(self.unique).find

    def owners_of(self, document: np.ndarray, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (document, owner) for pairs (document, position in `unique`); boilerplate left out."""
        keep = self.n_owners[position] <= COMMON
        document, position = document[keep], position[keep]
        copies = self.n_owners[position]
        within = np.arange(copies.sum()) - np.repeat(np.cumsum(copies) - copies, copies)
        return np.repeat(document, copies), self.owners[np.repeat(self.first[position], copies) + within]
