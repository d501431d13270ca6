"""What is wanted of every pixel: masks of classes and maps of numbers, from the files that people keep them in.

    masks        .png (grey or palette: the number itself, never its colour), .tif, .npy, .npz                int32 [height, width]
    numbers      .npy, .npz, .tif, .pfm, 16-bit .png                                                        float32 [channels, height, width]
    disparity    .pfm, KITTI's 16-bit .png (value / 256, 0: none), .npy, .npz, .tif                         float32 [1, height, width]
    flow         .flo, KITTI's 3 x 16-bit .png ((value - 2^15) / 64), .npy, .npz                            float32 [2, height, width]

A pixel without a value is NaN in every channel, whatever the file calls it. Files are foreign: what a header states is checked against the bytes
that are there before memory is taken.
"""

from __future__ import annotations

import io
import logging
import math
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput, MissingDependency
from headstart.core.files import read_bounded
from headstart.core.listing import readable
from headstart.core.machine import refuse_limits
from headstart.core.words import first_line
from headstart.data.arrays import HEADER_ERRORS
from headstart.data.image.matching_files import MAX_BYTES, checked_disparity, read_disparity, read_flow, read_pfm
from headstart.data.image.opening import deep_samples, is_deep_png, read_header, refuse_missing_segments

MAX_PIXELS = 178_000_000
"""Of one map, as of one image."""
MAX_CHANNELS = 1024
ARRAYS = (".npy", ".npz")
TIFFS = (".tif", ".tiff")
MASKS = (".png", *TIFFS, *ARRAYS)
NUMBERS = (".png", ".pfm", *TIFFS, *ARRAYS)
DISPARITIES = (".pfm", ".png", *TIFFS, *ARRAYS)
FLOWS = (".flo", ".png", *ARRAYS)
KITTI_FLOW_ZERO, KITTI_FLOW_SCALE = 2**15, 64.0


def read_mask(path: str | Path) -> np.ndarray:
    """int32 [height, width]: the class of every pixel; negative numbers mean none.

    Raises:
        BadInput: another kind of file, colours instead of numbers, damaged.
    """
    path = Path(path)
    suffix = _suffix(path, MASKS, "mask of classes")
    values = _png_numbers(path) if suffix == ".png" else _planes(path, suffix)
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2:
        mend = "Write the number of its class at every pixel, not a colour; a palette may stay."
        raise BadInput(f"has {len(values)} channels, a mask has one number a pixel.", mend, file=readable(path))
    if values.dtype.kind == "f":
        if not np.isfinite(values).all() or (values != np.round(values)).any():
            raise BadInput("holds fractions or NaN, a mask holds numbers of classes.", "Write whole numbers.", file=readable(path))
    elif values.dtype.kind not in "iub":
        raise BadInput(f"holds values of type {values.dtype}.", "Write whole numbers.", file=readable(path))
    if values.size and (values.max() >= 2**31 or values.min() < -(2**31)):
        raise BadInput(f"holds the number {values.max()}.", "Number the classes from 0.", file=readable(path))
    return values.astype(np.int32)


def read_numbers(path: str | Path, unit: float = 1.0, nothing: float | None = None, channels: int | None = None) -> np.ndarray:
    """float32 [channels, height, width]: numbers of every pixel, NaN where there is none.

    Args:
        unit: what one stands for in the file's values: 1000 for metres in millimetres (values are divided by it).
        nothing: a value that means none, as it stands in the file (0 of a depth camera).
        channels: how many there must be, which tells the axis that they are on; None: they are on the shorter of the first and the last.

    Raises:
        BadInput: another kind of file, damaged, or without a single number.
    """
    path = Path(path)
    suffix = _suffix(path, NUMBERS, "map of numbers")
    values = read_pfm(path) if suffix == ".pfm" else _png_numbers(path) if suffix == ".png" else _planes(path, suffix, channels)
    values = values[None] if values.ndim == 2 else values
    if values.dtype.kind not in "iufb":
        raise BadInput(f"holds values of type {values.dtype}.", "Write numbers.", file=readable(path))
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if nothing is not None:
        found[:, (values == nothing).any(0)] = np.nan
    found[:, ~np.isfinite(found).all(0)] = np.nan
    if np.isnan(found).all():
        raise BadInput("has no number at any pixel.", "Leave it out, or correct which value means none.", file=readable(path))
    return found / np.float32(unit)


