"""Labelled images of dense tasks: views, and what is wanted of every pixel of the first.

Every file is read once before any training: what cannot be used is said at once, with the file. What was read is kept while it fits into a quarter of
the memory; the rest is read again when it is needed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.hardware import memory_total
from headstart.core.listing import readable
from headstart.data.image.decode import decode_whole
from headstart.data.image.form import Form, Unusable
from headstart.data.image.head import content_of
from headstart.data.image.looks import look_of
from headstart.data.image.reading import USUAL, Reading
from headstart.data.image.target_sources import DenseFiles, find_targets
from headstart.data.image.targets import READERS
from headstart.tasks.dense_config import DenseConfig, DenseRegressionConfig, DepthConfig, SegmentationConfig

MEMORY_SHARE = 4
"""One part in so many of the memory keeps decoded images."""
READERS_AT_ONCE = 4
IGNORED = -1
"""Class of a pixel that is not scored."""
MAX_CLASSES = 10_000


class Sample(NamedTuple):
    """One record: views [channels, height, width] each (uint8, uint16 or float32), and the target: int32 [1, height, width] of classes (-1: not
    scored), or float32 [channels, height, width] (NaN: not scored)."""

    views: tuple[np.ndarray, ...]
    target: np.ndarray


@dataclass
class Statistics:
    """What one pass over the records found."""

    pixels: int = 0
    image_sum: np.ndarray = field(default_factory=lambda: np.zeros(0))
    image_squares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    values: list[np.ndarray] = field(default_factory=list)  # float32 [channels, some]: drawn from the targets, for medians and deviations
    counts: Counter[int] = field(default_factory=Counter)  # class -> pixels


class DenseData:
    """Records in order.

    Args:
        samples: records in memory, or None where `read` gives them.
        read: number -> the record.
        source: what messages call it.
    """

    def __init__(self, samples: Sequence[Sample | None], read: Callable[[int], Sample] | None = None, source: str = "") -> None:
        self._samples, self._read, self.source = list(samples), read, source
        self._room = (memory_total() or 2**33) // MEMORY_SHARE
        self.hashes: list[bytes] = []  # of the first views' pixels
        self._looks: list[np.ndarray] = []
        self.notes: list[str] = []
        self.statistics = Statistics()

    @classmethod
    def of_arrays(cls, views: Sequence[np.ndarray], targets: np.ndarray) -> DenseData:
        """From memory.

        Args:
            views: one or two arrays [n, channels, height, width].
            targets: whole numbers [n, height, width] of classes (negative: not scored), or floats [n, channels, height, width] (NaN: not scored).

        Raises:
            BadInput: their shapes do not fit together.
        """
        masks = targets.ndim == 3
        targets = targets[:, None].astype(np.int32) if masks else targets.astype(np.float32)
        if not all(len(view) == len(targets) and view.shape[2:] == targets.shape[2:] for view in views):
            raise BadInput(f"views {[view.shape for view in views]} and targets {targets.shape} do not fit together.", "Give as many of equal size.")
        data = cls([Sample(tuple(view[i] for view in views), targets[i]) for i in range(len(targets))], source="arrays")
        for number in range(len(data)):
            data._learn(data[number], number)
        return data

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> Sample:
        kept = self._samples[number]
        if kept is not None:
            return kept
        assert self._read is not None
        return self._read(number)

    def read_all(self) -> None:
        """Reads every record once, several at a time. Raises BadInput for the first, by its number, that cannot be used."""
        with ThreadPoolExecutor(READERS_AT_ONCE) as pool:
            assert self._read is not None
            for number, sample in enumerate(pool.map(self._read, range(len(self)))):
                self._learn(sample, number)
                size = sum(part.nbytes for part in (*sample.views, sample.target))
                if size <= self._room:
                    self._room -= size
                    self._samples[number] = sample

    def _learn(self, sample: Sample, number: int) -> None:
        found, first = self.statistics, sample.views[0]
        self.hashes.append(hashlib.blake2b(np.ascontiguousarray(first).tobytes(), digest_size=16).digest())
        self._looks.append(look_of(first))
        if not len(found.image_sum):
            found.image_sum, found.image_squares = np.zeros(len(first)), np.zeros(len(first))
        pixels = first.reshape(len(first), -1).astype(np.float64)
        found.image_sum += pixels.sum(1)
        found.image_squares += (pixels**2).sum(1)
        found.pixels += pixels.shape[1]
        if sample.target.dtype.kind == "i":
            classes, counts = np.unique(sample.target, return_counts=True)
            found.counts.update(dict(zip(classes.tolist(), counts.tolist(), strict=True)))
        else:
            if found.values and len(found.values[0]) != len(sample.target):
                what = f"record {number + 1} has {len(sample.target)} numbers a pixel, the first {len(found.values[0])}."
                raise BadInput(what, "Give targets of the same kind.", file=self.source)
            flat = sample.target.reshape(len(sample.target), -1)
            known = flat[:, np.isfinite(flat).all(0)]
            found.values.append(known[:, np.random.default_rng(number).integers(0, known.shape[1], 256)] if known.shape[1] > 256 else known)

    @property
    def looks(self) -> np.ndarray:
        """int8 [n, 256], of the first views (`data.image.looks`)."""
        return np.stack(self._looks)

    def image_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each channel of the first views."""
        mean = self.statistics.image_sum / self.statistics.pixels
        return mean, np.sqrt(np.maximum(self.statistics.image_squares / self.statistics.pixels - mean**2, 0))

    def target_values(self) -> np.ndarray:
        """float32 [channels, n]: a sample of the numbers that are wanted, the same for the same records."""
        return np.concatenate(self.statistics.values, axis=1)


