"""How many images some sources hold and how large they are, from headers alone: no pixel is decoded, and of many files a part is opened.

The defaults of a run are chosen by it (`verbs._sizing`). What cannot be read is left to the preparation, which names it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from headstart.core.errors import BadInput, HeadstartError
from headstart.core.files import open_regular, read_json
from headstart.data.image.config import ImageConfig, Layout
from headstart.data.image.opening import NPY_MAGIC, TIFF_MAGIC, Image, formats, has_transparency, pages_of, read_header
from headstart.data.image.pair_config import PairConfig
from headstart.data.image.pair_sources import Pairs, find_pairs
from headstart.data.image.read import ALONE, Record, records, stated_count
from headstart.data.image.sources import InputFile, find_images
from headstart.data.listing import is_store

FILES, RECORDS = 256, 64
"""How many files are looked at, evenly over all of them, and how many images of each file of many."""
GREYS = ("1", "L", "LA", "La", "I", "F")
"""Pillow's modes of one channel, beside those of 16 bits."""

T = TypeVar("T")
Header = tuple[int, int]
"""(shorter side in pixels, channels without transparency)"""


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        images: how many there are; of .tar files an estimate by their size.
        side: median of their shorter sides, in pixels.
        channels: of the first image, without transparency.
        pairs: how many of these they make, where pairs are asked for; None: the images are rows themselves.
    """

    images: int
    side: int
    channels: int
    pairs: int | None = None

    @property
    def rows(self) -> int:
        """What an update is made of: images, or pairs of them."""
        return self.images if self.pairs is None else self.pairs


def survey(sources: Sequence[str | Path], config: ImageConfig) -> Survey | None:
    """Looks at raw images, or at stores of them; None where nothing can be read, or stores and files are mixed."""
    stores = [Path(source) for source in sources if is_store(source)]
    if stores:
        return _of_stores(stores, isinstance(config, PairConfig)) if len(stores) == len(sources) else None
    try:
        in_pairs = find_pairs(sources, config) if isinstance(config, PairConfig) else None
        files = find_images(sources, config).files if in_pairs is None else in_pairs.inputs.files
    except (HeadstartError, OSError):
        return None
    pictures, of_many = ([file for file in files if (file.kind in ALONE) is alone] for alone in (True, False))
    headers = [header for file in _evenly(pictures, FILES) if (header := _of_file(file, config.layout)) is not None]
    images = len(pictures)
    if of_many:
        looked = [(file, *_of_many(file, config)) for file in _evenly(of_many, FILES // RECORDS)]
        headers += [header for _, _, found in looked for header in found]
        per_byte = sum(count for _, count, _ in looked) / max(1, sum(file.size for file, _, _ in looked))
        images += round(per_byte * sum(max(0, file.size) for file in of_many))
    if not headers:
        return None
    side = int(np.median([side for side, _ in headers]))
    return Survey(images, side, _stated_channels(config) or headers[0][1], None if in_pairs is None else _pairs(in_pairs, images))


def _pairs(found: Pairs, images: int) -> int:
    """How many there are; where their reading alone tells, what so many images make."""
    if found.pairs is not None:
        return len(found.pairs)
    return images // 2 if found.pairing == "twos" else images


def _of_stores(folders: Sequence[Path], in_pairs: bool) -> Survey | None:
    try:
        found = [_of_store(folder, in_pairs) for folder in folders]
    except (BadInput, KeyError, TypeError):  # of another kind, or damaged: its own opening says so
        return None
    if not all(type(value) is int and value >= 1 for numbers in found for value in numbers):
        return None
    images, sides, channels, rows = zip(*found, strict=True)
    return Survey(sum(images), sides[0], channels[0], sum(rows) if in_pairs else None)


def _of_store(folder: Path, in_pairs: bool) -> tuple[Any, Any, Any, Any]:
    """What a store states: images, pixels a side, channels, rows; of any type. Raises BadInput, KeyError or TypeError where it states none."""
    manifest = read_json(folder / "manifest.json")
    counts, form = manifest["counts"], manifest["form"]
    rows = read_json(folder / "pairs.json")["counts"]["pairs"] if in_pairs else counts["images"]
    return counts["images"], form["size"], form["channels"], rows


def _stated_channels(config: ImageConfig) -> int | None:
    """Where the settings alone decide them."""
    return len(config.bands or config.band_files) or {"grey": 1, "rgb": 3}.get(config.mode)


def _evenly(items: Sequence[T], count: int) -> list[T]:
    """At most so many of them, from the first to the last."""
    return [items[index] for index in np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)]


def _of_file(file: InputFile, layout: Layout) -> Header | None:
    if file.kind == "bands":
        found = [header[0] for part in file.parts if (header := _of_file(part, layout)) is not None]
        return (max(found), len(file.parts)) if found else None
    try:
        with open_regular(file.path) as stream:
            return _header(stream, layout)
    except (BadInput, OSError):
        return None


def _of_many(file: InputFile, config: ImageConfig) -> tuple[int, list[Header]]:
    """(how many images a file holds, what the first of them are)."""
    found: list[Header] = []
    read = size = 0
    for record in islice(_records(file, config), RECORDS):
        read, size = read + 1, size + (0 if record.content is None else len(record.content))
        header = _of_shape(record.content.shape, config.layout) if isinstance(record.content, np.ndarray) else None
        if isinstance(record.content, bytes):
            header = _header(io.BytesIO(record.content), config.layout)
        found += [] if header is None else [header]
    count = stated_count(file, config)
    if count is None:  # an archive: as many as of this size fit
        count = read if read < RECORDS else round(read * file.size / max(1, size))
    return count, found


def _records(file: InputFile, config: ImageConfig) -> Iterator[Record]:
    try:
        yield from (found for found in records(file, config) if isinstance(found, Record))
    except BadInput:
        return


def _header(stream: IO[bytes], layout: Layout) -> Header | None:
    """Of the bytes of an image; None where they cannot be read."""
    start = stream.read(6)
    stream.seek(0)
    try:
        if start == NPY_MAGIC:
            return _of_shape(read_header(stream)[0], layout)
        if start[:4] in TIFF_MAGIC:
            return _of_tiff(stream)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            picture = Image.open(stream, formats=formats())
        return min(picture.size), 1 if picture.mode in GREYS or picture.mode.startswith("I;16") else 3
    except Exception:  # a parser of foreign bytes may raise anything: the preparation names it
        return None


def _of_tiff(stream: IO[bytes]) -> Header:
    import tifffile

    with tifffile.TiffFile(stream, name="survey") as file:
        page: Any = file.pages.first
        pages, channel_pages = pages_of(file)
        palette = page.photometric == tifffile.PHOTOMETRIC.PALETTE
        channels = pages if channel_pages else 3 if palette else int(page.samplesperpixel) - (page.dtype == np.uint8 and has_transparency(page))
        return min(page.imagelength, page.imagewidth), channels


def _of_shape(shape: tuple[int, ...], layout: Layout) -> Header | None:
    """Of an array of one image, [height, width] or with its channels first or last."""
    if len(shape) == 2:
        return min(shape), 1
    if len(shape) != 3:
        return None
    first = layout == "channels-first" or (layout == "auto" and shape[0] < shape[2])
    return (min(shape[1:]), shape[0]) if first else (min(shape[:2]), shape[2])
