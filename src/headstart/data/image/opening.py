"""The bytes of an image file, or an array -> a picture of Pillow, or planes. Bytes are foreign: what they state is checked before memory is taken,
and what a decoder raises becomes `Unusable`."""

from __future__ import annotations

import io
import logging
import math
from functools import cache
from typing import Any

import numpy as np

from headstart.core.errors import MissingDependency
from headstart.core.hardware import memory_total
from headstart.core.machine import refuse_limits
from headstart.core.words import first_line
from headstart.data.arrays import HEADER_ERRORS
from headstart.data.image.form import Content, Form, Unusable

try:
    from PIL import Image, ImageOps, UnidentifiedImageError
except ImportError:  # named in `require_libraries`
    Image = ImageOps = None  # type: ignore[assignment]
    UnidentifiedImageError = OSError  # type: ignore[assignment,misc]

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Pillow's names of what is opened. Others (PostScript runs a program) are not."""
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAKE_SMALLER = "Make it smaller, or raise --image.max-megapixels."
NPY_MAGIC = b"\x93NUMPY"
GDAL_NODATA = 42113
"""The tag in which a GeoTIFF says what pixels without data hold."""
ORIENTATION = 274
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
JPEG = 7
PREMULTIPLIED, STRAIGHT = 1, 2
"""Of TIFF: the tag, kinds of colours, a compression, kinds of transparency."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_BITS, PNG_COLOUR, GREY_AND_ALPHA = 24, 25, 4
"""Where a PNG says how many bits its samples have and what its colours are, and one of these."""
DEEP_COLOURS = (2, GREY_AND_ALPHA, 6)
"""Those of which Pillow reads 16 bits as 8: colours, and what is with transparency."""
logger = logging.getLogger(__name__)
FILE_SIZE = "headstart_file_size"
"""Where an opened picture's `info` keeps its own (width, height): a large JPEG is decoded smaller."""


def require_libraries() -> None:
    """Raises MissingDependency without Pillow."""
    if Image is None:
        raise MissingDependency("pillow", "image", "Reading images")


