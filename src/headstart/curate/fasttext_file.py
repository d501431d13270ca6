"""fastText's own binary files, read and written (webmath, Interop): dense .bin, and quantised .ftz which are only read.

Read as data, with every size checked against the file before memory is taken. Supervised models with softmax; others name the package that runs them.
"""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, open_regular
from headstart.curate.fasttext import Classifier, FastTextConfig

MAGIC, VERSION = 793712314, 12
SUPERVISED, SOFTMAX = 3, 3
CENTROIDS = 256
_ARGUMENTS = ("dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model", "bucket", "minn", "maxn", "lr_update_rate")


def read_fasttext(path: str | Path) -> Classifier:
    """A supervised fastText model.

    Raises:
        BadInput: no such file, damaged, or a kind that is not read here.
    """
    path = Path(path)
    with open_regular(path) as file:
        reader = _Reader(file, path)
        magic, version = reader.numbers("ii")
        if magic != MAGIC or version not in (11, VERSION):
            raise BadInput("is no fastText model of version 11 or 12.", "Give a .bin or .ftz file that fastText wrote.", file=path)
        arguments = dict(zip(_ARGUMENTS, reader.numbers("12i"), strict=True))
        reader.numbers("d")  # the threshold of sampling; not used by classifiers
        if arguments["model"] != SUPERVISED or arguments["loss"] != SOFTMAX or arguments["maxn"] > 0:
            what = "is not a classifier with softmax and whole words, the kind that is read here."
            raise BadInput(what, "Train with -loss softmax and without subwords (-maxn 0), or run it with the package fasttext.", file=path)
        words, labels, counts, pruned = _read_dictionary(reader)
        (quantised,) = reader.numbers("?")
        vectors = _read_quantised(reader) if quantised else reader.matrix()
        (quantised_output,) = reader.numbers("?")
        output = _read_quantised(reader) if quantised and quantised_output else reader.matrix()
    config = FastTextConfig(
        dim=arguments["dim"],
        word_ngrams=arguments["word_ngrams"],
        min_count=arguments["min_count"],
        epochs=arguments["epoch"],
        bucket=arguments["bucket"],
    )
    rows = len(words) + (len(pruned) if pruned is not None else config.bucket)
    if vectors.shape != (rows, config.dim) or output.shape != (len(labels), config.dim):
        raise BadInput("has tables that do not fit together.", "It is damaged; train it again.", file=path)
    return Classifier({word: row for row, word in enumerate(words)}, labels, vectors, output, config, pruned, counts)


def write_fasttext(model: Classifier, path: str | Path) -> None:
    """Writes a model that fastText loads (`fasttext.load_model`). Whole or not at all."""
    if model.pruned is not None:
        raise BadInput("A pruned model cannot be written.", "Keep the file that it came from.")
    config = model.config if model.config.word_ngrams > 1 else replace(model.config, bucket=0)
    word_counts, label_counts = model.counts or ([1] * len(model.words), [1] * len(model.labels))
    values = (config.dim, 5, config.epochs, config.min_count, 5, config.word_ngrams, SOFTMAX, SUPERVISED, config.bucket, 0, 0, 100)
    with atomic_write(path) as file:
        file.write(struct.pack("<ii12id", MAGIC, VERSION, *values, 1e-4))
        n_words, n_labels = len(model.words), len(model.labels)
        file.write(struct.pack("<iiiqq", n_words + n_labels, n_words, n_labels, sum(word_counts), -1))
        for names, counts, kind in ((model.words, word_counts, 0), (model.labels, label_counts, 1)):
            for name, count in zip(names, counts, strict=True):
                file.write(name.encode("utf-8", "surrogatepass") + b"\0" + struct.pack("<qb", count, kind))
        for matrix in (model.vectors, model.output):
            file.write(struct.pack("<?qq", False, *matrix.shape))
            file.write(np.ascontiguousarray(matrix, dtype="<f4").tobytes())


def _read_dictionary(reader: _Reader) -> tuple[list[str], list[str], tuple[list[int], list[int]], dict[int, int] | None]:
    size, n_words, n_labels, _, n_pruned = reader.numbers("iiiqq")
    if size != n_words + n_labels or min(n_words, n_labels) < 0 or size > reader.left() // 10:
        raise reader.damaged()
    names: tuple[list[str], list[str]] = ([], [])
    counts: tuple[list[int], list[int]] = ([], [])
    for _ in range(size):
        name = reader.text()
        count, kind = reader.numbers("qb")
        if kind not in (0, 1):
            raise reader.damaged()
        names[kind].append(name)
        counts[kind].append(count)
    if len(names[0]) != n_words or n_pruned > reader.left() // 8:
        raise reader.damaged()
    if n_pruned < 0:
        return names[0], names[1], counts, None
    pruned: dict[int, int] = {}
    for _ in range(n_pruned):
        bucket, row = reader.numbers("ii")
        pruned[bucket] = row
    return names[0], names[1], counts, pruned


def _read_quantised(reader: _Reader) -> np.ndarray:
    """A product-quantised matrix, made dense: each row is a chain of centroids, times its norm where that was quantised by itself."""
    normed, rows, columns, n_codes = reader.numbers("?qqi")
    codes = reader.array(np.uint8, n_codes)
    centroids, parts, width, last = _read_quantiser(reader)
    if rows * parts != n_codes or (parts - 1) * width + last != columns:
        raise reader.damaged()
    codes = codes.reshape(rows, parts)
    dense = np.empty((rows, columns), dtype=np.float32)
    for part in range(parts):
        size = width if part < parts - 1 else last
        start = part * CENTROIDS * width
        table = centroids[start : start + CENTROIDS * size].reshape(CENTROIDS, size)
        dense[:, part * width : part * width + size] = table[codes[:, part]]
    if normed:
        norm_codes = reader.array(np.uint8, rows)
        norms, *_ = _read_quantiser(reader)
        dense *= norms[norm_codes][:, None]
    return dense


def _read_quantiser(reader: _Reader) -> tuple[np.ndarray, int, int, int]:
    dim, parts, width, last = reader.numbers("iiii")
    if dim <= 0 or parts <= 0 or not 0 < last <= width:
        raise reader.damaged()
    return reader.array(np.float32, dim * CENTROIDS), parts, width, last


class _Reader:
    """Little-endian values of a file, whose size bounds what is read."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._size = os.fstat(file.fileno()).st_size

    def left(self) -> int:
        return self._size - self._file.tell()

    def damaged(self) -> BadInput:
        return BadInput("is damaged or cut off.", "Copy or train it again.", file=self._path)

    def numbers(self, form: str) -> tuple[int, ...]:
        data = self._file.read(struct.calcsize("<" + form))
        if len(data) < struct.calcsize("<" + form):
            raise self.damaged()
        return struct.unpack("<" + form, data)

    def text(self) -> str:
        name = bytearray()
        while (byte := self._file.read(1)) != b"\0":
            if not byte or len(name) > 1 << 16:
                raise self.damaged()
            name += byte
        return name.decode("utf-8", "surrogateescape")

    def array(self, kind: type, count: int) -> np.ndarray:
        size = count * np.dtype(kind).itemsize
        if count < 0 or size > self.left():
            raise self.damaged()
        return np.frombuffer(self._file.read(size), dtype=kind).copy()

    def matrix(self) -> np.ndarray:
        rows, columns = self.numbers("qq")
        if rows < 0 or columns <= 0:
            raise self.damaged()
        return self.array(np.float32, rows * columns).reshape(rows, columns)
