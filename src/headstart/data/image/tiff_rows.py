"""The rows of a large TIFF, a few at a time: what windows are cut from, so that a scene is never in memory whole.

A TIFF is a grid of segments (tiles, or strips of rows), each compressed for itself. The segments of one row of that grid are held, and the rows that
are asked for are taken from them. Values are those of `opening`, which decodes the whole. Read in this way are grey, bands and colours, 8-bit
palettes (maps of classes), YCbCr in JPEG (aerial photographs), and files whose further pages are smaller copies or masks of the first (a
cloud-optimised GeoTIFF). What is left is decoded whole, and only up to --image.max-megapixels.
"""

from __future__ import annotations

import logging
import math
from typing import IO, Any

import numpy as np

from headstart.core.errors import MissingDependency
from headstart.core.machine import refuse_limits
from headstart.core.words import first_line
from headstart.data.compressed import FREE_BYTES, MAX_RATIO
from headstart.data.image.form import Unusable
from headstart.data.image.opening import (
    CMYK,
    LAB,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    PALETTE,
    RGB,
    TIFF_MAGIC,
    YCBCR,
    has_transparency,
    orientation_of,
    pages_of,
    read_by_segments,
    room,
    shown,
)

NAMES = {
    MIN_IS_WHITE: "shows high values dark",
    PALETTE: "has a palette",
    CMYK: "has CMYK colours",
    YCBCR: "has YCbCr colours",
    LAB: "has Lab colours",
}
"""Of the ways to store colours that are decoded whole."""
PLAIN_ROWS = 256
"""Rows of an uncompressed image that are read at once."""
AGAIN = "Copy or export it again, or remove it."
TRANSPARENT = "says that its last band is transparency"
BANDS_MEND = "If that is a band, such as near infrared: --image.mode bands. Otherwise write it without transparency, or raise --image.max-megapixels."


