"""Every kind of picture becomes the pixels that it shows, and everything else is refused by name."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import decode, form_of
from headstart.data.image.form import Form, Unusable
from headstart.data.image.opening import _say_opacity
from tests.data.image.pictures import decoded, encoded, npy, smooth, tiff

RGB = smooth(12, 12)


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)


def fault(content: bytes | np.ndarray, first: bytes | np.ndarray | None = None, **settings: object) -> Unusable:
    with pytest.raises(Unusable) as caught:
        decoded(content, first, **settings)
    assert caught.value.mend.endswith(".")
    return caught.value


# --- what a picture shows -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {}), ("PPM", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_pixels_are_those_of_the_file(format: str, options: dict[str, object]) -> None:
    found = decoded(encoded(RGB, format, **options), size=12)
    assert found.pixels.dtype == np.uint8
    np.testing.assert_array_equal(found.pixels, planes(RGB))


def test_jpeg_is_close_to_the_picture() -> None:
    found = decoded(encoded(RGB, "JPEG", quality=98, subsampling=0), size=12).pixels
    assert np.abs(found.astype(int) - planes(RGB)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """Each of the eight ways to store a picture shows the same one."""
    stored = {  # EXIF 2.3, table of the tag 0x0112: what undoes it
        1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1], 5: RGB.swapaxes(0, 1), 6: np.rot90(RGB, 1), 7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decoded(encoded(np.ascontiguousarray(stored), "PNG", exif=exif), size=12)
    np.testing.assert_array_equal(found.pixels, planes(RGB))


def test_a_palette_is_looked_up() -> None:
    picture = Image.fromarray(RGB).quantize(32)
    np.testing.assert_array_equal(decoded(encoded(picture), size=12).pixels, planes(np.asarray(picture.convert("RGB"))))


def test_transparency_is_laid_over_white() -> None:
    alpha = np.full((12, 12, 1), 255, np.uint8)
    alpha[:6] = 0
    alpha[6] = 128
    found = decoded(encoded(np.concatenate([RGB, alpha], -1)), size=12).pixels
    assert (found[:, :6] == 255).all()
    assert np.abs(found[:, 6].astype(int) - (planes(RGB)[:, 6].astype(int) * 128 + 255 * 127) / 255).max() <= 1
    np.testing.assert_array_equal(found[:, 7:], planes(RGB)[:, 7:])


def test_a_transparent_palette_entry_is_white() -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    found = decoded(encoded(picture, transparency=1), size=2).pixels
    np.testing.assert_array_equal(found[:, 0, 0], [10, 20, 30])
    np.testing.assert_array_equal(found[:, 0, 1], [255, 255, 255])


def test_grey_with_transparency_stays_grey() -> None:
    pixels = np.stack([RGB[..., 0], np.where(np.arange(12) < 4, 0, 255)[None].repeat(12, 0)], -1).astype(np.uint8)
    found = decoded(encoded(pixels), size=12).pixels
    assert found.shape == (1, 12, 12)
    assert (found[0, :, :4] == 255).all()
    np.testing.assert_array_equal(found[0, :, 4:], RGB[:, 4:, 0])


def test_sixteen_bit_grey_with_transparency_stays_grey() -> None:
    """Pillow opens it in colour, with 8 bits; as a picture in a store of an earlier version it is one channel of them."""
    greys = np.linspace(0, 65535, 144).reshape(12, 12).astype(np.uint16)
    content = png(np.stack([greys, np.full_like(greys, 65535)], 2), bits=16, colour=4)
    np.testing.assert_array_equal(decoded(content, size=12).pixels, greys[None])
    older = form_of(content, ImageConfig(size=12), deep=False)
    np.testing.assert_array_equal(decode(content, older).pixels, greys[None] >> 8)


def png(pixels: np.ndarray, bits: int, colour: int) -> bytes:
    """A PNG of a kind that Pillow does not write.

    Args:
        pixels: [height, width, channels]; colour: of its header, 4 is grey and transparency.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_cmyk_becomes_colours() -> None:
    red = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    found = decoded(encoded(red, "JPEG", quality=100), size=4).pixels
    assert found[0].min() > 250
    assert found[1:].max() < 5


