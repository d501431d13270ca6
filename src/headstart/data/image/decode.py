"""One image: bytes or an array -> [channels, size, size], the same for every image of a store. Bytes are foreign: what they state is checked before
memory is taken, and what a decoder raises becomes `Unusable`.

What is done without a word, because it loses nothing that can be seen: EXIF orientation is applied, palettes and CMYK become colours, transparency is
laid over white, a grey image in a colour store gets three equal channels. Colour profiles are not applied. 16-bit greys stay 16-bit; Pillow reads
16-bit colours of PNG as 8-bit.
"""

from __future__ import annotations

import io
import logging
import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np

from headstart.core.errors import MissingDependency
from headstart.core.hardware import memory_total
from headstart.core.machine import refuse_limits
from headstart.data.arrays import HEADER_ERRORS
from headstart.data.image.config import Fit, ImageConfig, Layout

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError:  # named in `require_libraries`
    Image = ImageOps = None  # type: ignore[assignment]
    UnidentifiedImageError = OSError  # type: ignore[assignment,misc]

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of what is opened. Others (PostScript runs a program) are not."""
DTYPES = ("uint8", "uint16", "float32")
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAKE_SMALLER = "Make it smaller, or raise --image.max-megapixels."
NPY_MAGIC = b"\x93NUMPY"
GDAL_NODATA = 42113
"""The tag in which a GeoTIFF says what pixels without data hold."""
WHOLE = 2**20
"""A size that no image has: none is decoded smaller than it is."""

Content: TypeAlias = bytes | np.ndarray


class Unusable(Exception):
    """An image that cannot be used: what is wrong, and how to mend it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what, self.mend = what, mend


@dataclass(frozen=True)
class Form:
    """What every image of a store is, and how one becomes it.

    Attributes:
        channels, size, dtype: of the result, [channels, size, size].
        colour: "rgb", "grey" or "bands".
        converts: colour images may become grey, because a person asked for grey.
        fit, bands, layout, first_frame, max_pixels, nodata: see `ImageConfig`.
    """

    channels: int
    size: int
    dtype: str
    colour: str
    converts: bool
    fit: Fit
    bands: tuple[int, ...]
    layout: Layout
    first_frame: bool
    max_pixels: int
    nodata: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    @property
    def nbytes(self) -> int:
        """Of one image."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"bands": list(self.bands)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Form:
        """Raises ValueError or TypeError where the fields are not those of a form: they may come from a stranger."""
        form = cls(**(fields | {"bands": tuple(fields["bands"])}))
        numbers = (form.channels, form.size, form.max_pixels, *form.bands)
        if not all(isinstance(number, int) and 0 < number < 2**31 for number in numbers) or form.dtype not in DTYPES:
            raise ValueError("no form of images")
        if form.colour not in ("rgb", "grey", "bands") or form.fit not in ("crop", "squash", "pad"):
            raise ValueError("no form of images")
        return form


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


def require_libraries() -> None:
    """Raises MissingDependency without Pillow."""
    if Image is None:
        raise MissingDependency("pillow", "image", "Reading images")


def form_of(content: Content, config: ImageConfig) -> Form:
    """The form that the first image of a store gives it.

    Raises:
        Unusable: it cannot be read.
    """
    form = _of_config(config)
    wants_bands = config.mode == "bands" or bool(config.bands)
    opened = _opened(content, replace(form, colour="bands" if wants_bands else "rgb"))
    planes = _planes(opened, form)
    colour = "bands" if wants_bands else config.mode
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
    )


def decode(content: Content, form: Form) -> Decoded:
    """An image in the form of its store.

    Args:
        content: the bytes of a file, or an array [height, width] or of three axes, one of them the channels.

    Raises:
        Unusable: it cannot be read, or does not fit the form.
        MachineError: this process has no memory or no file descriptors left.
    """
    opened = _opened(content, form)
    if isinstance(opened, np.ndarray):
        height, width = opened.shape[1:]
    else:
        width, height = opened.size
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
    return _as_planes(_opened(content, replace(form, size=WHOLE, colour="bands" if config.mode == "bands" or config.bands else "rgb")))


def decode_whole(content: Content, form: Form) -> np.ndarray:
    """[channels, height, width]: an image in the colours and the type of its store, at its own size.

    Raises:
        as `decode`.
    """
    form = replace(form, size=WHOLE)
    opened = _opened(content, form)
    if isinstance(opened, np.ndarray) or opened.mode in ("I;16", "F") or form.bands:
        return np.ascontiguousarray(_coloured(_planes(opened, form), form))
    _refuse_dtype(np.dtype(np.uint8), form)
    pixels = np.asarray(_as_colours(opened, form))
    return np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


# --- opening ------------------------------------------------------------------------------------------------------------------------------------


def _opened(content: Content, form: Form) -> Any:
    """A picture of Pillow of mode L, RGB, I;16 or F, upright; or an array [channels, height, width].

    Raises Unusable.
    """
    if isinstance(content, np.ndarray):
        return _channels_first(content, form)
    if not content:
        raise Unusable("is empty.", "Remove it, or copy it again if the copy was cut off.")
    try:
        if content[:6] == NPY_MAGIC:
            return _channels_first(_npy(content), form)
        if content[:4] in TIFF_MAGIC and (planes := _tiff(content, form)) is not None:
            return planes
        return _picture(content, form)
    except (Unusable, MissingDependency):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, twice ours
        raise Unusable(f"has more than {form.max_pixels / 1e6:g} million pixels.", MAKE_SMALLER) from error
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise Unusable("is no image of a kind that is read.", "Convert it, for example to PNG, or remove it.") from error
    except Exception as error:  # a decoder of foreign bytes may raise anything
        refuse_limits(error, "an image")
        raise Unusable(f"is no image, damaged, or cut off ({_first_line(error)}).", "Copy or export it again, or remove it.") from error


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _picture(content: bytes, form: Form) -> Any:
    picture = Image.open(io.BytesIO(content), formats=formats())
    width, height = picture.size
    _refuse_size(height, width, 4, 1, form)
    if picture.format not in ("MPO", "TIFF") and getattr(picture, "is_animated", False):  # an MPO's other pictures are previews of its first
        _refuse_pages("several pictures (an animation)", form)
    if picture.format in ("JPEG", "MPO") and picture.mode in ("L", "RGB"):
        picture.draft(picture.mode, (2 * form.size, 2 * form.size))  # a large photograph is decoded at a half, quarter or eighth: still twice `size`
    picture.load()
    ImageOps.exif_transpose(picture, in_place=True)
    return _flat(picture)


def _flat(picture: Any) -> Any:
    """The picture in mode L, RGB, I;16 or F: palettes looked up, transparency laid over white."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return picture if mode == "I;16" else Image.fromarray(np.asarray(picture).astype(np.uint16))
    if mode == "I":
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise Unusable(f"holds values from {values.min()} to {values.max()}.", "Store it as 8-bit, 16-bit or 32-bit float.")
        return Image.fromarray(values.astype(np.uint16))
    if mode in ("L", "RGB", "F"):
        if "transparency" not in picture.info or mode == "F":
            return picture
        mode = picture.mode + "A"
    if mode == "1":
        return picture.convert("L")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA", "LAA") or (mode == "P" and "transparency" in picture.info):
        grey = mode in ("LA", "La")
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        flat = Image.alpha_composite(white, picture).convert("RGB")
        return flat.getchannel(0) if grey else flat
    if mode in ("P", "CMYK", "YCbCr", "HSV", "RGBX"):
        return picture.convert("RGB")
    raise Unusable(f"has the colour mode {mode}, which is not read.", "Convert it to RGB or grey.")


