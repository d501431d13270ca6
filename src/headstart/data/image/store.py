"""The image store: all images of a folder in one form, written once and memory-mapped.

    STORE/manifest.json               counts, form, statistics, classes, inputs, preparation; written last: its presence means "complete"
    STORE/images.npy                  [n, channels, height, width] uint8, uint16 or float32 (storage "decoded")
    STORE/encoded.npy, offsets.npy    uint8 [bytes] and int64 [n + 1]: the files' own bytes instead (storage "encoded")
    STORE/labels.npy                  int64 [n], index into the classes; -1 where there is none
    STORE/held_out.npy, dropped.npy   bool [n]
    STORE/hashes.npy                  uint64 [n], of the stored pixels: equal images have equal ones
    STORE/looks.npy                   int8 [n, 256], what they look like (`looks.py`); not in stores of older versions
    STORE/places.npy                  int64 [n, 2]: input file, record in it (from 1; 0: the file is the image)
    STORE/inputs.parquet              name, bytes, time and hash of every input file
    STORE/quarantine.jsonl            bad images, one JSON object a line

A store may come from someone else: nothing in it is executed or unpickled, no path in its manifest is opened, and sizes are checked before anything
is used. `prepare.py` writes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import open_regular, own_file
from headstart.core.hardware import cores
from headstart.core.words import agree, plural
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import decode
from headstart.data.image.form import Form, Unusable
from headstart.data.stored import REBUILD, checked_manifest, hashes_of_arrays, numbers_of, refuse_unfit, stated_array, verify_hashes

KIND = "image"
FORMAT_VERSION = 1
PIXELS = {"decoded": ("images",), "encoded": ("encoded", "offsets")}
"""The arrays that hold the images, by `storage`."""
ARRAYS = ("labels", "held_out", "dropped", "hashes", "places")
LATER_ARRAYS = ("looks",)
"""Those that a store of an older version lacks."""
NO_DATA, PLAIN = "has no data in ", "is of one colour everywhere"
"""How quarantine.jsonl begins to say why an image is left out that is not bad."""
MAX_LINE = 2**20
COUNTS = ("images", "training_images", "held_out_images", "duplicate_images", "enlarged_images", "quarantined")


class ImageStore:
    """An opened store. Arrays are read-only and memory-mapped.

    Attributes:
        folder, manifest: where it lies, and what is known of it.
        form: what every image is (`form.Form`): channels, size, type, colour.
        channels, height, width: of every image.
        mean, std: float64 [channels], over all pixels of the training images, in the values of the images.
        labels: int64 [n], index into `classes`; -1: none.
        classes: names, sorted; empty without labels.
        held_out: bool [n], kept for validation.
        dropped: bool [n], copies of other images, images of one colour, and training images that nearly equal a held-out one; neither trained nor
            validated on.
        hashes, places: see above.
        looks: likewise; None in a store of an older version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = checked_manifest(folder, KIND, FORMAT_VERSION, "a store of images", _is_sound)
        self.form = Form.from_json(self.manifest["form"])
        self.storage: str = self.manifest["preparation"]["storage"]
        self.channels, self.height, self.width = self.form.shape
        self.mean = np.array(self.manifest["mean"], np.float64)
        self.std = np.array(self.manifest["std"], np.float64)
        self.classes: list[str] = self.manifest["classes"]
        self.labels, self.held_out, self.dropped, self.hashes, self.places = (self._array(name) for name in ARRAYS)
        self.looks = self._array("looks") if "looks" in self.manifest["arrays"] else None
        if self.storage == "decoded":
            self._images = self._array("images")
        else:
            self._encoded, self._offsets = self._array("encoded"), self._array("offsets")
        self._check_arrays()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.form.dtype)

    @property
    def images(self) -> np.ndarray:
        """[n, channels, height, width], memory-mapped; only of decoded storage (`read` serves both)."""
        if self.storage != "decoded":
            raise AttributeError("an encoded store has no array of pixels; use read()")
        return self._images

    def rows(self, split: str) -> np.ndarray:
        """int64: numbers of the images of `split`, "train" or "held_out", in order."""
        return numbers_of(split, self.held_out, self.dropped)

    def read(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """[k, channels, height, width]: the images with these numbers. Encoded ones are decoded in threads.

        Raises BadInput for an encoded image that is damaged.
        """
        indices = np.asarray(indices, np.int64)
        if self.storage == "decoded":
            return self._images[indices]
        result = np.empty((len(indices), *self.form.shape), self.dtype)

        def put(at: int) -> None:
            result[at] = self._decoded(int(indices[at]))

        list(self._threads.map(put, range(len(indices))))
        return result

    def source(self, index: int) -> tuple[str, int]:
        """(name of the input file, record in it or 0) of an image."""
        file, record = self.places[index]
        return str(self.file_names[file]), int(record)

    @cached_property
    def file_names(self) -> list[str]:
        """Of the input files, in the order of `places`."""
        return [str(name) for name in read_inputs(self.folder)["name"]]

    def verify(self) -> None:
        """Read everything: hashes of all arrays. Raises BadInput at the first difference."""
        verify_hashes(self.folder, hashes_of_arrays(self.manifest, self.manifest["arrays"]))

    def in_words(self) -> str:
        """What its images are: "3 x 64 x 64 uint8, rgb"."""
        return f"{self.channels} x {self.height} x {self.width} {self.dtype}, {self.form.colour}"

    def report(self) -> list[str]:
        """What a person wants to know of the images, as lines."""
        counts = self.manifest["counts"]
        lines = [
            f"{plural(counts['images'], 'image')} of {self.in_words()} ({self.storage})",
            f"{counts['training_images']:,} to train on, {counts['held_out_images']:,} held out;"
            f" {counts['duplicate_images']:,} {agree(counts['duplicate_images'], 'copy', 'copies')} left out"
            + (f", {near:,} that nearly {agree(near, 'equals', 'equal')} a held-out image" if (near := counts.get("near_duplicate_images")) else ""),
            f"mean {_numbers(self.mean)}; deviation {_numbers(self.std)}",
        ]
        if self.classes:
            sizes = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes))
            shown = ", ".join(f"{name} {size:,}" for name, size in zip(self.classes[:8], sizes, strict=False))
            more = f", and {len(self.classes) - 8:,} more" if len(self.classes) > 8 else ""
            lines.append(f"{len(self.classes):,} {agree(len(self.classes), 'class', 'classes')}: {shown}{more}")
        if without := counts.get("images_without_data"):
            why = f"too many of their pixels have no data (--image.max-nodata-share; {self._named(NO_DATA, without)})"
            lines.append(f"{plural(without, 'image')} left out: {why}")
        if filled := counts.get("images_with_gaps"):
            lines.append(f"{plural(filled, 'image')} {agree(filled, 'has', 'have')} pixels without data, filled with the mean of their band")
        if counts["quarantined"]:
            lines.append(f"{plural(counts['quarantined'], 'bad image')} in {self.folder / 'quarantine.jsonl'}")
        return lines + [f"WARNING: {found}" for found in self.warnings()]

    def warnings(self) -> list[str]:
        """What of it can harm a run, as lines."""
        counts, found = self.manifest["counts"], []
        if plain := counts.get("one_colour_images"):
            why = f"nothing can be learnt from them ({self._named(PLAIN, plain)})"
            found.append(f"{plural(plain, 'image')} {agree(plain, 'is', 'are')} of one colour everywhere and left out: {why}")
        if smaller := counts["enlarged_images"]:
            share = f"{smaller:,} of {plural(counts['images'], 'image')} {agree(smaller, 'is', 'are')}"
            found.append(f"{share} smaller than {self.width} pixels and {agree(smaller, 'was', 'were')} enlarged; --image.size sets the size")
        if (flat := np.flatnonzero(self.std == 0)).size:
            found.append(f"channel {', '.join(str(channel + 1) for channel in flat)} never varies")
        return found

    def _named(self, what: str, count: int) -> str:
        """Where the names of so many images are that were left out for this: stores of earlier versions did not write them all."""
        file = self.folder / "quarantine.jsonl"
        if file.is_file():
            with open_regular(file) as opened:
                said = sum(f'"what": "{what}'.encode() in line for line in iter(lambda: opened.readline(MAX_LINE), b""))
            if said >= count:
                return f"{file} names each"
        return "their names are not in this store: prepare the same images into another folder, whose quarantine.jsonl names each"

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(cores(), thread_name_prefix="decode")

    def _decoded(self, index: int) -> np.ndarray:
        content = self._encoded[self._offsets[index] : self._offsets[index + 1]].tobytes()
        try:
            return decode(content, self.form, prepared=True).pixels
        except Unusable as error:
            raise BadInput(f"image {index} {error.what}", REBUILD, file=self.folder / "encoded.npy") from error

    def _array(self, name: str) -> np.ndarray:
        return stated_array(self.folder, self.manifest, name)

    def _check_arrays(self) -> None:
        n = self.manifest["counts"]["images"]
        kinds = {"labels": "int64", "held_out": "bool", "dropped": "bool", "hashes": "uint64", "places": "int64"}
        arrays = {name: getattr(self, name) for name in kinds}
        checks = {name: str(array.dtype) == kinds[name] and array.shape == (n, 2)[: array.ndim] for name, array in arrays.items()}
        checks["labels"] = checks["labels"] and bool(((self.labels >= -1) & (self.labels < max(len(self.classes), 1))).all())
        if self.storage == "decoded":
            checks["images"] = self._images.dtype == self.dtype and self._images.shape == (n, *self.form.shape)
        else:
            checks["encoded"] = self._encoded.dtype == np.uint8 and self._encoded.ndim == 1
            steps = np.diff(self._offsets) if self._offsets.dtype == np.int64 and self._offsets.shape == (n + 1,) else np.array([-1])
            checks["offsets"] = bool(self._offsets[0] == 0 and self._offsets[-1] == len(self._encoded) and (steps > 0).all())
        if self.looks is not None:
            checks["looks"] = self.looks.dtype == np.int8 and self.looks.shape == (n, 256)
        checks["statistics"] = self.mean.shape == self.std.shape == (self.channels,)
        refuse_unfit(self.folder, checks)


