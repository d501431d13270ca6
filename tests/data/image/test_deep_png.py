"""Colours of 16 bits of a PNG: new stores keep their numbers; older stores and networks of 8 bits read them as before; hostile files are refused."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.data.image import opening
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import decode, decode_whole, form_of
from headstart.data.image.form import Form, Unusable
from headstart.data.image.prepare import prepare_inputs
from headstart.data.image.reading import USUAL, Reading
from headstart.data.image.sources import find_images
from headstart.data.image.targets import read_numbers
from tests.data.image.pictures import decoded, smooth
from tests.data.image.test_decode import png

FINE = (smooth(12, 12, seed=4).astype(np.uint16) * 257) ^ np.arange(12, dtype=np.uint16)[:, None, None]  # no multiples of 257
OPACITY = np.linspace(0, 65535, 144).round().reshape(12, 12, 1).astype(np.uint16)
COLOURS = png(FINE, bits=16, colour=2)


def test_colours_of_16_bits_keep_their_numbers() -> None:
    np.testing.assert_array_equal(decoded(COLOURS, size=12).pixels, FINE.transpose(2, 0, 1))
    np.testing.assert_array_equal(decoded(COLOURS, size=12, mode="rgb").pixels, FINE.transpose(2, 0, 1))


def test_transparency_is_laid_over_white_or_a_band() -> None:
    for values, colour in ((np.concatenate([FINE, OPACITY], 2), 6), (np.concatenate([FINE[..., :1], OPACITY], 2), 4)):
        content, share = png(values, bits=16, colour=colour), OPACITY / 65535
        shown = np.rint(values[..., :-1] * share + 65535 * (1 - share)).astype(np.uint16)
        np.testing.assert_array_equal(decoded(content, size=12).pixels, shown.transpose(2, 0, 1))
        np.testing.assert_array_equal(decoded(content, size=12, mode="bands").pixels, values.transpose(2, 0, 1))


def test_grey_of_colours_is_that_of_8_bits() -> None:
    found = decoded(png(smooth(12, 12).astype(np.uint16) * 257, bits=16, colour=2), size=12, mode="grey").pixels
    eight = decoded(png(smooth(12, 12), bits=8, colour=2), size=12, mode="grey").pixels
    assert found.dtype == np.uint16
    assert np.abs(found / 257 - eight).max() <= 0.5


def test_a_store_of_an_earlier_version_and_a_network_of_8_bits_read_8_bits_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    opening._say_reduced.cache_clear()
    known = form_of(png(FINE >> 8, bits=8, colour=2), ImageConfig(size=12)).as_json()
    del known["deep"]
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(decode(COLOURS, Form.from_json(known)).pixels, (FINE >> 8).transpose(2, 0, 1))
    assert [record.message for record in caplog.records if "colours of 16 bits of a PNG are read as 8 bits" in record.message]
    form = USUAL.form(COLOURS, 3, 12)
    assert (form.dtype, form.deep) == ("uint8", False)
    np.testing.assert_array_equal(decode_whole(COLOURS, form), (FINE >> 8).transpose(2, 0, 1))


def test_a_network_of_16_bits_reads_16_bits() -> None:
    reading = Reading.of(form_of(COLOURS, ImageConfig(size=12)))
    assert Reading.from_json(reading.as_json()) == reading
    np.testing.assert_array_equal(decode(COLOURS, reading.form(COLOURS, 3, 12)).pixels, FINE.transpose(2, 0, 1))
    assert not Reading.of(form_of(png(FINE >> 8, bits=8, colour=2), ImageConfig(size=12))).as_json()


def test_numbers_wanted_of_pixels_keep_16_bits(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(COLOURS)
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.png", unit=1.0, nothing=None), FINE.transpose(2, 0, 1))


def test_images_of_documents_are_of_8_bits_whatever_comes_first(tmp_path: Path) -> None:
    """They come from everywhere, and a tower of vision takes 8 bits."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(COLOURS)
    (tmp_path / "a" / "2.png").write_bytes(png(smooth(12, 12), bits=8, colour=2))
    config, inputs = ImageConfig(size=12, held_out_share=0.0), find_images([tmp_path / "a"])
    store = prepare_inputs(inputs, [], tmp_path / "out", config, one_colour="keep", deep=False)
    np.testing.assert_array_equal(store.read([0])[0], (FINE >> 8).transpose(2, 0, 1))
    with pytest.raises(BadInput, match="holds uint8 values; the first image, and so all, uint16"):
        prepare_inputs(inputs, [], tmp_path / "other", config)


def stating(width: int, height: int) -> bytes:
    """The same with another size in its header."""
    header = b"IHDR" + struct.pack(">II", width, height) + COLOURS[24:29]
    return COLOURS[:12] + header + struct.pack(">I", zlib.crc32(header)) + COLOURS[33:]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (COLOURS[:300], "is no image, damaged, or cut off"),
        (COLOURS[:-20], "is no image, damaged, or cut off"),
        (COLOURS[:60] + bytes([COLOURS[60] ^ 1]) + COLOURS[61:], "is no image, damaged, or cut off"),
        (stating(12, 24), "is no image, damaged, or cut off"),
        (stating(60_000, 60_000), "million pixels"),
    ],
    ids=["truncated", "without its end", "bad checksum", "taller than its data", "60,000 pixels a side"],
)
def test_hostile_files_are_refused(content: bytes, says: str) -> None:
    with pytest.raises(Unusable) as error:
        decoded(content, size=12)
    assert says in error.value.what


def test_an_unknown_filter_is_refused() -> None:
    data = b"IDAT" + zlib.compress(b"".join(b"\x09" + row.astype(">u2").tobytes() for row in FINE))
    content = COLOURS[:33] + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data)) + COLOURS[-12:]
    with pytest.raises(Unusable, match="is no image, damaged, or cut off"):
        decoded(content, size=12)
