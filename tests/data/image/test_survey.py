"""How many images there are and how large, from headers alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from headstart.data.image.config import ImageConfig
from headstart.data.image.pair_config import PairConfig
from headstart.data.image.pairs import prepare_pairs
from headstart.data.image.store import prepare_images
from headstart.data.image.survey import FILES, Survey, survey
from tests.data.image.pictures import encoded, npy, smooth, tiff

SIDES = (20, 30, 40, 50, 60)  # of five images, the shorter ones


def photographs(folder: Path) -> None:
    for side, suffix in zip(SIDES, ("jpg", "png", "jpeg", "webp", "gif"), strict=True):
        picture = Image.fromarray(smooth(side, side + 30, side))
        (picture.convert("P") if suffix == "gif" else picture).save(folder / f"{side}.{suffix}")


def greys(folder: Path) -> None:
    for side in SIDES:
        (folder / f"{side}.png").write_bytes(encoded(np.zeros((side + 9, side), np.uint16)))


def tiles(folder: Path) -> None:
    for side in SIDES:
        (folder / f"{side}.npy").write_bytes(npy(np.zeros((10, side, side), np.uint16)))


def geotiffs(folder: Path) -> None:
    for side in SIDES:
        pixels = np.zeros((side, side, 4), np.uint16)
        kind = {"extrasamples": [0, 0, 0]} if side in SIDES[1::2] else {"photometric": "rgb"}  # a fourth band called transparency
        (folder / f"{side}.tif").write_bytes(tiff(pixels, **{"photometric": "minisblack", "planarconfig": "contig"} | kind))


def transparent_tiffs(folder: Path) -> None:
    for side in SIDES:
        (folder / f"{side}.tif").write_bytes(tiff(np.zeros((side, side, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]))


def archive(folder: Path) -> None:
    with tarfile.open(folder / "images.tar", "w") as tar:
        for side in SIDES:
            data = encoded(smooth(side, side, side))
            entry = tarfile.TarInfo(f"{side}.png")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def parquet(folder: Path) -> None:
    pq.write_table(pa.table({"image": [encoded(smooth(side, side + 5, side)) for side in SIDES]}), folder / "images.parquet")


def npz(folder: Path) -> None:
    np.savez_compressed(folder / "images.npz", images=np.zeros((100, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (photographs, Survey(5, 40, 3)),
        (greys, Survey(5, 40, 1)),
        (tiles, Survey(5, 40, 10)),
        (geotiffs, Survey(5, 40, 4)),
        (transparent_tiffs, Survey(5, 40, 3)),
        (archive, Survey(5, 40, 3)),
        (parquet, Survey(5, 40, 3)),
        (npz, Survey(100, 28, 1)),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_lies_in_a_folder(write: Callable[[Path], None], found: Survey, tmp_path: Path) -> None:
    write(tmp_path)
    assert survey([tmp_path], ImageConfig()) == found


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    photographs(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert survey([tmp_path], ImageConfig()) == Survey(7, 40, 3)


@pytest.mark.parametrize("contents", [{}, {"a.txt": b"text"}, {"a.png": b"no image"}], ids=["empty", "texts", "no image"])
def test_nothing_is_found_where_nothing_can_be_read(contents: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert survey([tmp_path], ImageConfig()) is None
    assert survey([tmp_path / "gone"], ImageConfig()) is None


def test_many_files_are_counted_and_some_are_looked_at(tmp_path: Path) -> None:
    """From the first to the last, so that folders of other sizes are seen too."""
    large, small = encoded(smooth(48, 48)), encoded(smooth(16, 16))
    for number in range(3 * FILES):
        (tmp_path / f"{number:05d}.png").write_bytes(large if number >= FILES else small)
    assert survey([tmp_path], ImageConfig()) == Survey(3 * FILES, 48, 3)


def test_settings_decide_the_channels(tmp_path: Path) -> None:
    photographs(tmp_path)
    for settings, channels in (({"mode": "grey"}, 1), ({"bands": (1, 2)}, 2), ({"mode": "bands"}, 3)):
        found = survey([tmp_path], ImageConfig(**settings))
        assert found is not None
        assert found.channels == channels


def test_a_store_is_looked_at_by_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    photographs(tmp_path / "data")
    store = prepare_images([tmp_path / "data"], tmp_path / "store", ImageConfig(size=24))
    assert survey([store.folder], ImageConfig()) == Survey(5, 24, 3)
    assert survey([store.folder, tmp_path / "data"], ImageConfig()) is None  # which the run refuses
    (store.folder / "manifest.json").write_text('{"kind": "text"}')
    assert survey([store.folder], ImageConfig()) is None


@pytest.mark.parametrize("value", ["x", None, 0, -1, 5.0, True, [], 1e400], ids=repr)
@pytest.mark.parametrize("name", ["counts.images", "form.size", "form.channels"])
def test_a_damaged_manifest_decides_nothing(name: str, value: object, tmp_path: Path) -> None:
    manifest: dict[str, dict[str, object]] = {"counts": {"images": 5}, "form": {"size": 24, "channels": 3}}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    assert survey([tmp_path], ImageConfig()) == Survey(5, 24, 3)
    group, field = name.split(".")
    manifest[group][field] = value
    path.write_text(json.dumps(manifest))
    assert survey([tmp_path], ImageConfig()) is None


def test_a_name_that_is_too_long_for_a_file_is_passed_over() -> None:
    assert survey(["x" * 300], ImageConfig()) is None


def test_pairs_are_looked_at_as_they_are_listed(tmp_path: Path) -> None:
    for name in ("a_1", "a_2"):
        (tmp_path / f"{name}.png").write_bytes(encoded(smooth(40, 44)))
    (tmp_path / "pairs.txt").write_text("a_1.png a_2.png\n")
    assert survey([tmp_path / "pairs.txt"], PairConfig()) == survey([tmp_path], PairConfig()) == Survey(2, 40, 3, pairs=1)
    assert survey([tmp_path], PairConfig(pairing="twos")) == Survey(2, 40, 3, pairs=1)
    assert survey([tmp_path], PairConfig(pairing="crops")) == Survey(2, 40, 3, pairs=2)


def test_a_store_of_pairs_says_how_many_it_holds(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(6):
        (tmp_path / "data" / f"{number // 2}_{number % 2 + 1}.png").write_bytes(encoded(smooth(40, 44, seed=number)))
    store = prepare_pairs([tmp_path / "data"], tmp_path / "store", PairConfig(size=24))
    assert survey([store.folder], PairConfig()) == Survey(6, 24, 3, pairs=3)
    assert survey([store.folder], ImageConfig()) == Survey(6, 24, 3)
    (store.folder / "pairs.json").write_text('{"counts": {"pairs": "x"}}')
    assert survey([store.folder], PairConfig()) is None