def open_image_store(folder: str | Path) -> ImageStore:
    """Open a finished store. Raises BadInput if it is missing, unfinished, damaged or of another format version."""
    return ImageStore(Path(folder))


def prepare_images(sources: Sequence[str | Path], out: str | Path, config: ImageConfig | None = None) -> ImageStore:
    """Source -> store, see `prepare.prepare_images`."""
    from headstart.data.image import prepare

    return prepare.prepare_images(sources, Path(out), config or ImageConfig())


def read_inputs(folder: Path) -> dict[str, list[Any]]:
    """The columns of inputs.parquet."""
    from headstart.data import parquet

    path = own_file(folder, "inputs.parquet")
    try:
        columns: dict[str, list[Any]] = {"name": [], "bytes": [], "mtime_ns": [], "label": [], "sha256": []}
        for row in parquet.rows(path, list(columns)):
            for name, values in columns.items():
                values.append(row[name])
    except parquet.ERRORS as error:
        raise BadInput("cannot be read.", REBUILD, file=path) from error
    return columns


def _is_sound(manifest: dict[str, Any]) -> bool:
    """Whether what is read of a manifest has the types that it is read as; an error of a missing entry says no (`checked_manifest`)."""
    Form.from_json(manifest["form"])
    arrays = manifest["arrays"]
    entries: list[tuple[Any, type]] = [(array[name], str) for array in arrays.values() for name in ("dtype", "sha256")]
    entries += [(array["shape"], list) for array in arrays.values()]
    entries += [(manifest["counts"][name], int) for name in COUNTS] + [(name, str) for name in manifest["classes"]]
    entries += [(value, float) for name in ("mean", "std") for value in manifest[name]]
    return (
        set(arrays) - set(LATER_ARRAYS) == {*ARRAYS, *PIXELS[manifest["preparation"]["storage"]]}
        and all(isinstance(value, kind) for value, kind in entries)
        and all(math.isfinite(value) for name in ("mean", "std") for value in manifest[name])
    )


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.4g}" for value in values[:12]) + (" ..." if len(values) > 12 else "")