def _npy(content: bytes) -> np.ndarray:
    stream = io.BytesIO(content)
    try:
        shape, fortran, dtype = read_header(stream)
    except HEADER_ERRORS as error:
        raise Unusable(f"is no .npy file that is read ({_first_line(error)}).", "Write it with numpy.save.") from error
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise Unusable("is cut off, or holds Python objects.", "Write it again with numpy.save.")
    flat = np.frombuffer(content, dtype, offset=stream.tell())
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def read_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) of a .npy file, whose `stream` then stands at its values. Raises one of `HEADER_ERRORS`."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"format version {version}")


def _tiff(content: bytes, form: Form) -> np.ndarray | None:
    """[bands, height, width] of a TIFF; None for an ordinary picture, which Pillow reads: palette, CMYK, YCbCr, 1-bit, and 8-bit grey or colour."""
    try:
        import tifffile
    except ImportError:
        raise MissingDependency("tifffile", "image", "Reading TIFF") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it also raises
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        samples, extra = int(page.samplesperpixel), [int(kind) for kind in page.extrasamples]
        pages = sum(not int(getattr(other, "subfiletype", 0) or 0) & 5 for other in file.pages)  # neither a smaller copy nor a mask
        channel_pages = pages > 1 and file.series[0].axes == "CYX"  # a page a channel
        if pages > 1 and not channel_pages:
            _refuse_pages(f"{pages} pages", form)
        if int(page.photometric) in (3, 5, 6, 8) or page.bitspersample == 1:  # palette, CMYK, YCbCr, Lab
            return None
        is_picture = page.dtype == np.uint8 and not channel_pages and (samples in (1, 3) or (samples in (2, 4) and extra in ([1], [2])))
        if is_picture and form.colour != "bands":
            return None
        if page.dtype is None:
            raise Unusable(f"has {page.bitspersample} bits a sample, which is not read.", "Store it as 8-bit, 16-bit or 32-bit float.")
        if page.imagedepth != 1:
            raise Unusable("is a volume.", "Write its slices to files of their own.")
        _refuse_size(page.imagelength, page.imagewidth, pages if channel_pages else samples, page.dtype.itemsize, form)
        array = np.asarray(file.series[0].asarray() if channel_pages else page.asarray())
        stated = page.tags.get(GDAL_NODATA)
    if array.ndim == 3 and int(page.planarconfig) == 1 and not channel_pages:
        array = array.transpose(2, 0, 1)  # written pixel by pixel; band by band it is [bands, height, width] already
    planes = array if array.ndim == 3 else array[None]
    if form.nodata is None and stated is not None and (gaps := _equal(planes, str(stated.value))).any():
        return np.ma.masked_array(planes, gaps)
    return planes


