"""Windows of a stream of text: documents joined, each followed by one end of text, cut where a window is full.

Window i of length L holds the tokens i L .. i L + L: the first L are inputs, the last L what follows each. So every token but the very first is a
target once, and no position is padding: 100 % of a batch is text. A last window that is shorter is left out of training, where every row is full, and
kept, padded, where text is measured.

The rows of `rows.py` one token longer, so neighbouring windows share a token on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import locked
from headstart.core.machine import writing
from headstart.core.progress import Reporter
from headstart.data.text.rows import BLOCK_TOKENS, MAX_LENGTH, Rows, RowsWriter, Split, rows_folder
from headstart.data.text.store import TextStore


class Windows:
    """Opened windows.

    Attributes:
        length: inputs of a window.
        n_tokens, n_targets: targets of all windows.
        n_documents: documents in them.
        report: as of `Rows`.
    """

    def __init__(self, rows: Rows) -> None:
        self.rows, self.length = rows, rows.length - 1
        self.n_tokens = self.n_targets = rows.n_targets
        self.n_documents, self.report = rows.n_documents, rows.report

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """`input_ids` and `next_ids`, the token after each, int64 [batch, length]; `attention_mask` bool only if one of them is padded."""
        batch = self.rows.batch(rows)
        ids = batch["input_ids"]
        found = {"input_ids": ids[:, :-1], "next_ids": ids[:, 1:]}
        if "attention_mask" in batch:
            found["attention_mask"] = batch["attention_mask"][:, 1:]  # where there is a target
        return found


def windows(store: TextStore, length: int, split: Split, end: Sequence[int], block: int = BLOCK_TOKENS) -> Windows:
    """The windows of the documents of `split`. Written once, opened after that.

    Args:
        length: inputs of a window, in tokens.
        end: the end of text; none: the tokenizer has no such token.
        block: tokens that are cut at a time; the windows do not depend on it.

    Raises:
        UsageError: `length` is no length. BadInput: there is no end of text.
    """
    if not 1 <= length < MAX_LENGTH:
        raise UsageError(f"windows of {length:,} tokens.", f"Give 1 to {MAX_LENGTH - 1:,}.")
    if len(end) != 1:
        raise BadInput("the tokenizer has no end-of-text token to put between documents.", "Give --method.packing documents.", file=store.folder)
    key = {"builder": "windows", "end": list(end)}
    folder = rows_folder(store, key, split, length + 1)
    with locked(folder.with_suffix(".lock"), "makes these windows"):
        if not (folder / "rows.json").exists():
            with writing(folder), RowsWriter(folder, store, key, split, length + 1) as writer:
                left_over = _write(writer, store, length, split, end[0], block)
                writer.report |= {"cropped_share": left_over / max(1, writer.n_tokens + left_over)}
                writer.n_documents = len(store.documents(split))
    return Windows(Rows(folder, store.vocab_size))


def _write(writer: RowsWriter, store: TextStore, length: int, split: Split, end: int, size: int) -> int:
    """Writes the windows; returns how many tokens are in none."""
    rest = np.zeros(0, np.int64)
    for block in _stream(store, split, end, size):
        stream = np.concatenate([rest, block])
        count = max(0, (len(stream) - 1) // length)
        if count:
            ids = np.lib.stride_tricks.sliding_window_view(stream, length + 1)[: count * length : length]
            _append(writer, ids)
        rest = stream[count * length :]  # begins with the last target of the last window
    if split == "train":
        return max(0, len(rest) - 1) if writer.n_rows else len(rest)
    if len(rest) > 1:
        padded = np.full((1, length + 1), store.special_ids.get("pad", 0), np.int64)
        padded[0, : len(rest)] = rest
        _append(writer, padded, len(rest))
    return 0


def _append(writer: RowsWriter, ids: np.ndarray, filled: int | None = None) -> None:
    lengths = np.full(len(ids), ids.shape[1] if filled is None else filled)
    writer.append(ids, lengths, lengths)


def _stream(store: TextStore, split: Split, end: int, size: int) -> Iterator[np.ndarray]:
    """The tokens of the documents with the end of text after each, int64, in blocks of whole documents."""
    documents = store.documents(split)
    lengths = store.document_offsets[documents + 1] - store.document_offsets[documents] + 1
    starts = np.arange(0, int(lengths.sum()), size)
    firsts = [*dict.fromkeys(np.searchsorted(np.cumsum(lengths), starts).tolist()), len(documents)]
    with Reporter("cut windows", len(documents), "documents") as reporter:
        for first, last in pairwise(firsts):
            pieces: list[np.ndarray] = []
            for number in documents[first:last]:
                pieces += [store.document(int(number)).astype(np.int64), np.array([end])]
            yield np.concatenate(pieces)
            reporter.advance(last - first)
