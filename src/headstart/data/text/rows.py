"""Training rows of fixed length, made from a store once and memory-mapped: STORE/rows/KEY/.

    rows.json       key, split, length, counts and report; written last
    ids.npy         [n_rows, length], dtype of the store's tokens, filled up with the padding id
    lengths.npy     int32 [n_rows], tokens before the padding
    second.npy      int32 [n_rows], where the second segment begins; equal to the length where there is none
    NAME.npy        int32 [n_rows], what else a builder says of each row: its columns

A batch is a gather of rows: no tokenising, cutting or padding happens while a model trains.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import inside, locked, own_file, read_json, write_json
from headstart.core.machine import writing
from headstart.core.progress import Reporter
from headstart.data.arrays import map_array
from headstart.data.text.packing import best_fit
from headstart.data.text.store import TextStore

FORMAT_VERSION = 1
BLOCK_TOKENS = 2**21
MAX_LENGTH = 2**20
"""Tokens of the longest row that is built."""
REBUILD = "Delete this folder; it is made again from its store."

Split = Literal["train", "held_out"]


class Rows:
    """Opened rows.

    Attributes:
        ids: [n_rows, length].
        lengths: int32 [n_rows].
        second: int32 [n_rows].
        columns: name -> int32 [n_rows], of what else the builder says of each row.
        length: tokens of a row, padding included.
        n_tokens: tokens of all rows, padding not included.
        n_targets: tokens that a causal model predicts: of a row all but the first.
        n_documents: documents that the rows were made from; 0 if the builder did not say.
        report: figures for a person: "padding_share", "cropped_share" and what else the builder counted.
    """

    def __init__(self, folder: Path, vocab_size: int) -> None:
        self.folder, self.vocab_size = folder, vocab_size
        info = read_json(own_file(folder, "rows.json"))
        if not isinstance(info, dict) or info.get("format_version") != FORMAT_VERSION:
            raise BadInput("is of another format version.", REBUILD, file=folder / "rows.json")
        if not _is_sound(info):
            raise BadInput("lacks or spoils an entry.", REBUILD, file=folder / "rows.json")
        self.info: dict[str, Any] = info
        self.ids, self.lengths, self.second = (map_array(folder, name, REBUILD) for name in ("ids", "lengths", "second"))
        self.columns = {name: map_array(folder, name, REBUILD) for name in info.get("columns", [])}
        n_rows, self.length = info["n_rows"], info["length"]
        kinds_fit = self.ids.dtype in (np.uint16, np.uint32) and self.lengths.dtype == self.second.dtype == np.int32
        kinds_fit = kinds_fit and all(column.dtype == np.int32 for column in self.columns.values())
        shapes_fit = self.ids.shape == (n_rows, self.length) and self.lengths.shape == self.second.shape == (n_rows,)
        shapes_fit = shapes_fit and all(column.shape == (n_rows,) for column in self.columns.values())
        if not kinds_fit or not shapes_fit or (n_rows and not self._lengths_fit()):
            raise BadInput("arrays do not fit each other.", REBUILD, file=folder)
        self.n_tokens: int = info["n_tokens"]
        self.n_targets = self.n_tokens - n_rows
        self.n_documents: int = info["n_documents"]
        self.two_segments: bool = info["two_segments"]
        self.report: dict[str, Any] = info["report"]

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The rows with these numbers: `input_ids` int64 [batch, length]; `attention_mask` bool only if one of them is padded; `token_type_ids`
        int64 only if the rows have two segments; each column, int64 [batch].

        Raises BadInput for a token id beyond the vocabulary: on a GPU it would end the process without a word. Looking costs 1 us a batch of 64 x
        128, a pass over all rows at opening would cost minutes.
        """
        ids = self.ids.take(rows, axis=0)  # twice as fast as an index
        if ids.max(initial=0) >= self.vocab_size:
            raise BadInput(f"holds token ids beyond the vocabulary of {self.vocab_size}.", REBUILD, file=self.folder / "ids.npy")
        batch = {"input_ids": ids.astype(np.int64)}
        lengths = self.lengths[rows]
        if (lengths < self.length).any():
            batch["attention_mask"] = np.arange(self.length) < lengths[:, None]
        if self.two_segments:
            place = np.arange(self.length)
            batch["token_type_ids"] = ((place >= self.second[rows][:, None]) & (place < lengths[:, None])).astype(np.int64)
        return batch | {name: column[rows].astype(np.int64) for name, column in self.columns.items()}

    def _lengths_fit(self) -> bool:
        return bool(1 <= self.lengths.min() <= self.lengths.max() <= self.length and self.second.min() >= 0 and (self.second <= self.lengths).all())


