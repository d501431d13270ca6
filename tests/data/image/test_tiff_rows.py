"""Windows of a large TIFF are those of the whole image, and no more of it is in memory than a few rows."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import whole_planes
from headstart.data.image.form import Unusable
from headstart.data.image.read import Fault, Record, records, window_places
from headstart.data.image.sources import find_images
from headstart.data.image.tiff_rows import tiff_rows

BANDS = np.random.default_rng(0).integers(0, 60_000, (3, 75, 90))
BANDS[:, :40, :40] = 0
WAYS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "strips, deflate": {"rowsperstrip": 7, "compression": "zlib"},
    "strips, differences": {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    "tiles": {"tile": (32, 48)},
    "tiles, lzw": {"tile": (16, 32), "compression": "lzw"},
}


def windows(file: Path, config: ImageConfig) -> list[np.ndarray | str]:
    """The windows of a file, or what is wrong with it."""
    (found,) = find_images([file]).files
    return [one.what if isinstance(one, Fault) else np.ma.filled(one.content, 7) for one in records(found, config) if isinstance(one, Record | Fault)]


def of_the_whole(file: Path, config: ImageConfig) -> list[np.ndarray]:
    planes = whole_planes(file.read_bytes(), config)
    tile = config.tile or 0
    places = [(top, left) for top in window_places(planes.shape[1], tile) for left in window_places(planes.shape[2], tile)]
    return [np.ma.filled(planes[:, top : top + tile, left : left + tile], 7) for top, left in places]


@pytest.mark.parametrize("layout", ["contig", "separate", "one band"])
@pytest.mark.parametrize("kind", ["uint8", ">u2", "float32"])
@pytest.mark.parametrize("way", WAYS)
def test_windows_are_those_of_the_whole(way: str, kind: str, layout: str, tmp_path: Path) -> None:
    bands = BANDS.astype(kind if kind != "uint8" else np.uint16).astype(kind) if kind != "uint8" else (BANDS % 256).astype(np.uint8)
    image = bands[0] if layout == "one band" else bands if layout == "separate" else bands.transpose(1, 2, 0)
    planar = {} if layout == "one band" else {"planarconfig": layout}
    nodata = {"extratags": [(42113, "s", 0, "0", True)]}
    byteorder: Any = ">" if kind == ">u2" else "<"
    file = tmp_path / "scene.tif"
    tifffile.imwrite(file, image, photometric="minisblack", byteorder=byteorder, **WAYS[way], **planar, **nodata)
    config = ImageConfig(size=16, tile=16, mode="bands")
    with file.open("rb") as opened:
        assert tiff_rows(opened, file.stat().st_size, as_bands=True, rows=16) is not None, "or nothing is tested here"
    found, expected = windows(file, config), of_the_whole(file, config)
    assert len(found) == len(expected) == 30
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_segments_that_were_never_written_hold_no_data(tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    tiles = [np.full((32, 32), 5, np.uint16), None, None, np.full((32, 32), 9, np.uint16)]
    tifffile.imwrite(file, iter(tiles), shape=(64, 64), dtype=np.uint16, tile=(32, 32), photometric="minisblack")
    found = windows(file, ImageConfig(size=32, tile=32, mode="bands"))
    assert [int(window.max()) for window in found if isinstance(window, np.ndarray)] == [5, 0, 0, 9]


PALETTE = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16) * 257
NUMBERS = (BANDS[0] % 256).astype(np.uint8)
COLOURS = np.stack([(np.add.outer(np.arange(75) * a, np.arange(90) * b) % 256) for a, b in ((1, 2), (2, 1), (3, 1))], -1).astype(np.uint8)


def cloud_optimised(file: Path, image: np.ndarray, **more: Any) -> None:
    """As GDAL writes it: the image, a mask of it, two smaller copies."""
    with tifffile.TiffWriter(file) as writer:
        writer.write(image, tile=(32, 48), metadata=None, **more)
        writer.write(np.ones(image.shape[:2], bool), subfiletype=4, metadata=None)
        for step in (2, 4):
            writer.write(image[::step, ::step], subfiletype=1, tile=(32, 48), metadata=None, **more)


def scenes(folder: Path) -> dict[str, Path]:
    """Kinds of scenes that used to be decoded whole."""
    files = {name: folder / f"{name}.tif" for name in ("palette", "palette, no data", "jpeg", "bands, copies", "jpeg, copies", "pages")}
    tifffile.imwrite(files["palette"], NUMBERS, photometric="palette", colormap=PALETTE, rowsperstrip=7)
    nodata = [(42113, "s", 0, "0", True)]
    tifffile.imwrite(
        files["palette, no data"], NUMBERS, photometric="palette", colormap=PALETTE, tile=(16, 32), compression="zlib", extratags=nodata
    )
    ycbcr: dict[str, Any] = {"photometric": "ycbcr", "compression": "jpeg", "subsampling": (2, 2)}
    tifffile.imwrite(files["jpeg"], COLOURS, tile=(32, 48), **ycbcr)
    cloud_optimised(files["bands, copies"], BANDS[0].astype(np.uint16), photometric="minisblack", compression="zlib")
    cloud_optimised(files["jpeg, copies"], COLOURS, **ycbcr)
    with tifffile.TiffWriter(files["pages"]) as writer:
        for band in BANDS.astype(np.uint16):
            writer.write(band, photometric="minisblack", rowsperstrip=9, metadata=None, contiguous=False)
            writer.write(band[::2, ::2], photometric="minisblack", metadata=None)
    return files


@pytest.mark.parametrize("name", ["palette", "palette, no data", "jpeg", "bands, copies", "jpeg, copies", "pages"])
def test_palettes_ycbcr_and_files_of_several_pages_are_read_by_rows(name: str, tmp_path: Path) -> None:
    file = scenes(tmp_path)[name]
    config = ImageConfig(size=16, tile=16, animated="first" if name == "pages" else "refuse")
    with file.open("rb") as opened:
        assert tiff_rows(opened, file.stat().st_size, as_bands=False, rows=16, first_page=name == "pages") is not None
    found, expected = windows(file, config), of_the_whole(file, config)
    assert len(found) == len(expected) == 30
    off = 3 if name.startswith("jpeg") else 0  # two decoders of JPEG round differently
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(np.asarray(ours).astype(int) - theirs.astype(int)).max() <= off
    assert len({np.asarray(window).tobytes() for window in found}) > 20, "or nothing is compared"


def test_a_palette_shows_colours_and_its_gaps_are_those_of_its_numbers(tmp_path: Path) -> None:
    file = scenes(tmp_path)["palette, no data"]
    (found,) = find_images([file]).files
    first, *_, last = (record.content for record in records(found, ImageConfig(size=16, tile=16)) if isinstance(record, Record))
    assert np.ma.getmaskarray(first).all(), "BANDS are 0 here"
    assert not np.ma.getmaskarray(last).all()
    np.testing.assert_array_equal(np.ma.getdata(last), (PALETTE >> 8)[:, NUMBERS[-16:, -16:]])


def test_several_images_in_one_file_are_refused_unless_the_first_is_meant(tmp_path: Path) -> None:
    (said,) = windows(scenes(tmp_path)["pages"], ImageConfig(size=16, tile=16))
    assert said == "holds 6 pages."


def test_what_must_be_decoded_whole_is_refused_by_its_size_before_it_is_read(tmp_path: Path) -> None:
    """CMYK of 400 million pixels, in a file of some kilobytes."""
    file = tmp_path / "huge.tif"
    tiles = iter([np.ones((2048, 2048, 4), np.uint8), *[None] * 99])
    tifffile.imwrite(file, tiles, shape=(20_000, 20_000, 4), dtype=np.uint8, tile=(2048, 2048), photometric="separated", compression="zlib")
    tracemalloc.start()
    (said,) = windows(file, ImageConfig(size=16, tile=16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said == "has CMYK colours, so it is decoded whole: 20,000 x 20,000 are more than 89 million pixels."
    assert peak < 2e6


def test_what_is_shown_otherwise_than_stored_is_decoded_whole(tmp_path: Path) -> None:
    """Transparency, white as 0, another orientation: nothing of that is guessed. Of bands asked for, numbers stay as they are stored."""
    rgba = (np.arange(40 * 40 * 4) % 251).reshape(40, 40, 4).astype(np.uint8)
    deep = rgba.astype(np.uint16) * 261
    deep[20, 20, 3] = 65535  # opaque there, so it is no band
    for name, image, more in (
        ("alpha", rgba, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ("deep alpha", deep, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ("deep white", rgba[..., 0].astype(np.uint16) * 261, {"photometric": "miniswhite"}),
        ("white", rgba[..., 0], {"photometric": "miniswhite"}),
        ("turned", rgba[..., :3], {"photometric": "rgb", "extratags": [(274, "H", 1, 3, True)]}),
    ):
        file = tmp_path / f"{name}.tif"
        tifffile.imwrite(file, image, **more)
        config = ImageConfig(size=16, tile=16)
        with file.open("rb") as opened:
            assert tiff_rows(opened, file.stat().st_size, as_bands=False, rows=16) is None
        if name == "deep alpha":
            assert {len(window) for window in windows(file, config)} == {3}
            bands = windows(file, ImageConfig(size=16, tile=16, mode="bands"))
            assert np.array_equal(bands[0], image[:16, :16].transpose(2, 0, 1))
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(windows(file, config), of_the_whole(file, config), strict=True))


def test_a_large_scene_whose_last_band_is_called_transparency_can_be_read_as_bands(tmp_path: Path) -> None:
    """What tifffile writes of four bands. Row by row nobody knows whether it is."""
    file, scene = tmp_path / "scene.tif", np.random.default_rng(0).integers(0, 4000, (60, 50, 4)).astype(np.uint16)
    tifffile.imwrite(file, scene)
    small = ImageConfig(size=16, tile=16, max_megapixels=0.001)
    (found,) = find_images([file]).files
    (fault,) = records(found, small)
    assert isinstance(fault, Fault)
    assert "its last band is transparency, so it is decoded whole" in fault.what
    assert "--image.mode bands" in fault.mend
    bands = windows(file, dataclasses.replace(small, mode="bands"))
    assert np.array_equal(bands[0], scene[:16, :16].transpose(2, 0, 1))
    assert {len(window) for window in windows(file, ImageConfig(size=16, tile=16))} == {4}


WIDE: dict[str, dict[str, Any]] = {
    "tiles": {"photometric": "minisblack", "tile": (64, 64), "compression": "zlib"},
    "uncompressed": {"photometric": "minisblack"},
    "palette": {"photometric": "palette", "colormap": PALETTE, "tile": (64, 64), "compression": "zlib"},
}


@pytest.mark.parametrize("way", WIDE)
def test_a_scene_is_never_in_memory_whole(way: str, tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    kind = np.uint8 if way == "palette" else np.uint16
    scene = np.random.default_rng(0).integers(0, 9, (3000 * 2 // np.dtype(kind).itemsize, 1500)).astype(kind)  # 9 MB
    tifffile.imwrite(file, scene, **WIDE[way])
    (found,) = find_images([file]).files
    config, count = ImageConfig(size=64, tile=64, mode="bands"), 0
    list(records(found, ImageConfig(size=64, tile=1500, mode="bands")))  # what libraries keep for themselves
    tracemalloc.start()
    for record in records(found, config):
        assert isinstance(record, Record)
        count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == len(window_places(len(scene), 64)) * 24
    assert peak < scene.nbytes / 3


def test_what_must_be_decoded_whole_or_states_too_much_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "empty.tif"
    tiles = iter([np.ones((4096, 4096), np.uint16), *[None] * 24])
    tifffile.imwrite(file, tiles, shape=(20_000, 20_000), dtype=np.uint16, tile=(4096, 4096), photometric="minisblack", compression="zlib")
    (said,) = windows(file, ImageConfig(size=16, tile=16, mode="bands"))
    assert isinstance(said, str)
    assert said.startswith("states 0.8 GB of pixels in 0.0 MB")
    with file.open("rb") as opened, pytest.raises(Unusable, match="MB would be decoded at once"):
        tiff_rows(opened, 10**9, as_bands=True, rows=10**9)


def test_a_file_that_changes_while_it_is_read_ends_the_work(tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    tifffile.imwrite(file, np.ones((64, 64), np.uint16), photometric="minisblack", tile=(16, 16))
    (found,) = find_images([file]).files
    reading = records(found, ImageConfig(size=16, tile=16, mode="bands"))
    next(reading)
    with file.open("ab") as opened:
        opened.write(b"\0")
    with pytest.raises(BadInput, match="the file changed while it was read"):
        list(reading)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1200), byte=st.integers(0, 255), cut=st.integers(0, 3000), way=st.sampled_from(sorted(WAYS)))
def test_damaged_bytes_end_in_a_sentence(place: int, byte: int, cut: int, way: str, tmp_path: Path) -> None:
    file = tmp_path / "scene.tif"
    tifffile.imwrite(file, BANDS[0].astype(np.uint16), photometric="minisblack", **WAYS[way])
    data = bytearray(file.read_bytes())
    data[min(place, len(data) - 1)] = byte
    file.write_bytes(data[: max(8, len(data) - cut)])
    for found in windows(file, ImageConfig(size=16, tile=16, mode="bands")):
        assert isinstance(found, np.ndarray) or "object at" not in found
