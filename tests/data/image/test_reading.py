"""How images are read goes along with a network: chosen bands, gaps, axes of channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import decode, form_of
from headstart.data.image.form import Form, Unusable
from headstart.data.image.reading import Reading
from tests.data.image.pictures import encoded, npy, smooth, tiff

BANDS = np.random.default_rng(0).integers(0, 4000, (6, 12, 12)).astype(np.uint16)


def test_what_a_store_was_read_with_is_what_its_network_reads_with() -> None:
    """Also from files that hold the chosen bands alone."""
    stored = form_of(npy(BANDS), ImageConfig(size=12, bands=(6, 2, 3)))
    reading = Reading.from_json(Reading.of(stored).as_json())
    assert reading == Reading(bands=(6, 2, 3))
    for content in (npy(BANDS), npy(np.ascontiguousarray(BANDS[[5, 1, 2]]))):
        found = decode(content, reading.form(content, 3, 12))
        np.testing.assert_array_equal(found.pixels, decode(npy(BANDS), stored).pixels)


def test_gaps_and_axes_go_along_too() -> None:
    square = np.random.default_rng(1).normal(size=(6, 12, 6)).astype(np.float32)  # its bands may be first or last
    square[:, 0, 0] = np.nan
    config = ImageConfig(size=6, mode="bands", layout="channels-last", nodata="nan", fit="squash")
    stored = form_of(npy(square), config)
    reading = Reading.from_json(Reading.of(stored).as_json())
    assert reading == Reading((), "channels-last", "nan", "squash")
    np.testing.assert_array_equal(decode(npy(square), reading.form(npy(square), 6, 6)).pixels, decode(npy(square), stored).pixels)


def test_the_usual_way_says_nothing() -> None:
    assert Reading().as_json() == {}
    assert Reading.from_json({}) == Reading()
    assert Reading.of(form_of(encoded(smooth(12, 12)), ImageConfig())) == Reading()
    colours = Reading().form(encoded(smooth(12, 12)), 3, 12)
    assert (colours.colour, colours.channels) == ("rgb", 3)


@pytest.mark.parametrize("settings", [{}, {"mode": "bands"}], ids=["of an earlier version", "bands asked for"])
def test_greys_that_a_store_has_turned_round_or_not_are_read_so_again(settings: dict[str, Any]) -> None:
    content = tiff(BANDS[0], photometric="miniswhite")
    stated = form_of(content, ImageConfig(size=12, **settings)).as_json()
    if not settings:
        del stated["as_bands"]
    stored = Form.from_json(stated)
    reading = Reading.from_json(Reading.of(stored).as_json())
    found = decode(content, reading.form(content, 1, 12)).pixels
    np.testing.assert_array_equal(found, decode(content, stored).pixels)
    np.testing.assert_array_equal(found[0], BANDS[0])
    turned = form_of(content, ImageConfig(size=12))
    np.testing.assert_array_equal(decode(content, Reading.of(turned).form(content, 1, 12)).pixels[0], 65535 - BANDS[0])


def test_another_number_of_channels_is_refused_with_the_flag_that_chooses() -> None:
    with pytest.raises(Unusable, match="has 6 channels, the network takes 4") as caught:
        Reading().form(npy(BANDS), 4, 12)
    assert "--bands" in caught.value.mend
    assert Reading().with_bands((4, 3, 2, 1)).form(npy(BANDS), 4, 12).bands == (4, 3, 2, 1)
    assert Reading(bands=(1, 2)).with_bands(()).bands == (1, 2)


@pytest.mark.parametrize(
    "found", [None, [], {"bands": "1"}, {"bands": [0]}, {"bands": [1, 1]}, {"bands": [True]}, {"bands": [2**40]}, {"fit": "x"}, {"layout": 3},
              {"nodata": 5}, {"nodata": "x"}, {"size": 4}, {"bands": [1.0]}, {"as_bands": 1}, {"deep": 1}], ids=repr,
)  # fmt: skip
def test_strange_words_are_refused(found: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        Reading.from_json(found)
