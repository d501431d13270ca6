"""One image: bytes or an array -> [channels, size, size], the same for every image of a store. `opening` reads the bytes.

What is done without a word, because it loses nothing that can be seen: EXIF orientation is applied, palettes and CMYK become colours, transparency is
laid over white, a grey image in a colour store gets three equal channels. Colour profiles are not applied. 16-bit greys and colours stay 16-bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.data.image.config import ImageConfig
from headstart.data.image.form import Content, Form, Unusable
from headstart.data.image.opening import FILE_SIZE, Image, holds, open_content, refuse_size

WHOLE = 2**20
"""A size that no image has: none is decoded smaller than it is."""


@dataclass
class Decoded:
    """An image in the form of its store.

    Attributes:
        pixels: [channels, size, size].
        height, width: of the file.
        missing: share of its pixels that had no data, and have the mean of their band now.
    """

    pixels: np.ndarray
    height: int
    width: int
    missing: float = 0.0


def form_of(content: Content, config: ImageConfig, deep: bool = True) -> Form:
    """The form that the first image of a store gives it.

    Args:
        deep: see `Form`.

    Raises:
        Unusable: it cannot be read.
    """
    form = replace(_of_config(config), deep=deep)
    opened = open_content(content, replace(form, colour="bands" if form.as_bands else "rgb"))
    planes = _planes(opened, form)
    colour = "bands" if form.as_bands else config.mode
    if colour == "auto":
        colour = "grey" if len(planes) == 1 else "rgb" if len(planes) == 3 and planes.dtype == np.uint8 else "bands"
    channels = {"grey": 1, "rgb": 3, "bands": len(planes)}[colour]
    return replace(form, channels=channels, dtype=str(planes.dtype), colour=colour)


def _of_config(config: ImageConfig) -> Form:
    """What the settings decide of a form before an image is seen."""
    return Form(
        channels=1,
        size=config.size,
        dtype="uint8",
        colour="bands",
        converts=config.mode == "grey",
        fit=config.fit,
        bands=config.bands,
        layout=config.layout,
        first_frame=config.animated == "first",
        max_pixels=int(config.max_megapixels * 1e6),
        nodata=config.nodata,
        as_bands=config.mode == "bands" or bool(config.bands),
    )


def decode(content: Content, form: Form, prepared: bool = False) -> Decoded:
    """An image in the form of its store.

    Args:
        content: the bytes of a file, or an array [height, width] or of three axes, one of them the channels.
        prepared: it comes from the store itself, and is not looked at again for what its preparation judged.

    Raises:
        Unusable: it cannot be read, or does not fit the form.
        MachineError: this process has no memory or no file descriptors left.
    """
    opened = open_content(content, form, prepared)
    if isinstance(opened, np.ndarray):
        height, width = opened.shape[1:]
    else:
        width, height = opened.info.get(FILE_SIZE, opened.size)
    if isinstance(opened, np.ndarray) or opened.mode in ("I;16", "F") or form.bands or form.nodata is not None:
        planes, missing = _planes_and_gaps(opened, form)
        return Decoded(_fitted_planes(_coloured(planes, form), form), height, width, missing)
    _refuse_dtype(np.dtype(np.uint8), form)
    pixels = np.asarray(_fitted_picture(_as_colours(opened, form), form))
    return Decoded(np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), height, width)


def whole_planes(content: Content, config: ImageConfig) -> np.ndarray:
    """[bands, height, width]: all of an image at its own size, in its own type, masked where a GeoTIFF says that there is no data.

    Raises:
        as `decode`.
    """
    form = _of_config(config)
    return _as_planes(open_content(content, replace(form, size=WHOLE, colour="bands" if form.as_bands else "rgb")))


def decode_whole(content: Content, form: Form) -> np.ndarray:
    """[channels, height, width]: an image in the colours and the type of its store, at its own size.

    Raises:
        as `decode`.
    """
    form = replace(form, size=WHOLE)
    opened = open_content(content, form)
    if isinstance(opened, np.ndarray) or opened.mode in ("I;16", "F") or form.bands or form.nodata is not None:
        return np.ascontiguousarray(_coloured(_planes(opened, form), form))
    _refuse_dtype(np.dtype(np.uint8), form)
    pixels = np.asarray(_as_colours(opened, form))
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


# --- channels -----------------------------------------------------------------------------------------------------------------------------------


def _planes(opened: Any, form: Form) -> np.ndarray:
    """[channels, height, width] of type uint8, uint16 or float32; the chosen bands, gaps filled."""
    return _planes_and_gaps(opened, form)[0]


def _planes_and_gaps(opened: Any, form: Form) -> tuple[np.ndarray, float]:
    """The same, and the share of the pixels that had no data."""
    planes = _as_planes(opened)
    refuse_size(planes.shape[1], planes.shape[2], len(planes), planes.dtype.itemsize, form)
    if len(planes) == 0:
        raise Unusable("has no band.", "Remove it.")
    if planes.dtype.kind not in "uif":
        raise _other_type(planes.dtype)
    if form.bands:
        if max(form.bands) > len(planes):
            raise Unusable(f"has {counted(len(planes))}; band {max(form.bands)} is asked for.", "Correct --image.bands, or remove it.")
        planes = planes[[band - 1 for band in form.bands]]
    planes, missing = _filled(planes, form.nodata)
    kind, bits = planes.dtype.kind, 8 * planes.dtype.itemsize
    if kind == "u" and bits <= 16:
        return planes.astype(planes.dtype.newbyteorder("="), copy=False), missing
    if kind == "f" or (kind == "i" and bits <= 16):
        with np.errstate(over="ignore"):
            planes = planes.astype(np.float32)
        if not np.isfinite(planes).all():
            what = "holds values that are no finite numbers (NaN or infinite)."
            raise Unusable(what, "Say that these are gaps, which are filled: --image.nodata nan.")
        return planes, missing
    raise _other_type(planes.dtype)


def _other_type(dtype: np.dtype[Any]) -> Unusable:
    return Unusable(f"holds values of type {str(dtype)[:80]}.", "Store it as uint8, uint16 or float32.")


def _as_planes(opened: Any) -> np.ndarray:
    """What was opened as [channels, height, width]."""
    if isinstance(opened, np.ndarray):
        return opened
    array = np.asarray(opened)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _filled(planes: np.ndarray, nodata: str | None) -> tuple[np.ndarray, float]:
    """(bands whose gaps have the mean of the rest of their band, share of the pixels with a gap).

    Args:
        planes: a masked array where the file itself says which pixels have no data.
        nodata: what those hold, in every band; NaN counts for each band alone.
    """
    gaps = np.ma.getmaskarray(planes)
    planes = np.ma.getdata(planes)
    if nodata is not None:
        gaps = holds(planes, nodata)
        if not math.isnan(float(nodata)):
            gaps = np.broadcast_to(gaps.all(0), planes.shape)
    if not gaps.any():
        return planes, 0.0
    result = planes.copy()
    for band, of_band in zip(result, gaps, strict=True):
        there = band[~of_band]
        mean = there.mean(dtype=np.float64) if there.size else 0.0
        band[of_band] = mean if planes.dtype.kind == "f" else round(mean)
    return result, float(gaps.any(0).mean())


def counted(bands: int) -> str:
    return "1 band" if bands == 1 else f"{bands} bands"


def _coloured(planes: np.ndarray, form: Form) -> np.ndarray:
    """The planes as the store's colour; refused where that is not what they are."""
    _refuse_dtype(planes.dtype, form)
    if len(planes) == form.channels:
        return planes
    if form.colour == "rgb" and len(planes) == 1:
        return np.repeat(planes, 3, 0)
    if form.colour == "grey" and len(planes) == 3 and form.converts and planes.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).convert("L"))[None]
    if form.colour == "grey" and len(planes) == 3 and form.converts and planes.dtype == np.uint16:
        red, green, blue = planes.astype(np.uint32)
        return ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(np.uint16)[None]  # as Pillow weighs 8 bits
    if form.colour == "grey" and len(planes) == 3:
        raise _is_colour()
    raise Unusable(f"has {counted(len(planes))}; the store has {form.channels}.", "Leave it out, or choose the bands that all have: --image.bands.")