def _is_sound(info: dict[str, Any]) -> bool:
    """Whether what is read of a rows.json has the types that it is read as."""
    counts = [info.get(name) for name in ("n_rows", "length", "n_tokens", "n_documents")]
    report, columns = info.get("report"), info.get("columns", [])
    return (
        isinstance(columns, list)
        and all(isinstance(name, str) and name.isidentifier() for name in columns)
        and all(isinstance(count, int) and count >= 0 for count in counts)
        and isinstance(info.get("two_segments"), bool)
        and isinstance(report, dict)
        and all(isinstance(value, int | float) for value in report.values())
    )


def packed_rows(
    store: TextStore,
    length: int,
    split: Split = "train",
    begin: Sequence[int] = (),
    end: Sequence[int] = (),
    wrap: Literal["chunk", "document"] = "chunk",
    pack: bool = True,
) -> Rows:
    """Whole documents, best-fit packed into rows of `length`; nothing is cropped. Written once, opened after that.

    Args:
        store, split: which documents.
        length: tokens of a row.
        begin, end: special ids around each document.
        wrap: a document longer than a row is cut. "chunk": each chunk gets `begin` and `end` (BERT: every row is [CLS] text [SEP]).
            "document": only the document does (causal LM: a row that ends in the middle of a document must not teach an end there).
        pack: several documents share a row; otherwise each has rows of its own.

    Raises UsageError if `length` leaves no room for text, or is larger than any row can be.
    """
    if length > MAX_LENGTH:
        raise UsageError(f"rows of {length:,} tokens.", f"Give at most {MAX_LENGTH:,}.")
    room = length - len(begin) - len(end)
    if room < 1:
        raise UsageError(f"rows of {length} tokens have no room for text beside {len(begin) + len(end)} special tokens.", "Give longer rows.")
    key = {"builder": "packed", "begin": list(begin), "end": list(end), "wrap": wrap} | ({} if pack else {"pack": False})
    folder = rows_folder(store, key, split, length)
    with locked(folder.with_suffix(".lock"), "makes these training rows"):
        if not (folder / "rows.json").exists():
            pieces = _Pieces(store, split, length, room if wrap == "chunk" else length, begin, end, wrap, pack)
            with writing(folder), RowsWriter(folder, store, key, split, length) as writer:
                for ids, lengths in pieces.rows():
                    writer.append(ids, lengths, lengths)
                writer.report |= {"cropped_share": 0.0, "cut_documents_share": pieces.cut_share}
                writer.n_documents = pieces.n_documents
    return Rows(folder, store.vocab_size)