def _equal(planes: np.ndarray, nodata: str) -> np.ndarray:
    """bool: where the bands hold this number; nowhere where it is none."""
    try:
        value = float(nodata.strip("\0 "))
    except ValueError:
        return np.zeros(planes.shape, bool)
    if planes.dtype.kind != "f":
        return planes == value
    with np.errstate(over="ignore"):
        return np.isnan(planes) if math.isnan(value) else planes == planes.dtype.type(value)  # a file of float32 may write it with more digits


def _refuse_pages(what: str, form: Form) -> None:
    if not form.first_frame:
        raise Unusable(f"holds {what}.", "Write each to a file of its own, or take the first: --image.animated first.")


def _refuse_size(height: int, width: int, bands: int, itemsize: int, form: Form) -> None:
    if height < 1 or width < 1:
        raise Unusable(f"is {width} x {height} pixels.", "Remove it.")
    if height * width > form.max_pixels:
        raise Unusable(
            f"is {width:,} x {height:,}, more than {form.max_pixels / 1e6:g} million pixels.", MAKE_SMALLER
        )
    room = (memory_total() or 2**33) // 10
    if height * width * bands * itemsize > room:
        raise Unusable(f"would take {height * width * bands * itemsize / 1e6:,.0f} MB of memory.", "Cut it into smaller images.")


# --- channels -----------------------------------------------------------------------------------------------------------------------------------


def _planes(opened: Any, form: Form) -> np.ndarray:
    """[channels, height, width] of type uint8, uint16 or float32; the chosen bands, gaps filled."""
    return _planes_and_gaps(opened, form)[0]


def _planes_and_gaps(opened: Any, form: Form) -> tuple[np.ndarray, float]:
    """The same, and the share of the pixels that had no data."""
    planes = _as_planes(opened)
    _refuse_size(planes.shape[1], planes.shape[2], len(planes), planes.dtype.itemsize, form)
    if len(planes) == 0:
        raise Unusable("has no band.", "Remove it.")
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
    raise Unusable(f"holds values of type {planes.dtype}.", "Store it as uint8, uint16 or float32.")


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
        gaps = _equal(planes, nodata)
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


def _channels_first(array: np.ndarray, form: Form) -> np.ndarray:
    if array.ndim == 2:
        return array[None]
    if array.ndim != 3:
        raise Unusable(f"is an array of {array.ndim} axes.", "An image has two (height, width), or three with its channels.")
    layout = form.layout
    if layout == "auto":
        if array.shape[0] == array.shape[2]:
            mend = "Say it: --image.layout channels-first or channels-last."
            raise Unusable(f"is an array of {array.shape}: its channels may be first or last.", mend)
        layout = "channels-first" if array.shape[0] < array.shape[2] else "channels-last"
    return array if layout == "channels-first" else array.transpose(2, 0, 1)


def _coloured(planes: np.ndarray, form: Form) -> np.ndarray:
    """The planes as the store's colour; refused where that is not what they are."""
    _refuse_dtype(planes.dtype, form)
    if len(planes) == form.channels:
        return planes
    if form.colour == "rgb" and len(planes) == 1:
        return np.repeat(planes, 3, 0)
    if form.colour == "grey" and len(planes) == 3 and form.converts and planes.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0))).convert("L"))[None]
    if form.colour == "grey" and len(planes) == 3:
        raise _is_colour()
    raise Unusable(f"has {counted(len(planes))}; the store has {form.channels}.", "Leave it out, or choose the bands that all have: --image.bands.")


def _refuse_dtype(dtype: np.dtype[Any], form: Form) -> None:
    if str(dtype) != form.dtype:
        raise Unusable(f"holds {dtype} values; the store, as its first image, {form.dtype}.", "Convert it, or prepare it into a store of its own.")


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


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:200]
