"""Ground truth of stereo and flow: `.flo` (Middlebury, Sintel), `.pfm` (Middlebury, Scene Flow) and 16-bit `.png` (KITTI, value / 256, 0: none).

What has no value is NaN in every channel, whatever the file calls it: infinite, NaN, above 1e9 in a .flo, 0 in KITTI's. Files are foreign: what a
header states is checked against the file before memory is taken.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import read_bounded
from headstart.core.listing import readable
from headstart.core.words import first_line

MAX_BYTES = 2**30
FLO_MAGIC = b"PIEH"
UNKNOWN_FLOW = 1e9
KITTI_SCALE = 256.0


def read_flow(path: str | Path) -> np.ndarray:
    """float32 [2, height, width]: how far each pixel moves to the right and down, in pixels.

    Raises:
        BadInput: it is no .flo file, or cut off.
    """
    path = Path(path)
    data = read_bounded(path, MAX_BYTES, "map of flow")
    if data[:4] != FLO_MAGIC or len(data) < 12:
        raise BadInput("is no .flo file.", "Its first four bytes are PIEH.", file=readable(path))
    width, height = (int(side) for side in np.frombuffer(data, "<i4", 2, 4))
    if min(width, height) < 1 or len(data) != 12 + 8 * width * height:
        raise BadInput(f"says {width} x {height} pixels, and has {len(data):,} bytes.", "Copy it again.", file=readable(path))
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1).copy()
    flow[:, (~np.isfinite(flow) | (np.abs(flow) > UNKNOWN_FLOW)).any(0)] = np.nan
    return flow


def read_disparity(path: str | Path) -> np.ndarray:
    """float32 [1, height, width]: how far the same point lies to the left in the right view, in pixels.

    Raises:
        BadInput: neither .pfm nor a 16-bit .png; most values are negative (the views are swapped, or it is depth); one is above the width.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".pfm", ".png"):
        raise BadInput(f"is no map of disparity by its suffix ({suffix or 'none'}).", "Give .pfm, or KITTI's 16-bit .png.", file=readable(path))
    return checked_disparity(read_pfm(path) if suffix == ".pfm" else _kitti(path), path)


def checked_disparity(values: np.ndarray, path: Path) -> np.ndarray:
    """float32 [1, height, width] of [height, width], NaN where there is no number.

    Raises:
        BadInput: most values are negative, or one is above the width.
    """
    values = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    known = values[~np.isnan(values)]
    if known.size and np.mean(known < 0) > 0.5:
        mend = "Swap left and right; or change the sign, if the file has it the other way round."
        raise BadInput("has mostly negative disparities.", mend, file=readable(path))
    if known.size and known.max() > values.shape[1]:
        what = f"has disparities up to {known.max():,.0f}, in an image of {values.shape[1]} pixels."
        raise BadInput(what, "KITTI's values are to be divided by 256; depth is no disparity.", file=readable(path))
    return values[None]


def read_pfm(path: Path) -> np.ndarray:
    """float [height, width] of a .pfm file of one channel, whose rows are stored from the bottom up.

    Raises:
        BadInput: it is none, or cut off.
    """
    stream = io.BytesIO(read_bounded(path, MAX_BYTES, "map of disparity"))
    try:
        magic, sides, scale = (stream.readline(64).decode("ascii").strip() for _ in range(3))
        width, height = (int(side) for side in sides.split())
        order = "<" if float(scale) < 0 else ">"
    except ValueError as error:
        raise BadInput(f"is no .pfm file ({error}).", "Copy it again.", file=readable(path)) from error
    data = stream.read()
    if magic != "Pf" or min(width, height) < 1 or len(data) != 4 * width * height:
        what = f"says {magic!r} and {width} x {height} pixels, and has {len(data):,} bytes of them."
        raise BadInput(what, "Give one channel (Pf), or copy it again.", file=readable(path))
    return np.frombuffer(data, f"{order}f4").reshape(height, width)[::-1]


def _kitti(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(read_bounded(path, MAX_BYTES, "map of disparity")), formats=("PNG",)) as picture:
            if not picture.mode.startswith("I;16") and picture.mode != "I":
                raise ValueError(f"its mode is {picture.mode}, not 16-bit grey")
            values = np.asarray(picture).astype(np.float32)
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise BadInput("is no PNG, or damaged where it begins.", "KITTI's are 16-bit PNG of one channel.", file=readable(path)) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"is no map of disparity ({first_line(error)}).", "KITTI's are 16-bit PNG of one channel.", file=readable(path)) from error
    return np.where(values > 0, values / KITTI_SCALE, np.nan)