def test_one_bit_is_black_and_white() -> None:
    bits = np.eye(8, dtype=bool)
    np.testing.assert_array_equal(decoded(encoded(bits), size=8).pixels[0], np.where(bits, 255, 0))


def test_sixteen_bit_grey_keeps_its_values() -> None:
    pixels = (np.arange(144).reshape(12, 12) * 450).astype(np.uint16)
    for content in (encoded(pixels), tiff(pixels), npy(pixels), npy(pixels.astype(">u2"))):
        found = decoded(content, size=12).pixels
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[0], pixels)


WHITE = 65535
DEEP = (smooth(12, 12, seed=4).astype(np.uint16) * 257) ^ np.arange(12, dtype=np.uint16)[:, None]  # no multiples of 257
OPAQUE = np.full((12, 12, 1), WHITE, np.uint16)
OPAQUE[:4], OPAQUE[4:6] = 0, 0x4000


def over_white(colours: np.ndarray) -> np.ndarray:
    opaque = OPAQUE / WHITE
    return np.rint(colours * opaque + WHITE * (1 - opaque)).astype(np.uint16)


@pytest.mark.parametrize("colours", [DEEP, DEEP[..., :1]], ids=["colours", "grey"])
def test_transparency_of_sixteen_bits_in_a_tiff_is_laid_over_white(colours: np.ndarray) -> None:
    kind = {"photometric": "rgb" if colours.shape[-1] == 3 else "minisblack", "planarconfig": "contig"}
    straight = tiff(np.concatenate([colours, OPAQUE], -1), extrasamples=["unassalpha"], **kind)
    wanted = planes(over_white(colours))
    np.testing.assert_array_equal(decoded(straight, size=12).pixels, wanted)
    assert (wanted[:, :4] == WHITE).all()
    multiplied = np.rint(colours * (OPAQUE / WHITE)).astype(np.uint16)
    found = decoded(tiff(np.concatenate([multiplied, OPAQUE], -1), extrasamples=["assocalpha"], **kind), size=12).pixels
    np.testing.assert_array_equal(found, wanted)
    for asked in ({"mode": "bands"}, {"bands": tuple(range(1, colours.shape[-1] + 2))}):
        found = decoded(straight, size=12, **asked).pixels
        np.testing.assert_array_equal(found, planes(np.concatenate([colours, OPAQUE], -1)))
    unsaid = decoded(tiff(np.concatenate([colours, OPAQUE], -1), extrasamples=["unspecified"], **kind), size=12).pixels
    assert len(unsaid) == colours.shape[-1] + 1, "a band of which the file says nothing stays one"


