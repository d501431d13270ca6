"""Training rows of interleaved documents, made from a store once and memory-mapped: STORE/rows/KEY/.

    rows.json             key, split, length, counts and report; written last
    ids.npy               [n_rows, length], dtype of the store's tokens; the padding id at the places of images and after the end
    lengths.npy           int32 [n_rows], places before the padding
    image_starts.npy      int32 [n_rows, max_images], where the places of each image begin; -1: none
    image_numbers.npy     int64 [n_rows, max_images], its number in the store of images
    answers.npy           uint8 [n_rows, ceil(length / 8)], a bit a place: whether an answer stands there

Documents are concatenated, with their end token between them, and cut at the length of a row; an image takes `positions` places, which are never cut:
where they do not fit any more, the row ends with padding. Documents in one row see each other.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import inside, locked, own_file, read_json, write_json
from headstart.core.machine import writing
from headstart.core.progress import Reporter
from headstart.data.arrays import map_array
from headstart.data.image.parts import GrowingArray
from headstart.data.interleaved.store import InterleavedStore

FORMAT_VERSION = 1
MAX_LENGTH = 2**20
BLOCK_ROWS = 1024
ARRAYS = ("ids", "lengths", "image_starts", "image_numbers", "answers")
REBUILD = "Delete this folder; it is made again from its store."

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Layout:
    """How documents become rows.

    Attributes:
        length: places of a row.
        positions: places that an image takes.
        max_images: images of a row; those beyond it are left out with their marker.
        packed: documents are concatenated; otherwise each begins a row of its own.
        begin, end: special ids around each document.
    """

    length: int
    positions: int
    max_images: int
    packed: bool = True
    begin: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 4 <= self.length <= MAX_LENGTH:
            raise UsageError(f"Rows of {self.length:,} tokens.", f"Give 4 to {MAX_LENGTH:,} as --method.sequence-length.")
        if self.positions < 1 or self.max_images < 1:
            raise UsageError(f"Images of {self.positions} tokens, {self.max_images} in a row.", "Give at least 1 of each.")
        if self.positions + len(self.begin) + 1 > self.length:
            raise UsageError(
                f"An image of {self.positions} tokens and a text do not fit into a row of {self.length}.",
                "Raise --method.sequence-length, or lower --method.latents.",
            )


class InterleavedRows:
    """Opened rows.

    Attributes:
        store: whose documents they are.
        length: places of a row, padding included.
        n_tokens: text tokens and places of images of all rows.
        n_documents: documents that the rows were made from.
        answers_only: batches say which places are no answers.
        report: figures for a person.
    """

    unit = "tokens"

    def __init__(self, folder: Path, store: InterleavedStore, layout: Layout, answers_only: bool) -> None:
        self.folder, self.store, self.layout, self.answers_only = folder, store, layout, answers_only
        info = read_json(own_file(folder, "rows.json"))
        if not isinstance(info, dict) or info.get("format_version") != FORMAT_VERSION or not _is_sound(info):
            raise BadInput("is of another format version, or lacks an entry.", REBUILD, file=folder / "rows.json")
        self.info: dict[str, Any] = info
        self.ids, self.lengths, self.image_starts, self.image_numbers, self.answers = (map_array(folder, name, REBUILD) for name in ARRAYS)
        self.length, n = layout.length, info["n_rows"]
        shapes = [(n, self.length), (n,), (n, layout.max_images), (n, layout.max_images), (n, -(-self.length // 8))]
        types = [str(store.tokens.dtype), "int32", "int32", "int64", "uint8"]
        arrays = (self.ids, self.lengths, self.image_starts, self.image_numbers, self.answers)
        if any(array.shape != shape or str(array.dtype) != kind for array, shape, kind in zip(arrays, shapes, types, strict=True)):
            raise BadInput("arrays do not fit each other.", REBUILD, file=folder)
        self.n_tokens: int = info["n_tokens"]
        self.n_documents: int = info["n_documents"]
        self.report: dict[str, Any] = info["report"]

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The rows with these numbers:

        input_ids       int64 [batch, length]
        attention_mask  bool [batch, length], only if one of them is padded
        image_slots     int64 [batch, length], only if one of them has an image: 0 at a text token, 1 + k at the k-th place of the row's images
        images          [batch, m, channels, height, width], likewise: those of each row, filled up with zeros
        unasked         bool [batch, length], only if answers alone count: true at what is no answer

        Raises BadInput for a number beyond the vocabulary or the images: on a GPU it would end the process without a word.
        """
        return self.batch_of(rows, "images", lambda numbers: self.store.images.read(numbers))  # type: ignore[union-attr]

    def batch_of(self, rows: np.ndarray, name: str, read: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
        """The same with what `read` gives of images with these numbers as `name`."""
        ids = self.ids.take(rows, axis=0)
        if ids.max(initial=0) >= self.store.vocab_size:
            raise BadInput(f"holds token ids beyond the vocabulary of {self.store.vocab_size}.", REBUILD, file=self.folder / "ids.npy")
        batch = {"input_ids": ids.astype(np.int64)}
        lengths, place = self.lengths[rows], np.arange(self.length)
        if (lengths < self.length).any():
            batch["attention_mask"] = place < lengths[:, None]
        starts = self.image_starts[rows]
        if count := int((starts >= 0).sum(1).max(initial=0)):
            starts, numbers = starts[:, :count], self.image_numbers[rows][:, :count]
            batch["image_slots"] = self._slots(starts)
            batch[name] = _gathered(numbers, starts >= 0, read)
        if self.answers_only:
            batch["unasked"] = ~np.unpackbits(self.answers[rows], axis=1, count=self.length).astype(bool)
        return batch

    def _slots(self, starts: np.ndarray) -> np.ndarray:
        slots = np.zeros((len(starts), self.length), np.int64)
        row, image = np.nonzero(starts >= 0)
        within = np.arange(self.layout.positions)
        at = starts[row, image][:, None] + within
        if at.size and at.max() >= self.length:
            raise BadInput("places an image beyond the end of a row.", REBUILD, file=self.folder / "image_starts.npy")
        slots[row[:, None], at] = 1 + image[:, None] * self.layout.positions + within
        return slots


def _gathered(numbers: np.ndarray, there: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """[batch, m, ...]: each image read once, zeros where there is none."""
    distinct, inverse = np.unique(numbers[there], return_inverse=True)
    found = read(distinct)
    result = np.zeros((*numbers.shape, *found.shape[1:]), found.dtype)
    result[there] = found[inverse]
    return result


def _is_sound(info: dict[str, Any]) -> bool:
    counts = [info.get(name) for name in ("n_rows", "n_tokens", "n_documents")]
    report = info.get("report")
    return all(isinstance(count, int) and count >= 0 for count in counts) and isinstance(report, dict)


def interleaved_rows(store: InterleavedStore, layout: Layout, split: Split = "train", answers_only: bool = False) -> InterleavedRows:
    """The rows of a split. Written once, opened after that.

    Raises:
        UsageError: answers alone shall count, and the store has none.
    """
    if answers_only and not store.manifest["counts"]["answer_tokens"]:
        mend = "Give records with question and answer, or conversations; or another --method.stage."
        raise UsageError(f"The documents of {store.folder} hold no answers, and nothing else is learnt in this stage.", mend)
    key = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(layout).items()}
    made_from = [FORMAT_VERSION, key, split, sorted(entry["sha256"] for entry in store.manifest["arrays"].values()), store.special_ids.get("pad", 0)]
    name = f"{split}-{layout.length}-{hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]}"
    folder = inside(store.folder, f"rows/{name}")
    with locked(folder.with_suffix(".lock"), "makes these training rows"):
        if not (folder / "rows.json").exists():
            with writing(folder):
                _write(store, layout, split, folder, key)
    return InterleavedRows(folder, store, layout, answers_only)


def _write(store: InterleavedStore, layout: Layout, split: Split, folder: Path, key: dict[str, Any]) -> None:
    if folder.is_dir():  # left by a killed process
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    shapes = {
        "ids": (store.tokens.dtype, (layout.length,)),
        "lengths": (np.dtype(np.int32), ()),
        "image_starts": (np.dtype(np.int32), (layout.max_images,)),
        "image_numbers": (np.dtype(np.int64), (layout.max_images,)),
        "answers": (np.dtype(np.uint8), (-(-layout.length // 8),)),
    }
    arrays = {name: GrowingArray(folder / f"{name}.npy", dtype, shape, 0) for name, (dtype, shape) in shapes.items()}
    documents = store.documents(split)
    packing = _Packing(store, layout)
    block: list[_Row] = []
    n_rows = n_places = n_images = 0

    def flush() -> None:
        for name, array in arrays.items():
            array.append(np.stack([row.values()[name] for row in block]).astype(shapes[name][0]))
        block.clear()

    with Reporter("pack rows", len(documents), "documents") as reporter:
        for row in packing.rows(documents, reporter.advance):
            block.append(row)
            n_rows, n_places, n_images = n_rows + 1, n_places + row.length, n_images + int((row.image_starts >= 0).sum())
            if len(block) == BLOCK_ROWS:
                flush()
    if block:
        flush()
    for array in arrays.values():
        array.close()
    placed = n_images + packing.left_out
    padding = 1 - n_places / max(n_rows * layout.length, 1)
    report = {"padding_share": padding, "left_out_image_share": packing.left_out / max(placed, 1), "images": n_images}
    counts = {"n_rows": n_rows, "n_tokens": n_places, "n_documents": len(documents)}
    write_json(folder / "rows.json", {"format_version": FORMAT_VERSION, "key": key, "split": split, **counts, "report": report})


class _Row:
    """A row that is being filled."""

    def __init__(self, layout: Layout, pad: int, dtype: np.dtype[Any]) -> None:
        self.ids = np.full(layout.length, pad, dtype)
        self.answers = np.zeros(layout.length, bool)
        self.image_starts = np.full(layout.max_images, -1, np.int32)
        self.image_numbers = np.full(layout.max_images, -1, np.int64)
        self.length = self.n_images = 0

    def values(self) -> dict[str, Any]:
        """Of each array of `ARRAYS` the row's part."""
        return {
            "ids": self.ids,
            "lengths": self.length,
            "image_starts": self.image_starts,
            "image_numbers": self.image_numbers,
            "answers": np.packbits(self.answers),
        }


class _Packing:
    """Documents into rows, one after another."""

    def __init__(self, store: InterleavedStore, layout: Layout) -> None:
        self.store, self.layout = store, layout
        self.row = self._fresh()
        self.left_out = 0

    def rows(self, documents: np.ndarray, advance: Callable[[int], object]) -> Iterator[_Row]:
        for index in documents:
            if self.row.length and not self.layout.packed:
                yield self._take()
            yield from self._put(int(index))
            advance(1)
        if self.row.length:
            yield self._take()

    def _fresh(self) -> _Row:
        return _Row(self.layout, self.store.special_ids.get("pad", 0), self.store.tokens.dtype)

    def _take(self) -> _Row:
        full, self.row = self.row, self._fresh()
        return full

    def _put(self, index: int) -> Iterator[_Row]:
        """Puts a document into the rows; gives those that are full."""
        layout, (text, places, numbers) = self.layout, self.store.document(index)
        start, stop = self.store.document_offsets[index : index + 2]
        answers = self.store.answers[start:stop]
        tokens = np.concatenate([np.array(layout.begin, text.dtype), text, np.array(layout.end, text.dtype)])
        answers = np.concatenate([np.zeros(len(layout.begin), bool), answers, np.full(len(layout.end), answers[-1])])  # the end belongs to the answer
        done = 0
        for place, number in zip(places + len(layout.begin), numbers, strict=True):
            yield from self._put_text(tokens[done:place], answers[done:place])
            done = place
            yield from self._put_image(number)
        yield from self._put_text(tokens[done:], answers[done:])

    def _put_text(self, tokens: np.ndarray, answers: np.ndarray) -> Iterator[_Row]:
        done = 0
        while done < len(tokens):
            row, taken = self.row, min(len(tokens) - done, self.layout.length - self.row.length)
            row.ids[row.length : row.length + taken] = tokens[done : done + taken]
            row.answers[row.length : row.length + taken] = answers[done : done + taken]
            row.length += taken
            done += taken
            if row.length == self.layout.length:
                yield self._take()

    def _put_image(self, number: int) -> Iterator[_Row]:
        layout = self.layout
        if self.row.length + layout.positions > layout.length:
            yield self._take()
        row = self.row
        if row.n_images == layout.max_images:
            self.left_out += 1
            return
        row.image_starts[row.n_images], row.image_numbers[row.n_images] = row.length, number
        row.n_images += 1
        row.length += layout.positions
        if row.length == layout.length:
            yield self._take()