class TiffRows:
    """An opened TIFF.

    Attributes:
        shape: (bands, height, width).
    """

    def __init__(self, file: Any, page: Any) -> None:
        self._handle, self._page = file.filehandle, page
        self._samples = int(page.samplesperpixel)
        self._separate = int(page.planarconfig) == 2 and self._samples > 1
        bands = 3 if int(page.photometric) == PALETTE else self._samples
        self.shape = (bands, int(page.imagelength), int(page.imagewidth))
        self._plain = bool(page.is_contiguous) and int(page.compression) == 1 and int(page.predictor) == 1 and int(page.fillorder) == 1
        self._stored = page.dtype.newbyteorder(file.byteorder)
        if self._plain:
            self._rows, self._across = PLAIN_ROWS, 1
        else:
            self._rows = int(page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength))
            self._across = -(-self.shape[2] // int(page.tilewidth)) if page.is_tiled else 1
        self._down = -(-self.shape[1] // self._rows)
        self._held: tuple[int, np.ndarray] | None = None

    def held_bytes(self, rows: int) -> int:
        """Of one row of segments and so many rows."""
        bands, height, width = self.shape
        return width * self._page.dtype.itemsize * (self._samples * (min(self._rows, height) + rows) + bands * rows)

    def read(self, top: int, bottom: int) -> np.ndarray:
        """[bands, bottom - top, width], masked where the file says that there is no data.

        Raises Unusable.
        """
        found = np.empty((self._samples, bottom - top, self.shape[2]), self._page.dtype)
        try:
            for down in range(top // self._rows, -(-bottom // self._rows)):
                segments, begin = self._segments(down), down * self._rows
                first, last = max(top, begin), min(bottom, begin + segments.shape[1])
                found[:, first - top : last - top] = segments[:, first - begin : last - begin]
            return shown(found, self._page, as_bands=True)  # what would be shown otherwise is decoded whole
        except Exception as error:  # a decoder of foreign bytes may raise anything
            refuse_limits(error, "an image")
            raise Unusable(f"is no image, damaged, or cut off ({first_line(error)}).", AGAIN) from error

    def _segments(self, down: int) -> np.ndarray:
        """[samples, rows, width]: a row of segments."""
        if self._held is None or self._held[0] != down:
            self._held = None  # two of them are never held
            self._held = down, self._read_plain(down) if self._plain else self._decoded(down)
        return self._held[1]

    def _read_plain(self, down: int) -> np.ndarray:
        _, height, width = self.shape
        first, rows = down * self._rows, min(self._rows, height - down * self._rows)
        planes, samples = (self._samples, 1) if self._separate else (1, self._samples)
        row_bytes, begin = width * samples * self._stored.itemsize, self._page.dataoffsets[0]
        read = [self._bytes(begin + (plane * height + first) * row_bytes, rows * row_bytes) for plane in range(planes)]
        values = [np.frombuffer(data, self._stored).reshape(rows, width, samples).transpose(2, 0, 1) for data in read]
        return np.concatenate(values).astype(self._page.dtype, copy=False)

    def _decoded(self, down: int) -> np.ndarray:
        _, height, width = self.shape
        first, rows = down * self._rows, min(self._rows, height - down * self._rows)
        found = np.full((self._samples, rows, width), self._page.nodata, self._page.dtype)
        for plane in range(self._samples if self._separate else 1):
            for across in range(self._across):
                index = (plane * self._down + down) * self._across + across
                if not (count := self._page.databytecounts[index]):
                    continue  # a segment that was never written
                data = self._bytes(self._page.dataoffsets[index], count)
                values, (_, _, top, left, _), _ = self._page.decode(data, index, jpegtables=self._page.jpegtables)
                if values is None:
                    continue
                part = values[0, : rows - (top - first), : width - left].transpose(2, 0, 1)  # an outer tile reaches over the edge
                places = slice(plane, plane + 1) if self._separate else slice(None)
                found[places, top - first : top - first + part.shape[1], left : left + part.shape[2]] = part
        return found

    def _bytes(self, offset: int, count: int) -> bytes:
        self._handle.seek(offset)
        data: bytes = self._handle.read(count)
        if len(data) < count:
            raise ValueError("it ends before its last pixel")
        return data


def tiff_rows(opened: IO[bytes], size: int, as_bands: bool, rows: int, first_page: bool = False, max_pixels: int = 2**62) -> TiffRows | None:
    """The rows of a TIFF; None for a file that is none, or that only `opening` reads (`_whole_because`).

    Args:
        opened: the file; it must stay open.
        size: its bytes.
        as_bands: every sample is a band; otherwise 8-bit colours with transparency are a picture.
        rows: that will be read at once.
        first_page: of a file of several pages the first is meant.
        max_pixels: of an image that must be decoded whole.

    Raises:
        Unusable: it is damaged, a volume, or must be decoded whole and is too large for that.
    """
    if opened.read(4) not in TIFF_MAGIC:
        return None
    opened.seek(0)
    try:
        import tifffile
    except ImportError:
        raise MissingDependency("tifffile", "image", "Reading TIFF") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it also raises
    try:
        file = tifffile.TiffFile(opened, name="image.tif")  # our file has a number for a name
        page = file.pages.first
        height, width = int(page.imagelength), int(page.imagewidth)
        whole = _whole_because(page, *pages_of(file), as_bands, first_page)
        found = None if whole else TiffRows(file, page)
        stated_bytes = 0 if found is None or page.dtype is None else math.prod(found.shape) * page.dtype.itemsize
    except Exception as error:  # a reader of foreign bytes may raise anything
        refuse_limits(error, "an image")
        raise Unusable(f"is no image, damaged, or cut off ({first_line(error)}).", AGAIN) from error
    if found is None:
        if height * width > max_pixels:  # said before its bytes are read
            what = f"{whole}, so it is decoded whole: {width:,} x {height:,} are more than {max_pixels / 1e6:g} million pixels."
            mend = "Write it as grey, RGB or bands, for example: gdal_translate -of COG. Or raise --image.max-megapixels."
            raise Unusable(what, BANDS_MEND if whole == TRANSPARENT else mend)
        return None
    if stated_bytes > max(FREE_BYTES, MAX_RATIO * size):
        raise Unusable(f"states {stated_bytes / 1e9:,.1f} GB of pixels in {size / 1e6:,.1f} MB.", "Leave it out, or cut out the part with data.")
    if (held := found.held_bytes(rows)) > room():
        mend = "Write it in tiles, for example: gdal_translate -co TILED=YES."
        raise Unusable(f"has strips or tiles so high that {held / 1e6:,.0f} MB would be decoded at once.", mend)
    return found


def _whole_because(page: Any, pages: int, channel_pages: bool, as_bands: bool, first_page: bool) -> str | None:
    """What about a file makes it one that `opening` decodes whole; None: nothing does."""
    photometric, samples, bits = int(page.photometric), int(page.samplesperpixel), page.bitspersample
    if pages > 1 and (channel_pages or not first_page):
        return f"holds {pages} pages"
    if page.dtype is None or bits < 8 or page.imagedepth != 1:
        return f"has {bits} bits a sample" if page.imagedepth == 1 else "is a volume"
    if orientation_of(page) != 1:
        return "is stored turned"
    if read_by_segments(page):
        return None
    if photometric not in (MIN_IS_BLACK, RGB):
        return NAMES.get(photometric, f"has colours of kind {photometric}")
    if not as_bands and ((page.dtype == np.uint8 and samples not in (1, 3)) or (page.dtype == np.uint16 and has_transparency(page))):
        return TRANSPARENT
    return None