@pytest.mark.parametrize("turned", [False, True], ids=["pixel by pixel", "band by band"])
def test_a_fourth_band_that_a_writer_calls_transparency_stays_one(turned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile does, of four bands of 16 bits: near infrared would make nearly white colours of them."""
    _say_opacity.cache_clear()
    scene = np.random.default_rng(0).integers(0, 4000, (4, 12, 12)).astype(np.uint16)
    content = tiff(scene if turned else np.ascontiguousarray(scene.transpose(1, 2, 0)), photometric="rgb")
    for _ in range(2):
        np.testing.assert_array_equal(decoded(content, size=12).pixels, scene)
    assert [record.message for record in caplog.records if "nowhere fully opaque: it is kept as a band" in record.message] == [caplog.messages[0]]
    decoded(tiff(np.concatenate([DEEP, OPAQUE], -1), photometric="rgb", extrasamples=["unassalpha"]), size=12)
    assert "taken for transparency, as the file says, and laid over white; --image.mode bands keeps it" in caplog.text


def test_with_transparency_or_without_colours_of_sixteen_bits_are_in_one_store() -> None:
    plain = tiff(DEEP, photometric="rgb")
    transparent = tiff(np.concatenate([DEEP, OPAQUE], -1), photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(decoded(transparent, first=plain, size=12).pixels, planes(over_white(DEEP)))
    np.testing.assert_array_equal(decoded(plain, first=transparent, size=12).pixels, planes(DEEP))


@pytest.mark.parametrize("greys", [DEEP[..., 0], smooth(12, 12)[..., 0]], ids=["16 bits", "8 bits"])
def test_greys_that_are_dark_where_their_numbers_are_high_are_turned_round(greys: np.ndarray) -> None:
    """X-rays are kept so. Of 8 bits Pillow does it."""
    found = decoded(tiff(greys, photometric="miniswhite"), size=12).pixels
    assert found.dtype == greys.dtype
    np.testing.assert_array_equal(found[0], np.iinfo(greys.dtype).max - greys)
    np.testing.assert_array_equal(decoded(tiff(greys, photometric="miniswhite"), size=12, mode="bands").pixels[0], greys)


def test_a_store_of_an_earlier_version_reads_sixteen_bits_as_it_did() -> None:
    form = form_of(tiff(DEEP[..., 0]), ImageConfig(size=12)).as_json()
    content = tiff(DEEP[..., 0], photometric="miniswhite")
    np.testing.assert_array_equal(decode(content, Form.from_json(form)).pixels[0], WHITE - DEEP[..., 0])
    del form["as_bands"]
    np.testing.assert_array_equal(decode(content, Form.from_json(form)).pixels[0], DEEP[..., 0])


def test_a_grey_image_in_a_colour_store_has_three_equal_channels() -> None:
    found = decoded(encoded(RGB[..., 0]), first=encoded(RGB), size=12).pixels
    assert found.shape == (3, 12, 12)
    assert (found == RGB[..., 0]).all()


def test_colour_becomes_grey_only_where_grey_was_asked_for() -> None:
    grey = encoded(RGB[..., 0])
    assert "is in colour" in fault(encoded(RGB), first=grey, size=12).what
    found = decoded(encoded(RGB), first=grey, size=12, mode="grey").pixels
    luma = RGB.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found[0] - luma).max() <= 1


# --- bands ----------------------------------------------------------------------------------------------------------------------------------------

PLANES = {"photometric": "minisblack", "planarconfig": "separate"}
BANDS = np.random.default_rng(0).integers(0, 4000, (7, 10, 10)).astype(np.uint16)


@pytest.mark.parametrize(
    "content",
    [
        tiff(BANDS, **PLANES),
        tiff(np.ascontiguousarray(BANDS.transpose(1, 2, 0)), photometric="minisblack", planarconfig="contig"),
        tiff(BANDS, **PLANES, compression="deflate", predictor=2),
        tiff(BANDS, **PLANES, compression="lzw", tile=(16, 16)),
        npy(BANDS),
        npy(np.ascontiguousarray(BANDS.transpose(1, 2, 0))),
        npy(np.asfortranarray(BANDS)),
    ],
    ids=["planes", "pixels", "deflate", "lzw tiles", "npy planes", "npy pixels", "npy fortran"],
)
def test_bands_keep_their_values_however_they_are_stored(content: bytes) -> None:
    found = decoded(content, size=10).pixels
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, BANDS)


def test_bands_are_chosen_by_number_from_one() -> None:
    np.testing.assert_array_equal(decoded(npy(BANDS), size=10, bands=(3, 1)).pixels, BANDS[[2, 0]])
    np.testing.assert_array_equal(decoded(encoded(RGB), size=12, bands=(2,)).pixels, planes(RGB)[1:2])
    assert "band 9 is asked for" in fault(npy(BANDS), size=10, bands=(9,)).what


def test_floats_keep_their_values_and_small_integers_become_floats() -> None:
    values = np.random.default_rng(0).normal(size=(4, 6, 6))
    np.testing.assert_array_equal(decoded(npy(values), size=6).pixels, values.astype(np.float32))
    heights = np.array([[-120, 3000], [0, 7]], np.int16)
    found = decoded(tiff(heights), size=2).pixels
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], heights)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_tiff_of_bands_is_turned_back(orientation: int) -> None:
    """As the pictures above; tifffile gives what is stored."""
    shown = BANDS[:, :8, :6]
    stored = {
        1: shown, 2: shown[:, :, ::-1], 3: shown[:, ::-1, ::-1], 4: shown[:, ::-1], 5: shown.swapaxes(1, 2), 6: np.rot90(shown, 1, (1, 2)),
        7: shown[:, ::-1, ::-1].swapaxes(1, 2), 8: np.rot90(shown, -1, (1, 2)),
    }[orientation]  # fmt: skip
    content = tiff(np.ascontiguousarray(stored), **PLANES, extratags=[(274, "H", 1, orientation, True)])
    np.testing.assert_array_equal(decoded(content, size=6).pixels, shown[:, 1:7])


NODATA = {"extratags": [(42113, "s", 0, "0", True)]}


def test_a_geotiff_of_colours_says_itself_what_has_no_data() -> None:
    """Where all three colours hold it: black in one of them is a colour."""
    pixels = np.full((10, 10, 3), 90, np.uint8)
    pixels[:2] = 0
    pixels[5, 5] = (0, 200, 200)
    found = decoded(tiff(pixels, photometric="rgb", **NODATA), size=10)
    assert found.missing == pytest.approx(0.2)
    assert (found.pixels[:, 0, 0] > 80).all(), "the mean of the rest"
    np.testing.assert_array_equal(found.pixels[:, 5, 5], [0, 200, 200])
    ours = decoded(tiff(pixels, photometric="rgb", **NODATA), size=10, nodata="77")
    assert ours.missing == 0, "what a person says goes before what the file says"


def test_a_palette_has_gaps_where_its_numbers_are_those_of_no_data() -> None:
    numbers = np.full((10, 10), 3, np.uint8)
    numbers[:1] = 0
    palette = np.arange(256, dtype=np.uint16)[None].repeat(3, 0) * 257
    found = decoded(tiff(numbers, photometric="palette", colormap=palette, **NODATA), size=10)
    assert found.missing == pytest.approx(0.1)
    np.testing.assert_array_equal(found.pixels, np.full((3, 10, 10), 3))


def test_a_smaller_copy_in_a_geotiff_is_no_second_page() -> None:
    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(BANDS, **PLANES)
        file.write(BANDS[:, ::2, ::2], **PLANES, subfiletype=1)
    np.testing.assert_array_equal(decoded(stream.getvalue(), size=10).pixels, BANDS)


def test_bands_are_resized_as_pillow_does_each() -> None:
    found = decoded(npy(BANDS), size=5).pixels
    expected = np.stack([np.asarray(Image.fromarray(band.astype(np.float32)).resize((5, 5), Image.Resampling.BICUBIC)) for band in BANDS])
    np.testing.assert_array_equal(found, np.rint(expected).clip(0, 65535).astype(np.uint16))


# --- size -----------------------------------------------------------------------------------------------------------------------------------------


def test_crop_keeps_the_middle_squash_all_and_pad_all_with_a_border() -> None:
    wide = np.full((32, 64, 3), 50, np.uint8)  # grey, light in the middle half
    wide[:, 16:48] = 200
    cropped = decoded(encoded(wide), size=8)
    assert (cropped.height, cropped.width) == (32, 64)
    assert (cropped.pixels[:, :, 2:6] == 200).all()
    squashed = decoded(encoded(wide), size=8, fit="squash").pixels
    assert np.abs(squashed[:, :, 0].astype(int) - 50).max() <= 3
    assert np.abs(squashed[:, :, 3:5].astype(int) - 200).max() <= 3
    padded = decoded(encoded(wide), size=8, fit="pad").pixels
    assert (padded[:, [0, 1, 6, 7]] == 0).all()
    np.testing.assert_array_equal(padded[:, 3], squashed[:, 3])


def test_a_large_photograph_is_read_at_a_fraction_and_looks_the_same() -> None:
    large = smooth(640, 800, seed=3)
    found = decoded(encoded(large, "JPEG", quality=95), size=40).pixels
    expected = np.asarray(Image.fromarray(large).resize((40, 40), Image.Resampling.BICUBIC, box=(80, 0, 720, 640)))
    assert np.abs(found.astype(float) - planes(expected)).mean() < 2


# --- faults ---------------------------------------------------------------------------------------------------------------------------------------


def bomb() -> bytes:
    """A PNG of a few hundred bytes that states 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def gif() -> bytes:
    frames = [Image.fromarray(smooth(8, 8, seed)) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


FAULTS = {
    "empty": (b"", "is empty"),
    "text": (b"this is no image at all, only words", "is no image of a kind that is read"),
    "half a JPEG": (encoded(smooth(64, 64), "JPEG")[:700], "cut off"),
    "half a PNG": (encoded(smooth(64, 64))[:900], "cut off"),
    "half a TIFF": (tiff(BANDS, **PLANES)[:900], "cut off"),
    "half a compressed TIFF": (tiff(BANDS, **PLANES, compression="deflate")[:900], "cut off"),
    "half a picture of TIFF": (encoded(smooth(64, 64), "TIFF")[:900], "cut off"),
    "half a .npy": (npy(BANDS)[:500], "cut off"),
    "bomb": (bomb(), "million pixels"),
    "bomb of TIFF": (tiff(np.zeros((9500, 9500), bool), compression="deflate"), "million pixels"),
    "animation": (gif(), "holds several pictures"),
    "pages": (tiff(np.zeros((3, 8, 8), np.uint8), photometric="minisblack", volumetric=False, metadata=None), "holds 3 pages"),
    "objects": (npy(np.zeros((2, 2))).replace(b"'<f8'", b"'|O' "), "cut off, or holds Python objects"),
    "other numbers": (npy(np.zeros((4, 4), np.int64)), "holds values of type int64"),
    "structures": (npy(np.zeros((4, 4), [("a", "f4"), ("b", "f4")])), "holds values of type [('a'"),
    "words": (npy(np.full((4, 4), "ab")), "holds values of type <U2"),
    "NaN": (npy(np.full((4, 4), np.nan, np.float32)), "no finite numbers"),
    "axes": (npy(np.zeros((2, 3, 4, 5), np.uint8)), "is an array of 4 axes"),
    "no pixels": (npy(np.zeros((0, 4), np.uint8)), "is 4 x 0 pixels"),
    "a cube": (npy(np.zeros((5, 4, 5), np.uint8)), "its channels may be first or last"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "is no image"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_used_is_refused_by_name(name: str) -> None:
    content, words = FAULTS[name]
    form = Form(3, 8, "uint8", "rgb", False, "crop", (), "auto", False, 89_000_000)
    with pytest.raises(Unusable) as caught:
        decode(content, form)
    assert words in caught.value.what
    with pytest.raises(Unusable) as first:  # nor does it decide the form of a store
        form_of(content, ImageConfig(size=8))
    assert words in first.value.what


def jpegs() -> dict[str, bytes]:
    """Whole ones: several kinds, and pictures that end in the grey of missing data."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 72, 3), dtype=np.uint8)
    ends_grey = noise.copy()
    ends_grey[24:] = 128
    odd = np.full((61, 70, 3), 128, np.uint8)  # a part of such sides does not divide them
    odd[:24] = noise[:24, :70]
    return {
        "baseline": encoded(noise, "JPEG", quality=90),
        "progressive": encoded(noise, "JPEG", quality=90, progressive=True),
        "with restarts": encoded(noise, "JPEG", quality=90, restart_marker_blocks=2),
        "grey": encoded(noise[..., 0], "JPEG", quality=90),
        "of full colour": encoded(noise, "JPEG", quality=90, subsampling=0),
        "that ends in grey": encoded(ends_grey, "JPEG", quality=90),
        "that ends in grey, progressive": encoded(ends_grey, "JPEG", quality=90, progressive=True),
        "of one grey": encoded(np.full((64, 72, 3), 128, np.uint8), "JPEG"),
        "of odd sides": encoded(odd, "JPEG", quality=90),
        "of odd sides, progressive": encoded(odd, "JPEG", quality=90, progressive=True),
        "of odd sides, grey": encoded(odd[..., 0], "JPEG", quality=90),
        "of odd sides, at an eighth": encoded(np.full((201, 333, 3), 128, np.uint8), "JPEG"),
    }


@pytest.mark.parametrize("size", [64, 12])
@pytest.mark.parametrize("kind", jpegs())
def test_a_whole_jpeg_is_taken_also_where_it_ends_in_grey(kind: str, size: int) -> None:
    content = jpegs()[kind]
    assert decoded(content, size=size).height == Image.open(io.BytesIO(content)).height


@pytest.mark.parametrize("size", [64, 12])
@pytest.mark.parametrize("kind", ["baseline", "with restarts", "grey", "of full colour", "progressive", "of odd sides"])
def test_a_jpeg_with_less_data_than_its_header_says_is_refused(kind: str, size: int) -> None:
    """libjpeg draws the rest in grey without a word: a header of another height, and a file that was cut off and closed again."""
    whole = bytearray(jpegs()[kind])
    frame = next(whole.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in whole)
    taller = whole.copy()
    taller[frame + 5 : frame + 7] = struct.pack(">H", 200)
    closed = whole[: whole.index(b"\xff\xda") + 120] + b"\xff\xd9"  # in the first scan: what later ones add to a progressive file is only detail
    assert "less data than its header says" in fault(bytes(taller), size=size).what
    words = "cut off" if kind == "progressive" else "less data than its header says"  # Pillow sees the former
    assert words in fault(bytes(closed), size=size).what


def test_images_that_do_not_fit_the_first_are_refused() -> None:
    assert "has 7 bands; the store has 3" in fault(npy(BANDS[:7].astype(np.uint8)), first=npy(BANDS[:3].astype(np.uint8)), size=10).what
    assert "has 3 bands; the store has 7" in fault(encoded(RGB), first=npy(BANDS.astype(np.uint8)), size=10).what
    assert "holds uint16 values" in fault(encoded(RGB[..., 0].astype(np.uint16)), first=encoded(RGB[..., 0]), size=10).what
    assert "holds uint8 values" in fault(encoded(RGB[..., 0]), first=encoded(RGB[..., 0].astype(np.uint16)), size=10).what


def test_the_first_picture_of_an_animation_is_taken_where_that_was_asked_for() -> None:
    first = decoded(gif(), size=8, animated="first").pixels
    assert np.abs(first.astype(int) - planes(smooth(8, 8, 0))).mean() < 8  # a palette of 256 colours


def test_the_limit_is_checked_before_memory_is_taken() -> None:
    small = ImageConfig(size=8, max_megapixels=0.00009)
    for content in (encoded(RGB), tiff(BANDS, **PLANES), npy(BANDS)):
        with pytest.raises(Unusable, match=r"more than 9e-05 million"):
            form_of(content, small)


def test_a_form_survives_json_and_refuses_what_is_none() -> None:
    form = form_of(npy(BANDS), ImageConfig(size=10, bands=(2, 1)))
    assert Form.from_json(form.as_json()) == form
    for change in ({"dtype": "object"}, {"size": -1}, {"size": "8"}, {"colour": "x"}, {"channels": 2**40}):
        with pytest.raises((ValueError, TypeError)):
            Form.from_json(form.as_json() | change)


SEEDS = {
    "PNG": encoded(RGB), "JPEG": encoded(RGB, "JPEG"), "WEBP": encoded(RGB, "WEBP"), "GIF": gif(), "BMP": encoded(RGB, "BMP"),
    "TIFF": tiff(BANDS, **PLANES, compression="deflate"), "TIFF of Pillow": encoded(RGB, "TIFF"), "npy": npy(BANDS),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", SEEDS)
def test_damaged_bytes_give_an_image_or_unusable_and_nothing_else(name: str) -> None:
    """Bytes changed, cut out, doubled: 150 times."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        data = bytearray(SEEDS[name])
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(data)))
            match rng.integers(3):
                case 0:
                    data[at] = int(rng.integers(256))
                case 1:
                    del data[at : at + int(rng.integers(1, 40))]
                case _:
                    data[at:at] = data[at : at + 30]
        try:
            found = decoded(bytes(data), size=8, animated="first").pixels
            assert found.shape[1:] == (8, 8)
        except Unusable:
            refused += 1
    assert refused > 0
