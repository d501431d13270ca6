"""Large images in windows, and pixels without data: what is kept, what is filled, what is counted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from headstart.core.errors import BadInput, UsageError
from headstart.data.image.config import ImageConfig
from headstart.data.image.head import read_images
from headstart.data.image.prepare import prepare_images
from headstart.data.image.read import window_places
from tests.running import environment


def scene(bands: int = 4, height: int = 40, width: int = 70, kind: Any = np.uint16) -> np.ndarray:
    """[bands, height, width], every value once."""
    return (np.arange(bands * height * width) + 1).reshape(bands, height, width).astype(kind)


def test_windows_lie_beside_each_other_and_the_last_reaches_the_end() -> None:
    assert window_places(64, 16) == [0, 16, 32, 48]
    assert window_places(40, 16) == [0, 16, 24]
    assert window_places(16, 16) == [0]


@pytest.mark.parametrize("layout", ["auto", "channels-last"])
def test_a_scene_becomes_its_windows(layout: Any, tmp_path: Path) -> None:
    bands = scene()
    tifffile.imwrite(tmp_path / "scene.tif", bands, photometric="minisblack", planarconfig="separate")
    np.save(tmp_path / "scene.npy", bands if layout == "auto" else bands.transpose(1, 2, 0))
    config = ImageConfig(size=16, tile=16, mode="bands", bands=(4, 1), layout=layout, held_out_share=0.0, duplicates="keep")
    places = [(top, left) for top in (0, 16, 24) for left in (0, 16, 32, 48, 54)]
    expected = np.stack([bands[[3, 0], top : top + 16, left : left + 16] for top, left in places])
    for name in ("scene.tif", "scene.npy"):
        if layout == "channels-last" and name == "scene.tif":
            continue  # a TIFF says its layout itself, and is handed on in that of arrays
        store = prepare_images([tmp_path / name], tmp_path / f"store-{name}", config)
        assert np.array_equal(store.read(range(15)), expected)
        assert [store.source(index)[1] for index in range(15)] == list(range(1, 16))
        assert store.source(3)[0].endswith(name)
    if layout == "channels-last":
        store = prepare_images([tmp_path / "scene.tif"], tmp_path / "store-tif", config)
        assert np.array_equal(store.read(range(15)), expected)


def test_photographs_are_cut_too_and_windows_may_be_larger_than_stored_images(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "scan.png")
    store = prepare_images([tmp_path / "scan.png"], tmp_path / "store", ImageConfig(size=32, tile=32, held_out_share=0.0))
    assert len(store) == 6
    assert store.form.colour == "rgb"
    assert np.array_equal(store.read([4])[0], picture[32:, 32:64].transpose(2, 0, 1))
    half = prepare_images([tmp_path / "scan.png"], tmp_path / "half", ImageConfig(size=16, tile=32, held_out_share=0.0))
    assert half.read([0]).shape == (1, 3, 16, 16)
    assert len(list(read_images([tmp_path / "scan.png"], ImageConfig(tile=32)))) == 6


KILLED = """
import sys
from headstart.data.image.config import ImageConfig
from headstart.data.image.store import prepare_images
from tests.at import At, watch
watch(At((9,), "0*.tmp", 2))
prepare_images([sys.argv[1]], sys.argv[2], ImageConfig(size=16, tile=16, held_out_share=0.0))
"""


@pytest.mark.slow
def test_killed_between_two_windows_a_preparation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """700 windows of one file are two parts; the kill comes before the second has its name."""
    np.save(tmp_path / "scene.npy", scene(bands=1, height=320, width=560, kind=np.float32))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "scene.npy"), str(tmp_path / "store")]
    assert subprocess.run(command, env=environment(), check=False).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "store" / ".work" / "parts").glob("*.safetensors"))) == 1
    config = ImageConfig(size=16, tile=16, held_out_share=0.0)
    for name in ("store", "whole"):
        assert len(prepare_images([tmp_path / "scene.npy"], tmp_path / name, config)) == 700
    for file in (tmp_path / "whole").glob("*.*"):
        assert file.read_bytes() == (tmp_path / "store" / file.name).read_bytes()


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "small.npy", scene(height=10))
    with pytest.raises(BadInput, match="smaller than a window of 16"):
        prepare_images([tmp_path / "small.npy"], tmp_path / "store", ImageConfig(size=16, tile=16, mode="bands"))
    np.save(tmp_path / "many.npy", scene(bands=16))
    with pytest.raises(BadInput, match="16 bands, a window 16 pixels"):
        prepare_images([tmp_path / "many.npy"], tmp_path / "store", ImageConfig(size=16, tile=16, mode="bands"))
    with pytest.raises(UsageError, match="no encoded form"):
        ImageConfig(tile=16, storage="encoded")


def test_pixels_without_data_are_filled_and_left_out_of_the_statistics(tmp_path: Path) -> None:
    """A GeoTIFF says 0 itself: the statistics are those of the other pixels."""
    random = np.random.default_rng(0)
    images = [random.integers(100, 3000, (3, 20, 20)).astype(np.uint16) for _ in range(12)]
    for number, image in enumerate(images):
        image[:, :1, : number + 1] = 0  # up to 12 of 400 pixels
        options = {"photometric": "minisblack", "planarconfig": "separate", "extratags": [(42113, "s", 0, "0", True)]}
        tifffile.imwrite(tmp_path / f"{number:02d}.tif", image, **options)
    store = prepare_images([tmp_path], tmp_path.parent / "store", ImageConfig(size=20, mode="bands", held_out_share=0.0))
    counts = store.manifest["counts"]
    assert counts["images_with_gaps"] == 12
    assert counts["images_without_data"] == 0
    assert any("12 images have pixels without data" in line for line in store.report())
    there = [image[:, image[0] > 0].astype(np.float64) for image in images]
    means = np.stack([values.mean(1) for values in there])
    assert np.allclose(store.mean, means.mean(0), rtol=2e-4), "a filled value is rounded"
    variance = np.mean([np.square(values - store.mean[:, None]).mean(1) for values in there], 0)
    assert np.allclose(store.std, np.sqrt(variance), rtol=1e-3)
    filled = store.read([11])[0]
    assert np.array_equal(filled[:, 0, 0], np.rint(means[11]).astype(np.uint16))
    assert np.array_equal(filled[:, 1:], images[11][:, 1:])


def test_windows_with_too_many_gaps_are_left_out_and_counted(tmp_path: Path) -> None:
    values = scene(bands=2, height=32, width=64, kind=np.float32)
    values[:, :, :20] = np.nan  # two windows wholly, two by a quarter
    values[0, 20, 60] = np.nan
    np.save(tmp_path / "scene.npy", values)
    with pytest.raises(BadInput, match="no finite numbers"):
        prepare_images([tmp_path / "scene.npy"], tmp_path / "refused", ImageConfig(size=16, tile=16, mode="bands"))
    settings: dict[str, Any] = {"size": 16, "tile": 16, "mode": "bands", "nodata": "nan", "held_out_share": 0.0}
    store = prepare_images([tmp_path / "scene.npy"], tmp_path / "store", ImageConfig(**settings))
    assert len(store) == 4
    assert store.manifest["counts"]["images_without_data"] == 4
    named = [json.loads(line) for line in (tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["record"], line["what"]) for line in named] == [
        (record, f"has no data in {share} of its pixels.") for record, share in ((1, "100.0%"), (2, "25.0%"), (5, "100.0%"), (6, "25.0%"))
    ]
    assert any("4 images left out" in line and "quarantine.jsonl names each" in line for line in store.report())
    (tmp_path / "store" / "quarantine.jsonl").write_text('{"file": "of a bad image", "record": 0, "what": "is empty.", "mend": ""}\n')
    assert any("4 images left out" in line and "not in this store: prepare the same images into another folder" in line for line in store.report())
    assert np.isfinite(store.read(range(4))).all()
    assert np.isfinite(store.std).all()
    most = prepare_images([tmp_path / "scene.npy"], tmp_path / "most", ImageConfig(**settings, max_nodata_share=0.3))
    assert len(most) == 6
    np.save(tmp_path / "scene.npy", np.full_like(values, np.nan))
    with pytest.raises(BadInput, match="each of 8 images has more than 0% pixels without data"):
        prepare_images([tmp_path / "scene.npy"], tmp_path / "none", ImageConfig(**settings, max_nodata_share=0.0))


def test_a_number_says_no_data_only_where_every_band_has_it(tmp_path: Path) -> None:
    values = scene(bands=2, height=16, width=16, kind=np.int16)
    values[:, 0, 0] = -9999
    values[0, 5, 5] = -9999
    np.save(tmp_path / "one.npy", values)
    store = prepare_images([tmp_path / "one.npy"], tmp_path / "store", ImageConfig(size=16, mode="bands", nodata="-9999", held_out_share=0.0))
    pixels = store.read([0])[0]
    assert pixels[0, 5, 5] == -9999
    assert pixels[0, 0, 0] > 0
    with pytest.raises(UsageError, match="nodata is 'none'"):
        ImageConfig(nodata="none")


def test_stores_made_before_these_settings_are_still_theirs() -> None:
    assert not {"tile", "nodata", "max_nodata_share"} & ImageConfig().preparation().keys()
    assert ImageConfig(tile=64).preparation()["tile"] == 64
