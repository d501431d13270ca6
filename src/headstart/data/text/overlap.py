"""Which texts stand in what a store trains on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from headstart.data.text.quality import Looker
from headstart.data.text.spans import BLOCK_TOKENS, SPAN, WantedTexts
from headstart.data.text.store import TextStore

LOOKED_AT = 1 << 23
"""Bytes of training text that `seen_windows` looks at, evenly over the documents: some seconds."""


def training_shares(store: TextStore, texts: Sequence[str]) -> np.ndarray:
    """float64 [texts]: the share of each text's spans of 8 tokens that stand in the training documents. 1: all of it, but for the cuts; a text of
    fewer tokens must be a whole line there.
    """
    encodings = store.tokenizer.encode_batch(list(texts), add_special_tokens=False)
    wanted = WantedTexts([np.asarray(encoding.ids, np.int64) for encoding in encodings] or [np.zeros(0, np.int64)])
    trained = ~(store.held_out | store.dropped)
    first, offsets, lines = 0, store.document_offsets, store.sentence_offsets
    while first < len(trained):
        last = max(int(np.searchsorted(offsets, offsets[first] + BLOCK_TOKENS, side="right")) - 1, first + 1)
        start, stop = offsets[first], offsets[last]
        tokens = np.asarray(store.tokens[start:stop])
        document = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        kept = trained[first:last][document]
        wanted.look_into(tokens[kept], document[kept])
        bounds = lines[np.searchsorted(lines, start) : np.searchsorted(lines, stop) + 1]  # a line never crosses a document
        length = np.diff(bounds)
        short = np.repeat(length < SPAN, length) & kept
        wanted.look_into(tokens[short], np.repeat(np.arange(len(length)), length)[short])
        first = last
    return wanted.shares()[: len(texts)]


def seen_windows(held_out: TextStore, trained: TextStore) -> float:
    """The share of the 13-word windows of held-out text that stand in training text, of which up to 8 MB, evenly drawn, are looked at."""
    looker = Looker()
    wanted, seen = (np.unique(looker.windows(list(_texts(store, split)))[1]) for store, split in ((held_out, "held_out"), (trained, "train")))
    return float(np.isin(wanted, seen).mean()) if len(wanted) else 0.0


def seen_documents(held_out: TextStore, trained: TextStore) -> np.ndarray:
    """bool [held-out documents]: those that the other store, of the same tokenizer, trains on token for token. Only documents of a length that is
    asked for are read."""
    wanted = held_out.documents("held_out")
    keys = {_key(held_out, int(number)) for number in wanted}
    lengths = np.unique(np.diff(held_out.document_offsets)[wanted])
    candidates = trained.documents("train")
    candidates = candidates[np.isin(np.diff(trained.document_offsets)[candidates], lengths)]
    keys &= {_key(trained, int(number)) for number in candidates}
    return np.array([_key(held_out, int(number)) in keys for number in wanted], bool)


def same_documents(store: TextStore, other: TextStore) -> float:
    """The share of the held-out documents of one of two stores of the same tokenizer that the other holds out too, token for token; the larger of the
    two shares. A document is held out by its hash, so of two texts it is the share of the one that stands in the other, without either being
    read."""
    keys, of_other = ([_key(one, int(number)) for number in one.documents("held_out")] for one in (store, other))
    return max(_share(keys, set(of_other)), _share(of_other, set(keys)))


def _share(keys: Sequence[bytes], others: AbstractSet[bytes]) -> float:
    return sum(key in others for key in keys) / len(keys) if keys else 0.0


def _key(store: TextStore, number: int) -> bytes:
    return hashlib.blake2b(store.document(number).astype(np.uint32).tobytes(), digest_size=16).digest()


def _texts(store: TextStore, split: str) -> Iterator[str]:
    total, size = int(store.manifest["counts"].get("text_bytes", 0)), 0
    for number in store.documents(split)[:: max(1, total // LOOKED_AT)]:
        text = store.decode(store.document(int(number)))
        size += len(text)
        yield text
        if size > LOOKED_AT:
            return