def read_disparities(path: str | Path) -> np.ndarray:
    """float32 [1, height, width]; see `matching_files.read_disparity` for what is refused."""
    path = Path(path)
    suffix = _suffix(path, DISPARITIES, "map of disparity")
    if suffix in (".pfm", ".png"):
        return read_disparity(path)
    found = read_numbers(path)
    if len(found) != 1:
        raise BadInput(f"has {len(found)} channels, disparity one.", "Give the disparity of the left view alone.", file=readable(path))
    return checked_disparity(found[0], path)


def read_flows(path: str | Path) -> np.ndarray:
    """float32 [2, height, width]: how far each pixel moves to the right and down.

    Raises:
        BadInput: another kind of file, or not two channels.
    """
    path = Path(path)
    suffix = _suffix(path, FLOWS, "map of flow")
    found = read_flow(path) if suffix == ".flo" else _kitti_flow(path) if suffix == ".png" else read_numbers(path, channels=2)
    if len(found) != 2:
        raise BadInput(f"has {len(found)} channels, flow two.", "Give [height, width, 2] or [2, height, width]: right, down.", file=readable(path))
    return found


READERS: dict[str, Callable[..., np.ndarray]] = {
    "segmentation": read_mask, "dense-regression": read_numbers, "depth": read_numbers, "stereo": read_disparities, "flow": read_flows,
}  # fmt: skip
"""Task -> what reads its targets."""


def _suffix(path: Path, known: tuple[str, ...], what: str) -> str:
    suffix = path.suffix.lower()
    if suffix not in known:
        raise BadInput(f"is no {what} by its suffix ({suffix or 'none'}).", f"Known: {' '.join(known)}.", file=readable(path))
    return suffix


def _refuse_size(shape: tuple[int, ...], itemsize: int, path: Path) -> None:
    channels, pixels = (1, math.prod(shape)) if len(shape) < 3 else (shape[0], math.prod(shape[1:]))
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise BadInput(f"is an array of the shape {shape}.", "Give [height, width], or channels in front or behind.", file=readable(path))
    if pixels > MAX_PIXELS or channels > MAX_CHANNELS or channels * pixels * itemsize > MAX_BYTES:
        raise BadInput(f"states the shape {shape}, which is too large.", "Cut it into smaller maps.", file=readable(path))


def _channels_first(values: np.ndarray, path: Path, channels: int | None) -> np.ndarray:
    """[height, width], or [channels, height, width]: the channels are on the axis that has so many, or the shorter of the first and the last."""
    first, last = (values.shape[0], values.shape[2]) if values.ndim == 3 else (0, 0)
    known = channels is not None and (first == channels) != (last == channels)
    if values.ndim == 3 and (last == channels if known else last < first):
        values = values.transpose(2, 0, 1)
    elif values.ndim == 3 and last == first:
        raise BadInput(f"has the shape {values.shape}: its channels may be first or last.", "Write [channels, height, width].", file=readable(path))
    _refuse_size(values.shape, values.itemsize, path)
    return values


def _planes(path: Path, suffix: str, channels: int | None = None) -> np.ndarray:
    data = read_bounded(path, MAX_BYTES, "map")
    if suffix in TIFFS:
        return _channels_first(_tiff(data, path), path, channels)
    if suffix == ".npz":
        data = _only_member(data, path)
    return _channels_first(_npy(data, path), path, channels)


