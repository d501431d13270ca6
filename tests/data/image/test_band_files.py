"""Tiles with a file for each band: which files make one, what is refused of it, and the store of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from headstart.core.errors import BadInput, UsageError
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import form_of
from headstart.data.image.head import Tile, decode_records, read_images, read_labelled
from headstart.data.image.prepare import prepare_images
from headstart.data.image.read import Fault, read_tile
from headstart.data.image.reading import Reading
from headstart.data.image.sources import find_images
from headstart.data.image.store import ImageStore
from headstart.data.image.survey import Survey, survey
from headstart.tasks.image_data import read_images as read_classes
from headstart.tasks.image_data import read_pixels

BANDS = ("B02", "B8A", "B11")
RANDOM = np.random.default_rng(0)


def write_tile(folder: Path, name: str, bands: tuple[str, ...] = BANDS, size: int = 20, seed: int = 0) -> np.ndarray:
    """A tile as BigEarthNet has it; its bands."""
    folder.mkdir(parents=True, exist_ok=True)
    found = np.random.default_rng(seed).integers(0, 4000, (len(bands), size, size)).astype(np.uint16)
    for band, values in zip(bands, found, strict=True):
        tifffile.imwrite(folder / f"{name}{band}.tif", values, photometric="minisblack")
    return found


def config(**more: Any) -> ImageConfig:
    return ImageConfig(**{"size": 20, "band_files": BANDS, "held_out_share": 0.0} | more)


def tiles(source: Path, **more: Any) -> list[tuple[str, str | None]]:
    """(last part of the name, class) of each tile."""
    return [(Path(file.name).name, file.label) for file in find_images([source], config(**more)).files]


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        (("S2A_75/S2A_75_", "S2B_3/S2B_3_"), [("S2A_75", None), ("S2B_3", None)]),
        (("wet/S2A_75/S2A_75_", "dry/S2B_3/S2B_3_"), [("S2B_3", "dry"), ("S2A_75", "wet")]),
        (("wet/a_", "wet/b_", "dry/c."), [("c", "dry"), ("a", "wet"), ("b", "wet")]),
        (("wet/a/", "dry/b/"), [("b", "dry"), ("a", "wet")]),
    ],
    ids=["a folder a tile", "in folders of classes", "beside each other", "names of bands alone"],
)
def test_files_of_one_tile_are_one_image(places: tuple[str, ...], wanted: list[tuple[str, str | None]], tmp_path: Path) -> None:
    for place in places:
        write_tile((tmp_path / f"{place}x").parent, f"{place}x"[:-1].rpartition("/")[2])
    (tmp_path / places[0]).parent.joinpath("labels.json").write_text("{}")
    assert tiles(tmp_path) == wanted


def test_other_bands_are_counted_and_none_is_taken_for_another(tmp_path: Path) -> None:
    write_tile(tmp_path, "a_", (*BANDS, "B8", "TCI"))
    inputs = find_images([tmp_path], config(band_files=("B8", "B02")))
    assert [file.path.name for file in inputs.files[0].parts] == ["a_B8.tif", "a_B02.tif"]
    assert inputs.passed_over == {"files of no band that is asked for": 3}
    with pytest.raises(BadInput, match="no file is of a band that is asked for"):
        find_images([tmp_path], config(band_files=("2", "8A")))


def test_bands_are_stacked_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    values = write_tile(tmp_path / "in", "a_")
    store = prepare_images([tmp_path / "in"], tmp_path / "store", config(band_files=("B11", "B02"), mode="bands"))
    np.testing.assert_array_equal(store.read([0])[0], values[[2, 0]])
    assert store.form.colour == "bands"


def test_a_tile_that_lacks_a_band_is_a_fault_by_name(tmp_path: Path) -> None:
    for number in range(30):
        write_tile(tmp_path / "in", f"{number:02d}_", seed=number)
    (tmp_path / "in" / "03_B02.tif").unlink()
    with pytest.raises(BadInput, match=r"03: lacks the band B02 \(03_B02.tif\)"):
        prepare_images([tmp_path / "in"], tmp_path / "strict", config())
    store = prepare_images([tmp_path / "in"], tmp_path / "store", config(on_bad_input="quarantine"))
    assert (len(store), store.manifest["counts"]["quarantined"]) == (29, 1)
    assert "lacks the band B02" in (tmp_path / "store" / "quarantine.jsonl").read_text()


def fault(folder: Path, **more: Any) -> Fault:
    (file,) = find_images([folder], config(**more)).files
    found, _ = read_tile(file, config(**more))
    assert isinstance(found, Fault)
    return found


def test_bands_of_other_sizes_are_refused_by_name_or_enlarged_where_that_is_asked_for(tmp_path: Path) -> None:
    values = write_tile(tmp_path, "a_")
    small = RANDOM.integers(0, 4000, (10, 10)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a_B11.tif", small, photometric="minisblack")
    said = fault(tmp_path)
    assert said.what == "has bands of different sizes: B02 20 x 20, B11 10 x 10."
    assert "--image.resample-bands" in said.mend
    (file,) = find_images([tmp_path], config(resample_bands=True)).files
    found, _ = read_tile(file, config(resample_bands=True))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found[:2], values[:2])
    wanted = np.asarray(Image.fromarray(small.astype(np.float32)).resize((20, 20), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(found[2], np.rint(wanted).clip(0, 65535))


def test_what_else_does_not_fit_together(tmp_path: Path) -> None:
    write_tile(tmp_path, "a_")
    tifffile.imwrite(tmp_path / "a_B8A.tif", np.zeros((20, 20), np.uint8), photometric="minisblack")
    assert "has bands of different types: B02 uint16, B8A uint8." in fault(tmp_path).what
    tifffile.imwrite(tmp_path / "a_B8A.tif", np.zeros((3, 20, 20), np.uint16), photometric="minisblack", planarconfig="separate")
    assert fault(tmp_path).what == "has 3 bands in the file of B8A."
    (tmp_path / "a_B8A.tif").write_bytes(b"no image")
    assert "has a band B8A that is no image" in fault(tmp_path).what
    for more in ({"bands": (1,)}, {"storage": "encoded"}, {"band_files": ("B1", "B1")}, {"layout": "channels-last"}, {"band_files": ("",)}):
        with pytest.raises(UsageError, match=r"^--image\."):
            config(**more)
    with pytest.raises(UsageError, match=r"--image\.resample-bands is for --image\.band-files"):
        ImageConfig(resample_bands=True)


def test_gaps_of_one_band_are_gaps_of_it(tmp_path: Path) -> None:
    values = write_tile(tmp_path / "in", "a_") + 1
    values[1, :1] = 0
    for band, content in zip(BANDS, values, strict=True):
        tifffile.imwrite(tmp_path / "in" / f"a_{band}.tif", content, photometric="minisblack", extratags=[(42113, "s", 0, "0", True)])
    found = prepare_images([tmp_path / "in"], tmp_path / "store", config()).read([0])[0]
    np.testing.assert_array_equal(found[[0, 2]], values[[0, 2]])
    np.testing.assert_array_equal(found[1, 0], np.full(20, round(values[1, 1:].mean())))


def test_a_store_of_tiles_knows_its_files_again(tmp_path: Path) -> None:
    for number in range(6):
        write_tile(tmp_path / "in" / f"t{number}", f"t{number}_", seed=number)
    first = prepare_images([tmp_path / "in"], tmp_path / "store", config())
    touched = tmp_path / "in" / "t3" / "t3_B11.tif"
    touched.touch()
    again = prepare_images([tmp_path / "in"], tmp_path / "store", config())
    assert isinstance(again, ImageStore)
    assert first.manifest == again.manifest
    write_tile(tmp_path / "in" / "t3", "t3_", seed=99)
    with pytest.raises(UsageError, match="1 changed input files"):
        prepare_images([tmp_path / "in"], tmp_path / "store", config())
    assert survey([str(tmp_path / "in")], config()) == Survey(6, 20, 3)


def test_windows_of_tiles(tmp_path: Path) -> None:
    values = write_tile(tmp_path / "in", "a_", size=32)
    store = prepare_images([tmp_path / "in"], tmp_path / "store", config(size=16, tile=16))
    np.testing.assert_array_equal(store.read([3])[0], values[:, 16:, 16:])


def test_lists_name_a_tile_by_any_of_its_bands_and_classes_are_read(tmp_path: Path) -> None:
    values = [write_tile(tmp_path / name, f"{name}_", seed=seed) for seed, name in enumerate("ab")]
    (tmp_path / "list.csv").write_text("image,label\na/a_B11.tif,wet\nb/b_B02.tif,dry\n")
    found = read_labelled(tmp_path / "list.csv", config())
    assert [found.classes[label] for label in found.labels] == ["wet", "dry"]
    for content, wanted in zip(found.images, values, strict=True):
        assert isinstance(content, Tile), "read where it is decoded, not held"
        np.testing.assert_array_equal(content.read(), wanted)
    np.testing.assert_array_equal(decode_records(found.images, lambda first: form_of(first, config(mode="bands"))), values)
    assert [Path(name).name for name, _ in read_images([tmp_path / "list.csv"], config())] == ["a", "b"]


def test_labelled_tiles_that_somebody_stacked_are_read_whole(tmp_path: Path) -> None:
    """A network of files of bands is fine-tuned on tiles of either kind."""
    values = [np.random.default_rng(seed).integers(0, 4000, (3, 20, 20)).astype(np.uint16) for seed in range(2)]
    for name, tile in zip(("dry", "wet"), values, strict=True):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "tile.tif", tile, photometric="minisblack", planarconfig="separate")
    reading = Reading(band_files=BANDS)
    found = read_classes(tmp_path, 3, 20, reading=reading)
    np.testing.assert_array_equal(found.images, values)
    assert found.labels.tolist() == [0, 1]
    write_tile(tmp_path / "bands", "a_")
    with pytest.raises(BadInput, match="has 1 channels") as caught:
        read_pixels([tmp_path / "bands" / "a_B02.tif"], 3, 20, reading=reading)
    assert f"Give tiles with a file each for {' '.join(BANDS)}, or with these bands stacked in one file." in caught.value.mend
