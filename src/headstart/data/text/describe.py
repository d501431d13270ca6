"""A look at prepared text: what `headstart peek STORE` prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from headstart.core.errors import UsageError
from headstart.core.files import inside
from headstart.data.permute import draw
from headstart.data.text.rows import Rows
from headstart.data.text.store import TextStore, open_text_store


@dataclass
class PeekedDocument:
    """A document drawn from a store."""

    index: int
    file: str
    split: Literal["train", "held_out", "dropped"]
    sentences: list[str]
    """Decoded one by one, so that sentence boundaries can be seen."""
    pieces: list[str]
    """The first tokens, as they stand in the vocabulary."""


@dataclass
class PeekedRow:
    """A training row drawn from the rows made of a store."""

    rows: str
    """Folder of the rows."""
    index: int
    text: str
    """Decoded, special tokens included, without the padding."""
    length: int
    second: int | None
    """Where the second segment begins."""


@dataclass
class Peek:
    """What `peek` returns: lines about the whole store, then samples."""

    kind: ClassVar[str] = "text"
    report: list[str]
    documents: list[PeekedDocument]
    rows: list[PeekedRow]


def peek(store: TextStore | str | Path, n: int = 3, seed: int = 0, max_pieces: int = 40) -> Peek:
    """Draw `n` documents, and `n` rows of every set of rows made of the store; the same seed draws the same.

    Raises BadInput if the store cannot be opened, UsageError if n is below 1.
    """
    if n < 1:
        raise UsageError(f"{n} records to look at.", "Give at least 1.")
    store = store if isinstance(store, TextStore) else open_text_store(store)
    documents = [_document(store, int(index), max_pieces) for index in draw(len(store.held_out), n, seed)]
    rows = []
    for folder in sorted(path.parent for path in (store.folder / "rows").glob("*/rows.json")):
        opened = Rows(inside(store.folder, f"rows/{folder.name}"), store.vocab_size)
        rows += [_row(store, opened, int(index)) for index in draw(len(opened), n, seed)]
    return Peek(store.report(), documents, rows)


def _document(store: TextStore, index: int, max_pieces: int) -> PeekedDocument:
    file = int(np.searchsorted(store.file_offsets, index, side="right")) - 1
    split: Any = "held_out" if store.held_out[index] else "dropped" if store.dropped[index] else "train"
    pieces = [store.tokenizer.id_to_token(int(token)) or "" for token in store.document(index)[:max_pieces]]
    return PeekedDocument(index, store.file_names[file], split, [store.decode(ids) for ids in store.sentences(index)], pieces)


def _row(store: TextStore, rows: Rows, index: int) -> PeekedRow:
    length, second = int(rows.lengths[index]), int(rows.second[index])
    return PeekedRow(rows.folder.name, index, store.decode(rows.ids[index, :length]), length, second if second < length else None)