def _npy(data: bytes, path: Path) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = read_header(stream)
        whole = not dtype.hasobject and min(shape, default=1) > 0 and math.prod(shape) * dtype.itemsize == len(data) - stream.tell()
    except HEADER_ERRORS as error:
        raise BadInput(f"is no .npy file that is read ({first_line(error)}).", "Write it with numpy.save.", file=readable(path)) from error
    if not whole:
        raise BadInput("is cut off, or holds Python objects.", "Write it again with numpy.save.", file=readable(path))
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _only_member(data: bytes, path: Path) -> bytes:
    """The bytes of the one array of a .npz file; what it states as its size is checked first."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            if len(names) != 1:
                listed = ", ".join(entry.filename for entry in names[:5])
                raise BadInput(f"holds {len(names)} arrays ({listed}).", "Give a file with one array.", file=readable(path))
            if names[0].file_size > MAX_BYTES:
                raise BadInput(f"states an array of {names[0].file_size:,} bytes.", "Cut it into smaller maps.", file=readable(path))
            with archive.open(names[0]) as member:
                return member.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError, *HEADER_ERRORS) as error:
        raise BadInput(f"is no .npz file that is read ({first_line(error)}).", "Write it with numpy.savez.", file=readable(path)) from error


def _tiff(data: bytes, path: Path) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise MissingDependency("tifffile", "image", "Reading TIFF") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it also raises
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            if page.dtype is None or page.imagedepth != 1 or int(page.photometric) == 3:
                raise ValueError("its samples are no numbers of a plane")
            samples = int(page.samplesperpixel)
            _refuse_size((samples, page.imagelength, page.imagewidth), page.dtype.itemsize, path)
            refuse_missing_segments(page)
            return np.asarray(page.asarray())
    except BadInput:
        raise
    except Exception as error:  # a decoder of foreign bytes may raise anything
        refuse_limits(error, path)
        raise BadInput(f"is no TIFF that is read ({first_line(error)}).", "Write it again.", file=readable(path)) from error


def _png_numbers(path: Path) -> np.ndarray:
    """uint8 or uint16 [height, width] of a PNG of one channel (of a palette its numbers); [channels, height, width] of colours."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingDependency("pillow", "image", "Reading PNG") from None
    data = read_bounded(path, MAX_BYTES, "map")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            _refuse_size((picture.height, picture.width), 8, path)
            values: Any = deep_samples(data) if is_deep_png(data) else np.asarray(picture)
            mode = picture.mode
    except (BadInput, MissingDependency):
        raise
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise BadInput("is no PNG, or damaged where it begins.", "Write it again.", file=readable(path)) from error
    except Exception as error:  # a decoder of foreign bytes may raise anything
        refuse_limits(error, path)
        raise BadInput(f"is no PNG that is read ({first_line(error)}).", "Write it again.", file=readable(path)) from error
    if mode == "1":
        return values.astype(np.uint8)
    return values.transpose(2, 0, 1) if values.ndim == 3 else values


def _kitti_flow(path: Path) -> np.ndarray:
    """KITTI's flow: three channels of 16 bits, which Pillow cannot read."""
    try:
        import imagecodecs
    except ImportError:
        raise MissingDependency("imagecodecs", "image", "Reading 16-bit colours") from None
    data = read_bounded(path, MAX_BYTES, "map of flow")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))  # of the first chunk, IHDR
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise BadInput("is no PNG.", "Copy it again.", file=readable(path))
    _refuse_size((3, height, width), 2, path)
    try:
        values = imagecodecs.png_decode(data)
    except Exception as error:  # a decoder of foreign bytes may raise anything
        refuse_limits(error, path)
        raise BadInput(f"is no PNG that is read ({error}).", "Copy it again.", file=readable(path)) from error
    if values.shape != (height, width, 3) or values.dtype != np.uint16:
        raise BadInput(f"is a PNG of {values.dtype}, {values.shape}.", "KITTI's flow has three channels of 16 bits.", file=readable(path))
    flow = (values[..., :2].astype(np.float32).transpose(2, 0, 1) - KITTI_FLOW_ZERO) / KITTI_FLOW_SCALE
    flow[:, values[..., 2] == 0] = np.nan
    return flow
