"""Dense tasks on tiles with a file for each band: which files are one image, and what they are read as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import BadInput
from headstart.data.image.head import content_of
from headstart.data.image.reading import Reading
from headstart.data.image.target_sources import find_targets
from headstart.tasks.dense_config import SegmentationConfig
from headstart.tasks.dense_data import read_dense
from tests.data.image.test_band_files import BANDS, write_tile
from tests.data.image.test_target_sources import touch

NAMES = ("B02", "B8A")


@pytest.mark.parametrize(
    ("task", "files", "record"),
    [
        ("segmentation", ["images/t_B02.tif", "images/t_B8A.tif", "masks/t.png"], ("images/t_B02.tif", "masks/t.png")),
        ("segmentation", ["images/t.1/B02.tif", "images/t.1/B8A.tif", "masks/t.1.png"], ("images/t.1/B02.tif", "masks/t.1.png")),
        ("segmentation", ["t/t_B02.tif", "t/t_B8A.tif", "t/t_mask.png"], ("t/t_B02.tif", "t/t_mask.png")),
        ("dense-regression", ["t_B02.tif", "t_B8A.tif", "t.npy"], ("t_B02.tif", "t.npy")),
        ("segmentation", ["images/t.tif", "masks/t.png"], ("images/t.tif", "masks/t.png")),
        (
            "stereo",
            ["left/1_B02.tif", "left/1_B8A.tif", "right/1_B02.tif", "right/1_B8A.tif", "disparity/1.pfm"],
            ("left/1_B02.tif", "right/1_B02.tif", "disparity/1.pfm"),
        ),
    ],
    ids=["folders", "a folder a tile", "with its mask", "beside", "stacked", "two views"],
)
def test_files_of_a_tile_are_one_image(task: str, files: list[str], record: tuple[str, ...], tmp_path: Path) -> None:
    found = find_targets(touch(tmp_path, *files), task, NAMES)
    assert [tuple(path.relative_to(tmp_path).as_posix() for path in (*one.views, one.target)) for one in found.records] == [record]
    assert not found.notes


def test_a_list_names_any_file_of_a_tile_and_other_bands_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "images/t_B02.tif", "images/t_B8A.tif", "images/t_B09.tif", "masks/t.png")
    (tmp_path / "list.txt").write_text("images/t_B8A.tif masks/t.png\n")
    assert find_targets(tmp_path / "list.txt", "segmentation", NAMES).records[0].views == (tmp_path / "images" / "t_B02.tif",)
    assert "1 file in" in find_targets(tmp_path, "segmentation", NAMES).notes[0]


def test_tiles_are_read_as_their_bands_stacked(tmp_path: Path) -> None:
    reading, mask = Reading(band_files=BANDS), np.zeros((20, 20), np.uint8)
    mask[:9] = 1
    (tmp_path / "masks").mkdir()
    bands = [write_tile(tmp_path / "images", f"{name}_", seed=seed) for seed, name in enumerate("ab")]
    for name in "ab":
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
    data = read_dense(tmp_path, "segmentation", SegmentationConfig(), 3, reading=reading)
    for number, expected in enumerate(bands):
        np.testing.assert_array_equal(data[number].views[0], expected)
    np.testing.assert_array_equal(content_of(tmp_path / "images" / "a_B11.tif", reading.config(3)), bands[0])
    (tmp_path / "images" / "b_B11.tif").unlink()
    with pytest.raises(BadInput, match=r"b: lacks the band B11 \(b_B11.tif\)\.\nGive tiles as the network learned from: a file each for B02 B8A B11"):
        read_dense(tmp_path, "segmentation", SegmentationConfig(), 3, reading=reading)