def _refuse_dtype(dtype: np.dtype[Any], form: Form) -> None:
    if str(dtype) != form.dtype:
        raise Unusable(f"holds {dtype} values; the first image, and so all, {form.dtype}.", "Convert it, or prepare it into a store of its own.")


def _is_colour() -> Unusable:
    return Unusable("is in colour; the store is grey, as its first image is.", "Give --image.mode rgb, or grey to convert it.")


def _as_colours(picture: Any, form: Form) -> Any:
    """A picture of mode L or RGB with the store's channels."""
    have = len(picture.getbands())
    if form.colour == "bands" and have != form.channels:
        raise Unusable(f"has {counted(have)}; the store has {form.channels}.", "Leave it out, or choose the bands: --image.bands.")
    if form.colour == "grey" and have == 3:
        if not form.converts:
            raise _is_colour()
        return picture.convert("L")
    return picture.convert("RGB") if form.colour == "rgb" and have == 1 else picture


# --- size -----------------------------------------------------------------------------------------------------------------------------------------


def _boxes(height: int, width: int, form: Form) -> tuple[tuple[float, float, float, float], tuple[int, int], tuple[int, int]]:
    """(box that is kept (left, top, right, bottom), its new (width, height), where it goes (left, top))."""
    size = form.size
    if form.fit == "squash":
        return (0, 0, width, height), (size, size), (0, 0)
    if form.fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        return (left, top, left + side, top + side), (size, size), (0, 0)
    longer = max(height, width)
    new = (max(1, round(size * width / longer)), max(1, round(size * height / longer)))
    return (0, 0, width, height), new, ((size - new[0]) // 2, (size - new[1]) // 2)


def _fitted_picture(picture: Any, form: Form) -> Any:
    box, new, place = _boxes(picture.height, picture.width, form)
    if picture.size != (form.size, form.size):
        picture = picture.resize(new, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if new == (form.size, form.size):
        return picture
    padded = Image.new(picture.mode, (form.size, form.size))
    padded.paste(picture, place)
    return padded


def _fitted_planes(planes: np.ndarray, form: Form) -> np.ndarray:
    height, width = planes.shape[1:]
    if (height, width) == (form.size, form.size):
        return np.ascontiguousarray(planes)
    box, new, (left, top) = _boxes(height, width, form)
    result = np.zeros(form.shape, form.dtype)
    for plane, target in zip(planes, result, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(plane if form.dtype == "uint8" else plane.astype(np.float32)))
        resized = np.asarray(picture.resize(new, Image.Resampling.BICUBIC, box=box, reducing_gap=3.0))
        if form.dtype == "uint16":
            resized = np.rint(resized).clip(0, 65535)
        target[top : top + new[1], left : left + new[0]] = resized
    return result