def write_rows(
    store: TextStore,
    key: dict[str, Any],
    split: Split,
    length: int,
    rows: Iterable[tuple[Any, ...]],
    report: dict[str, Any] | None = None,
    columns: Sequence[str] = (),
) -> Rows:
    """Rows of any builder. Opened if they are there already: `rows` is then not consumed.

    Args:
        key: everything that decides the rows beside the store, `split` and `length`; JSON.
        rows: (token ids, start of the second segment, a value for each of `columns`) of each row; the start is the number of ids if there is one
            segment.
        report: figures to keep; may be filled while `rows` is consumed.
        columns: names of what else is said of each row, integers; identifiers.
    """
    folder = rows_folder(store, key, split, length)
    with locked(folder.with_suffix(".lock"), "makes these training rows"):
        if not (folder / "rows.json").exists():
            pad = store.special_ids.get("pad", 0)
            iterator = iter(rows)
            with writing(folder), RowsWriter(folder, store, key, split, length, columns) as writer:
                while block := list(islice(iterator, max(1, BLOCK_TOKENS // length))):
                    of_rows, second, *values = zip(*block, strict=True)
                    lengths = np.array([len(ids) for ids in of_rows])
                    if lengths.min() < 1 or lengths.max() > length:
                        raise ValueError(f"a row has {lengths.min()}..{lengths.max()} tokens, not 1..{length}")
                    ids = np.full((len(block), length), pad, store.tokens.dtype)
                    ids[np.arange(length) < lengths[:, None]] = np.concatenate(of_rows)
                    writer.append(ids, lengths, np.array(second), *map(np.array, values))
                writer.report |= report or {}
    return Rows(folder, store.vocab_size)


def rows_folder(store: TextStore, key: dict[str, Any], split: str, length: int) -> Path:
    made_from = [FORMAT_VERSION, key, split, length, store.manifest["arrays"]["tokens"]["sha256"], store.special_ids.get("pad", 0)]
    made_from += ["all held out"] * store.all_held_out
    identity = json.dumps(made_from, sort_keys=True)
    name = f"{split}-{length}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    return inside(store.folder, f"rows/{name}")  # files there are written and deleted


class RowsWriter:
    """Appends rows to arrays of unknown final size; the folder is complete when the block ends without an error."""

    def __init__(self, folder: Path, store: TextStore, key: dict[str, Any], split: str, length: int, columns: Sequence[str] = ()) -> None:
        self.folder, self.length = folder, length
        self.info = {"format_version": FORMAT_VERSION, "key": key, "split": split, "length": length} | ({"columns": list(columns)} if columns else {})
        self.report: dict[str, Any] = {}
        self.n_documents = 0
        self.n_rows = self.n_tokens = 0
        self.two_segments = False
        self.vocab_size = store.vocab_size
        self.shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            "ids": (store.tokens.dtype, (length,)), "lengths": (np.dtype(np.int32), ()), "second": (np.dtype(np.int32), ()),
            **{name: (np.dtype(np.int32), ()) for name in columns},
        }  # fmt: skip

    def __enter__(self) -> RowsWriter:
        if self.folder.is_dir():  # left by a killed process
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.files = {name: (self.folder / f"{name}.npy").open("w+b") for name in self.shapes}
        for name in self.shapes:
            self._write_header(name)
        return self

    def append(self, ids: np.ndarray, *values: np.ndarray) -> None:
        """Rows [n, length] with their lengths, second segments and columns, int [n] each."""
        if int(ids.max(initial=0)) >= self.vocab_size:
            what = f"the store holds token ids beyond its vocabulary of {self.vocab_size}."
            raise BadInput(what, "It is damaged; prepare it again.", file=self.folder.parent.parent)
        for (name, (dtype, _)), array in zip(self.shapes.items(), (ids, *values), strict=True):
            self.files[name].write(np.ascontiguousarray(array, dtype).tobytes())
        lengths, second, *_ = values
        self.n_rows += len(ids)
        self.n_tokens += int(lengths.sum())
        self.two_segments |= bool((second < lengths).any())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        failed: OSError | None = None
        for name, file in self.files.items():
            try:
                if error is None and failed is None:
                    self._write_header(name)
                    file.flush()
                    os.fsync(file.fileno())  # before rows.json says that they are whole: a power cut must not leave that and lose them
            except OSError as full:
                failed = full
            with suppress(OSError):  # it may hold bytes that the disk refused already
                file.close()
        if error is None and failed is None:
            padding = 1 - self.n_tokens / max(self.n_rows * self.length, 1)
            counts = {"n_rows": self.n_rows, "n_tokens": self.n_tokens, "n_documents": self.n_documents, "two_segments": self.two_segments}
            write_json(self.folder / "rows.json", self.info | counts | {"report": {"padding_share": padding} | self.report})
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        if failed is not None:
            raise failed

    def _write_header(self, name: str) -> None:
        # numpy pads the header so that the first axis may grow to any number in place.
        dtype, shape = self.shapes[name]
        file = self.files[name]
        file.seek(0)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (self.n_rows, *shape)}
        np.lib.format.write_array_header_1_0(file, header)
        file.seek(0, 2)



class _Pieces:
    """Documents cut to at most `size` tokens and placed into rows.

    A piece is a window of the stream `begin` + document + `end`, where "document" is a chunk of one when `wrap` is "chunk".
    """

    def __init__(
        self, store: TextStore, split: Split, length: int, size: int, begin: Sequence[int], end: Sequence[int], wrap: str, pack: bool
    ) -> None:
        self.store, self.length, self.begin, self.end = store, length, np.array(begin, np.int64), np.array(end, np.int64)
        documents = store.documents(split)
        start = store.document_offsets[documents]
        stop = store.document_offsets[documents + 1]
        around = 0 if wrap == "chunk" else len(begin) + len(end)
        totals = stop - start + around
        counts = -(-totals // size)
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # of each piece within its document
        start, stop, totals = (np.repeat(values, counts) for values in (start, stop, totals))
        if wrap == "chunk":
            self.text_start = start + nth * size
            self.text_length = np.minimum(stop - self.text_start, size)
            self.window_start = np.zeros_like(start)
            self.sizes = self.text_length + len(begin) + len(end)
        else:
            self.text_start, self.text_length = start, stop - start
            self.window_start = nth * size
            self.sizes = np.minimum(totals - self.window_start, size)
        self.n_documents = len(documents)
        self.cut_share = float((counts > 1).mean()) if len(documents) else 0.0
        row, self.n_rows = best_fit(self.sizes, length) if pack else (np.arange(len(self.sizes)), len(self.sizes))
        # Rows in the order of their first documents (bins come by size: the first held-out rows would all be long documents); pieces in document
        # order.
        first = np.full(self.n_rows, len(row))
        np.minimum.at(first, row, np.arange(len(row)))
        rank = np.empty(self.n_rows, np.int64)
        rank[np.argsort(first)] = np.arange(self.n_rows)
        row = rank[row]
        order = np.argsort(row, kind="stable")
        self.row = row[order]
        for name in ("text_start", "text_length", "window_start", "sizes"):
            setattr(self, name, getattr(self, name)[order])

    def rows(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of rows: ids [n, length], lengths [n]."""
        per_block = max(1, BLOCK_TOKENS // self.length)
        with Reporter("pack rows", self.n_rows, "rows") as reporter:
            for first in range(0, self.n_rows, per_block):
                last = min(first + per_block, self.n_rows)
                yield self._fill(first, last)
                reporter.advance(last - first)

    def _fill(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        some = slice(*np.searchsorted(self.row, [first, last]))
        sizes = self.sizes[some]
        piece = np.repeat(np.arange(len(sizes)), sizes)
        within = np.arange(len(piece)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + self.window_start[some][piece]
        text = within - len(self.begin)  # position in the document; negative in `begin`
        text_length = self.text_length[some][piece]
        place = np.clip(text, 0, text_length - 1)
        values = self.store.tokens[self.text_start[some][piece] + place].astype(np.int64)
        for special, at in ((self.begin, within), (self.end, text - text_length)):
            inside = (at >= 0) & (at < len(special))
            values[inside] = special[at[inside]]
        lengths = np.bincount(self.row[some] - first, sizes, minlength=last - first).astype(np.int64)
        ids = np.full((last - first, self.length), self.store.special_ids.get("pad", 0), self.store.tokens.dtype)
        ids[np.arange(self.length) < lengths[:, None]] = values
        return ids, lengths