def read_dense(
    source: str | Path | DenseData, task: str, config: DenseConfig, channels: int, like: DenseData | None = None, reading: Reading = USUAL
) -> DenseData:
    """The records of a folder or list (`target_sources.find_targets`), every file read once.

    Args:
        task: segmentation, dense-regression, depth, stereo or flow.
        channels: of the images that the network takes.
        like: the training records, whose kind of images and targets these must have.
        reading: how the images' files are read.

    Raises:
        BadInput: a file cannot be used, or does not fit the others.
    """
    if isinstance(source, DenseData):
        data = source
    else:
        found = find_targets(source, task, reading.band_files)
        reader = _Reader(found.records, task, config, channels, reading)
        data = DenseData([None] * len(found.records), reader, str(source))
        data.notes = found.notes
        data.read_all()
    _refuse_strange(data, task, config, channels, like)
    return data


def classes_of(data: DenseData, config: SegmentationConfig) -> list[str]:
    """Names of the classes of training masks.

    Raises:
        BadInput: there is only one, too many, or one without a name.
    """
    most = max((number for number in data.statistics.counts if number >= 0), default=-1)
    if config.class_names:
        if most >= len(config.class_names):
            what = f"has the class {most}, {len(config.class_names)} are named."
            raise BadInput(what, "Name all, or give the number that means none: --ignore-label.", file=data.source)
        return list(config.class_names)
    if most < 1 or most >= MAX_CLASSES:
        raise BadInput(f"has classes up to {most}.", "Number them 0, 1 ...; --ignore-label is the number that means none.", file=data.source)
    return [str(number) for number in range(most + 1)]


class _Reader:
    """Reads one record of files."""

    def __init__(self, records: Sequence[DenseFiles], task: str, config: DenseConfig, channels: int, reading: Reading) -> None:
        self.records, self.task, self.config, self.reading = records, task, config, reading
        self.files = reading.config(channels)
        self.form: Form = self._form(records[0].views[0], channels)

    def __call__(self, number: int) -> Sample:
        record = self.records[number]
        views = tuple(self._image(path) for path in record.views)
        target = self._target(record.target)
        for path, view in zip(record.views[1:], views[1:], strict=True):
            if view.shape != views[0].shape:
                what = f"is {_size(view)}, the first view {_size(views[0])}."
                raise BadInput(what, "Give two views of one size.", file=readable(path))
        if target.shape[1:] != views[0].shape[1:]:
            what = f"is {_size(target)}, its image {_size(views[0])} ({readable(record.views[0])})."
            raise BadInput(what, "Give targets of the size of their images.", file=readable(record.target))
        return Sample(views, target)

    def _form(self, path: Path, channels: int) -> Form:
        try:
            return self.reading.form(content_of(path, self.files), channels)
        except Unusable as error:
            raise BadInput(error.what, error.mend, file=readable(path)) from error

    def _image(self, path: Path) -> np.ndarray:
        try:
            return decode_whole(content_of(path, self.files), self.form)
        except Unusable as error:
            raise BadInput(error.what, error.mend, file=readable(path)) from error

    def _target(self, path: Path) -> np.ndarray:
        settings: dict[str, Any] = {}
        if isinstance(self.config, DenseRegressionConfig | DepthConfig):
            settings = {"unit": self.config.unit, "nothing": self.config.nothing}
        found = READERS[self.task](path, **settings)
        if isinstance(self.config, SegmentationConfig):
            return np.where((found == self.config.ignore_label) | (found < 0), IGNORED, found)[None]
        if isinstance(self.config, DepthConfig):
            if len(found) != 1:
                raise BadInput(f"has {len(found)} channels, depth one.", "Give depth alone.", file=readable(path))
            if (found < 0).any():
                raise BadInput("has negative depths.", "Give distances; or name what means none: --nothing.", file=readable(path))
        return found


def _size(array: np.ndarray) -> str:
    return f"{array.shape[2]} x {array.shape[1]} pixels"


def _refuse_strange(data: DenseData, task: str, config: DenseConfig, channels: int, like: DenseData | None) -> None:
    sample = data[0]
    if len(sample.views) != (2 if task in ("stereo", "flow") else 1):
        raise BadInput(f"has {len(sample.views)} views a record.", f"{task} needs another number.", file=data.source)
    if len(sample.views[0]) != channels:
        raise BadInput(f"has images of {len(sample.views[0])} channels, the network takes {channels}.", "Give images of that kind.", file=data.source)
    if (sample.target.dtype.kind == "i") != (task == "segmentation"):
        raise BadInput(f"has targets of type {sample.target.dtype}.", "Classes are whole numbers, all else floats.", file=data.source)
    if like is not None and len(sample.target) != len(like[0].target):
        what = f"has {len(sample.target)} numbers a pixel, the training records {len(like[0].target)}."
        raise BadInput(what, "Give targets of the same kind.", file=data.source)
    if task != "segmentation" and not sum(values.shape[1] for values in data.statistics.values):
        raise BadInput("has no number at any pixel.", "Correct which value means none.", file=data.source)
    if isinstance(config, SegmentationConfig) and not any(number >= 0 for number in data.statistics.counts):
        raise BadInput("has no class at any pixel.", "Correct --ignore-label.", file=data.source)