def open_content(content: Content, form: Form, prepared: bool = False) -> Any:
    """A picture of Pillow of mode L, RGB, I;16 or F, upright; or an array [channels, height, width].

    Args:
        prepared: it comes from a store, whose preparation looked whether its data ends too early.

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
        return _picture(content, form, prepared)
    except (Unusable, MissingDependency):
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, twice ours
        raise Unusable(f"has more than {form.max_pixels / 1e6:g} million pixels.", MAKE_SMALLER) from error
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise Unusable("is no image of a kind that is read.", "Convert it, for example to PNG, or remove it.") from error
    except Exception as error:  # a decoder of foreign bytes may raise anything
        refuse_limits(error, "an image")
        raise Unusable(f"is no image, damaged, or cut off ({first_line(error)}).", "Copy or export it again, or remove it.") from error


@cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _picture(content: bytes, form: Form, prepared: bool) -> Any:
    from headstart.data.image.jpeg import lacks_data  # needs Pillow

    picture = Image.open(io.BytesIO(content), formats=formats())
    width, height = picture.size
    asked = (2 * form.size, 2 * form.size)
    refuse_size(height, width, 4, 1, form)
    if picture.format not in ("MPO", "TIFF") and getattr(picture, "is_animated", False):  # an MPO's other pictures are previews of its first
        _refuse_pages("several pictures (an animation)", form)
    if is_deep_png(content):
        if form.deep:
            return _deep_png(content, picture, form)
        _say_reduced()
    if picture.format in ("JPEG", "MPO") and picture.mode in ("L", "RGB"):
        picture.draft(picture.mode, asked)  # a large photograph is decoded at a half, quarter or eighth: still twice `size`
    picture.load()
    if picture.format == "JPEG" and not prepared and lacks_data(content, picture, asked):
        raise Unusable("has less data than its header says: its lower part is missing.", "Copy or export it again, or remove it.")
    turned = picture.getexif().get(ORIENTATION) in (5, 6, 7, 8)
    ImageOps.exif_transpose(picture, in_place=True)
    flat = _flat(picture, grey=picture.format == "PNG" and content[PNG_COLOUR] == GREY_AND_ALPHA)
    flat.info[FILE_SIZE] = (height, width) if turned else (width, height)
    return flat


def is_deep_png(content: bytes) -> bool:
    """Whether it is a PNG with samples of 16 bits that Pillow reads as 8."""
    return content[:8] == PNG_MAGIC and content[12:16] == b"IHDR" and content[PNG_BITS] == 16 and content[PNG_COLOUR] in DEEP_COLOURS


def deep_samples(content: bytes) -> np.ndarray:
    """uint16 [height, width, channels] of a PNG of 16 bits, whose size was looked at. Whatever its decoder raises is passed on."""
    try:
        import imagecodecs
    except ImportError:
        raise MissingDependency("imagecodecs", "image", "Reading 16-bit colours") from None
    found = np.asarray(imagecodecs.png_decode(content))
    if found.ndim != 3 or found.dtype != np.uint16:
        raise ValueError(f"its samples are {found.dtype} {found.shape}")
    return found


def _deep_png(content: bytes, picture: Any, form: Form) -> np.ndarray:
    """uint16 [channels, height, width]: upright, transparency laid over white unless every sample is a band."""
    refuse_size(picture.height, picture.width, 4, 2, form)
    orientation = picture.getexif().get(ORIENTATION, 1) if b"eXIf" in content else 1
    planes = upright(deep_samples(content).transpose(2, 0, 1), orientation)
    if form.as_bands or len(planes) == 3:
        return planes
    opaque = planes[-1].astype(np.float64) / 65535
    return np.rint(planes[:-1] * opaque + 65535 * (1 - opaque)).astype(np.uint16)


@cache
def _say_reduced() -> None:
    """Once."""
    logger.warning("colours of 16 bits of a PNG are read as 8 bits: of 8 are the store or the network that they are read for")


def _flat(picture: Any, grey: bool = False) -> Any:
    """The picture in mode L, RGB, I;16 or F: palettes looked up, transparency laid over white.

    Args:
        grey: it is, though Pillow opens it in colour: a PNG of 16-bit grey and transparency.
    """
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
        grey = grey or mode in ("LA", "La")
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
        raise Unusable(f"is no .npy file that is read ({first_line(error)}).", "Write it with numpy.save.") from error
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
    """[bands, height, width] of a TIFF, masked where the file says that there is no data; None for an ordinary picture, which Pillow reads."""
    try:
        import tifffile
    except ImportError:
        raise MissingDependency("tifffile", "image", "Reading TIFF") from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what it also raises
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        samples = int(page.samplesperpixel)
        pages, channel_pages = pages_of(file)
        if pages > 1 and not channel_pages:
            _refuse_pages(f"{pages} pages", form)
        says_gaps = form.nodata is None and GDAL_NODATA in page.tags
        if _is_for_pillow(page, channel_pages, form, says_gaps):
            return None
        if page.dtype is None:
            raise Unusable(f"has {page.bitspersample} bits a sample, which is not read.", "Store it as 8-bit, 16-bit or 32-bit float.")
        if page.imagedepth != 1:
            raise Unusable("is a volume.", "Write its slices to files of their own.")
        refuse_size(page.imagelength, page.imagewidth, pages if channel_pages else samples, page.dtype.itemsize, form)
        refuse_missing_segments(page)
        array = np.asarray(file.series[0].asarray() if channel_pages else page.asarray())
    if array.ndim == 3 and int(page.planarconfig) == 1 and not channel_pages:
        array = array.transpose(2, 0, 1)  # written pixel by pixel; band by band it is [bands, height, width] already
    planes = shown(upright(array if array.ndim == 3 else array[None], orientation_of(page)), page, form.as_bands)
    return planes if form.nodata is None else np.ma.getdata(planes)


def _is_for_pillow(page: Any, channel_pages: bool, form: Form, says_gaps: bool) -> bool:
    """Whether a page is a picture like others: CMYK, Lab, 1-bit; a palette, YCbCr, 8-bit grey or colour, unless bands are wanted or it has gaps."""
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if photometric in (CMYK, LAB) or page.bitspersample == 1:
        return True
    if photometric in (PALETTE, YCBCR):
        return not (says_gaps and read_by_segments(page))
    transparent = has_transparency(page)
    is_picture = page.dtype == np.uint8 and not channel_pages and (samples in (1, 3) or transparent)
    return bool(is_picture and form.colour != "bands" and (transparent or not says_gaps or photometric not in (MIN_IS_BLACK, RGB)))


def read_by_segments(page: Any) -> bool:
    """Whether tifffile gives the colours of a page with a palette or YCbCr, or its numbers in the palette, a segment at a time."""
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if photometric == PALETTE:
        return samples == 1 and page.bitspersample == 8
    return photometric == YCBCR and samples == 3 and int(page.compression) == JPEG and int(page.planarconfig) == 1


def has_transparency(page: Any) -> bool:
    """Whether a page says that its last sample is how opaque it is: of grey, or of three colours. Writers say it of a fourth band too, unasked."""
    return int(page.samplesperpixel) in (2, 4) and [int(kind) for kind in page.extrasamples] in ([PREMULTIPLIED], [STRAIGHT])


def shown(planes: np.ndarray, page: Any, as_bands: bool) -> np.ndarray:
    """[bands, height, width] of what a page holds: numbers of a palette become its colours, and what the file calls no data is masked (of colours
    where all three hold it: black in one of them is a colour). Of 16 bits, transparency is laid over white, and greys that are dark where their
    numbers are high are turned round; Pillow does both to 8 bits. Of what is called transparency see `_is_opacity`.

    Args:
        as_bands: every sample of 16 bits is a band with its numbers.
    """
    photometric, stated = int(page.photometric), page.tags.get(GDAL_NODATA)
    gaps = None if stated is None else holds(planes, str(stated.value))
    if gaps is not None and photometric in (RGB, YCBCR):
        gaps = np.asarray(gaps.all(0, keepdims=True))
    if photometric == PALETTE:
        planes = (page.colormap >> 8).astype(np.uint8)[:, planes[0]]
    elif not as_bands and planes.dtype.kind == "u" and planes.dtype.itemsize == 2:
        planes = _as_seen(planes, page)
    if gaps is None or not gaps.any():
        return planes
    return np.ma.masked_array(planes, np.broadcast_to(gaps[: len(planes)], planes.shape))


def _as_seen(planes: np.ndarray, page: Any) -> np.ndarray:
    """uint16 [bands, height, width]: greys with white as the highest number, nothing transparent."""
    white = 2 ** int(page.bitspersample) - 1
    opaque = None
    if has_transparency(page) and _is_opacity(planes[-1], white):
        planes, opaque = planes[:-1], planes[-1].astype(np.float64) / white
    if int(page.photometric) == MIN_IS_WHITE and len(planes) == 1:
        planes = (white - planes).astype(np.uint16)
    if opaque is None:
        return planes
    colours = planes if int(page.extrasamples[0]) == PREMULTIPLIED else planes * opaque
    return np.rint(colours + white * (1 - opaque)).clip(0, white).astype(np.uint16)


def _is_opacity(last: np.ndarray, white: int) -> bool:
    """Whether the last sample is one, as its file says: where nothing is fully opaque it is a band, such as near infrared."""
    found = bool((last == white).any())
    _say_opacity(found)
    return found


@cache
def _say_opacity(found: bool) -> None:
    """Once each."""
    if found:
        what = "the last sample of a TIFF of 16 bits is taken for transparency, as the file says, and laid over white; --image.mode bands keeps it"
    else:
        what = "the last sample of a TIFF of 16 bits, which the file calls transparency, is nowhere fully opaque: it is kept as a band"
    logger.warning("%s", what)


def orientation_of(page: Any) -> int:
    """1 to 8, as in EXIF."""
    tag = page.tags.get(ORIENTATION)
    return 1 if tag is None else int(tag.value)


def upright(planes: np.ndarray, orientation: int) -> np.ndarray:
    """[bands, height, width] as they are to be seen. Others than 2 to 8 say nothing."""
    if orientation in (5, 6, 7, 8):
        planes = planes.swapaxes(1, 2)
    if orientation in (2, 3, 6, 7):
        planes = planes[:, :, ::-1]
    return planes[:, ::-1] if orientation in (3, 4, 7, 8) else planes


def pages_of(file: Any) -> tuple[int, bool]:
    """(pages of a tifffile.TiffFile that are images of their own, neither a smaller copy nor a mask; whether each is a channel of one image)."""
    pages = sum(not int(getattr(page, "subfiletype", 0) or 0) & 5 for page in file.pages)
    return pages, pages > 1 and file.series[0].axes == "CYX"


def refuse_missing_segments(page: Any) -> None:
    """A damaged or hostile file states more strips or tiles than it has: the decoder would walk over each of millions.

    Raises:
        Unusable: it does.
    """
    stated, there = math.prod(page.chunked), len(page.dataoffsets)
    if stated > there and not page.is_contiguous:
        raise Unusable(f"states {stated:,} strips or tiles and has {there:,}.", "Write it again.")


def holds(planes: np.ndarray, nodata: str) -> np.ndarray:
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


def room() -> int:
    """Bytes that one image may take: a tenth of the memory."""
    return (memory_total() or 2**33) // 10


def refuse_size(height: int, width: int, bands: int, itemsize: int, form: Form) -> None:
    if height < 1 or width < 1:
        raise Unusable(f"is {width} x {height} pixels.", "Remove it.")
    if height * width > form.max_pixels:
        raise Unusable(
            f"is {width:,} x {height:,}, more than {form.max_pixels / 1e6:g} million pixels.", MAKE_SMALLER
        )
    if height * width * bands * itemsize > room():
        raise Unusable(f"would take {height * width * bands * itemsize / 1e6:,.0f} MB of memory.", "Cut it into smaller images.")


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
