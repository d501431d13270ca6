"""Folders become stores: the same bytes however often, by however many workers and after any kill; faults are named; statistics are exact."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.core.errors import BadInput, OtherStore, UsageError
from headstart.data.image.config import ImageConfig
from headstart.data.image.prepare import statistics
from headstart.data.image.store import ImageStore, open_image_store, prepare_images
from tests.data.image.pictures import encoded, npy, smooth, write_folder
from tests.running import assert_same_however_killed, environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "photos", classes=3, each=12)


def prepared(source: Path, out: Path, **settings: Any) -> ImageStore:
    return prepare_images([source], out, ImageConfig(**({"size": 16, "held_out_share": 0.2} | settings)))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_a_folder_becomes_a_store(folder: Path, tmp_path: Path) -> None:
    store = prepared(folder, tmp_path / "store")
    assert store.images.shape == (36, 3, 16, 16)
    assert store.images.dtype == np.uint8
    assert store.classes == ["class0", "class1", "class2"]
    np.testing.assert_array_equal(store.labels, np.repeat([0, 1, 2], 12))
    assert store.source(13) == (str(folder / "class1" / "001.png"), 0)
    assert 0 < store.held_out.sum() < 18
    assert len(store.rows("train")) + len(store.rows("held_out")) == 36
    assert not (tmp_path / "store" / ".work").exists()
    store.verify()
    assert "36 images of 3 x 16 x 16 uint8, rgb (decoded)" in store.report()
    assert "3 classes: class0 12, class1 12, class2 12" in store.report()


def test_statistics_are_those_of_the_training_pixels(folder: Path, tmp_path: Path) -> None:
    store = prepared(folder, tmp_path / "store")
    train = store.images[store.rows("train")].astype(np.float64)
    np.testing.assert_allclose(store.mean, train.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(store.std, train.std((0, 2, 3)), rtol=1e-12)
    everything = store.images.astype(np.float64)
    assert np.abs(store.mean - everything.mean((0, 2, 3))).max() > 1e-6  # not of the held-out ones too


def test_statistics_do_not_cancel_where_the_mean_is_large() -> None:
    values = 1e7 + np.random.default_rng(0).normal(size=(50, 2, 64))
    mean = values.mean(2)
    found_mean, found_deviation = statistics(mean, np.square(values - mean[..., None]).sum(2), 64)
    np.testing.assert_allclose(found_mean, values.mean((0, 2)), rtol=1e-13)
    np.testing.assert_allclose(found_deviation, values.std((0, 2)), rtol=1e-7)


def test_any_number_of_workers_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    one, three = (prepared(folder, tmp_path / f"{workers}", workers=workers) for workers in (1, 3))
    assert contents(one.folder) == contents(three.folder)
    assert set(contents(one.folder)) >= {"images.npy", "manifest.json", "inputs.parquet"}


def test_encoded_storage_gives_the_same_images(folder: Path, tmp_path: Path) -> None:
    pixels, files = prepared(folder, tmp_path / "a"), prepared(folder, tmp_path / "b", storage="encoded")
    order = np.array([35, 0, 7, 7])
    np.testing.assert_array_equal(files.read(order), pixels.read(order))
    np.testing.assert_array_equal(files.held_out, pixels.held_out)
    assert (files.mean == pixels.mean).all()
    np.savez(tmp_path / "x.npz", images=pixels.images[:, 0])
    with pytest.raises(UsageError, match="no encoded form"):
        prepared(tmp_path / "x.npz", tmp_path / "c", storage="encoded")


def test_copies_are_left_out_and_never_cross_from_held_out_to_training(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(30):
        (data / f"{number:02d}.png").write_bytes(encoded(smooth(16, 16, seed=number % 10)))
    (data / "z.bmp").write_bytes(encoded(smooth(16, 16, seed=3), "BMP"))  # the same pixels in another format
    store = prepared(data, tmp_path / "store")
    np.testing.assert_array_equal(np.flatnonzero(~store.dropped), np.arange(10))
    assert store.manifest["counts"]["duplicate_images"] == 21
    kept = prepared(data, tmp_path / "kept", duplicates="keep")
    assert not kept.dropped.any()
    assert not set(kept.hashes[kept.rows("train")]) & set(kept.hashes[kept.rows("held_out")])


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(24) % 12)
    store = prepared(tmp_path / "x.npz", tmp_path / "store", size=8)
    assert store.classes == [str(number) for number in range(12)]
    np.testing.assert_array_equal(store.labels, np.arange(24) % 12)
    np.testing.assert_array_equal(store.images[:, 0], images)
    assert store.source(4) == (str(tmp_path / "x.npz"), 5)


def test_one_folder_is_no_class(tmp_path: Path) -> None:
    store = prepared(write_folder(tmp_path / "data", classes=1), tmp_path / "store")
    assert store.classes == []
    assert (store.labels == -1).all()


# --- bad input ------------------------------------------------------------------------------------------------------------------------------------


def with_bad(folder: Path, data: Path) -> Path:
    shutil.copytree(folder, data)
    (data / "class1" / "005.png").write_bytes(b"no image")
    return data


def test_the_first_bad_image_ends_the_work(folder: Path, tmp_path: Path) -> None:
    data = with_bad(folder, tmp_path / "data")
    with pytest.raises(BadInput) as caught:
        prepared(data, tmp_path / "store")
    assert caught.value.file == str(data / "class1" / "005.png")
    assert "is no image" in caught.value.reason
    assert "--image.on-bad-input quarantine" in str(caught.value)
    assert not (tmp_path / "store" / "manifest.json").exists()
    shutil.copy(folder / "class1" / "005.png", data / "class1" / "005.png")
    assert len(prepared(data, tmp_path / "store")) == 36  # mended: the same command goes on


def test_bad_images_are_set_aside_up_to_a_share(folder: Path, tmp_path: Path) -> None:
    data = with_bad(folder, tmp_path / "data")
    store = prepared(data, tmp_path / "store", on_bad_input="quarantine")
    assert len(store) == 35
    assert store.manifest["counts"]["quarantined"] == 1
    (line,) = (tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()
    fault = json.loads(line)
    assert fault["file"] == str(data / "class1" / "005.png")
    assert fault["what"].startswith("is no image")
    with pytest.raises(BadInput, match=r"1 of 36 images is bad \(2\.8%\), more than --image\.max-bad-share"):
        prepared(data, tmp_path / "strict", on_bad_input="quarantine", max_bad_share=0.01)
    assert len(prepared(data, tmp_path / "strict", on_bad_input="quarantine")) == 35  # the raised share uses what was done


def test_a_folder_without_a_usable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match="no image that can be used"):
        prepared(tmp_path / "data", tmp_path / "store", on_bad_input="quarantine")


def test_equal_images_cannot_be_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in "ab":
        (tmp_path / "data" / f"{name}.npy").write_bytes(npy(np.eye(8, dtype=np.uint8)))
    with pytest.raises(BadInput, match="all images are equal"):
        prepared(tmp_path / "data", tmp_path / "store")
    assert len(prepared(tmp_path / "data", tmp_path / "all", held_out_share=0.0)) == 2


def test_images_of_one_colour_are_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    """They push DropPos's loss to that of guessing. Copies of one count once; others are held out as before."""
    shutil.copytree(folder, tmp_path / "data")
    before = prepared(folder, tmp_path / "before")
    for name, value in (("blank", 7), ("again", 7), ("white", 255)):
        Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(tmp_path / "data" / f"{name}.png")
    store = prepared(tmp_path / "data", tmp_path / "store")
    assert store.manifest["counts"]["one_colour_images"] == 2
    assert store.manifest["counts"]["training_images"] == before.manifest["counts"]["training_images"]
    assert store.manifest["mean"] == before.manifest["mean"]
    assert len(store.rows("held_out")) == len(before.rows("held_out"))
    named = [json.loads(line)["file"] for line in (tmp_path / "store" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(Path(name).stem for name in named) == ["again", "blank", "white"]
    assert any("2 images are of one colour" in line for line in store.warnings())


def test_images_of_one_colour_alone_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for value in (0.1, 0.7):  # fractions
        np.save(tmp_path / "data" / f"{value}.npy", np.full((8, 8), value, np.float32))
    with pytest.raises(BadInput, match="each of the 2 images is of one colour"):
        prepared(tmp_path / "data", tmp_path / "store")


def test_every_enlarged_image_is_said(folder: Path, tmp_path: Path) -> None:
    """Also where it is one of many: the median of the sides, which decides the defaults, is that of the files."""
    shutil.copytree(folder, tmp_path / "data")
    Image.fromarray(smooth(9, 30, seed=77)).save(tmp_path / "data" / "small.png")
    store = prepared(tmp_path / "data", tmp_path / "store", size=16)
    n = len(store)
    assert f"1 of {n} images is smaller than 16 pixels and was enlarged; --image.size sets the size" in store.warnings()
    assert store.manifest["median_side"] == 20


def test_the_side_of_a_large_photograph_is_that_of_its_file(tmp_path: Path) -> None:
    """A JPEG is decoded at a fraction of its size, and stands turned in its file."""
    (tmp_path / "data").mkdir()
    for seed in (1, 2):
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(smooth(400, 640, seed)).save(tmp_path / "data" / f"{seed}.jpg", exif=exif)
    assert prepared(tmp_path / "data", tmp_path / "store", size=16).manifest["median_side"] == 400


# --- once ----------------------------------------------------------------------------------------------------------------------------------------


def test_a_finished_store_is_opened_and_refused_where_files_or_settings_differ(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "data")
    store = prepared(data, tmp_path / "store")
    before = contents(store.folder)
    (data / "class0" / "000.png").touch()  # the time alone is no change
    assert contents(prepared(data, tmp_path / "store").folder) == before
    with pytest.raises(OtherStore, match="size 16 -> 8"):
        prepared(data, tmp_path / "store", size=8)
    (data / "class0" / "000.png").write_bytes(encoded(smooth(20, 20, seed=999)))
    with pytest.raises(OtherStore, match=r"1 changed input files \(.*000\.png"):
        prepared(data, tmp_path / "store")
    (data / "class0" / "000.png").unlink()
    with pytest.raises(OtherStore, match="36 -> 35 input files"):
        prepared(data, tmp_path / "store")


def test_nothing_is_written_into_the_data_or_over_other_files(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="inside the data folder"):
        prepared(folder, folder / "store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.doc").write_text("x")
    with pytest.raises(UsageError, match="holds other files"):
        prepared(folder, tmp_path / "mine")


@pytest.mark.slow
@pytest.mark.promise(
    "Killed before any single change that it makes on the disk (every one was tried), a preparation of images ends with the same bytes and leaves "
    "nothing else."
)
def test_killed_before_each_change_of_the_disk_a_preparation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    stages = ("plan.json", "parts/000002", "images.npy", "labels.npy", "inputs.parquet", "quarantine.jsonl", "manifest.json", "rmdir store/.work")
    assert_same_however_killed("prepare-images", stages, tmp_path)


KILLED = """
import sys
from headstart.data.image.config import ImageConfig
from headstart.data.image.store import prepare_images
from tests.at import At, watch
watch(At((9,), "0*.tmp", int(sys.argv[3]), "os.rename"))
prepare_images([sys.argv[1]], sys.argv[2], ImageConfig(size=16, held_out_share=0.2, workers=2))
"""


@pytest.mark.slow
@pytest.mark.promise("A preparation of images that is killed goes on where it was and ends with the same bytes.")
def test_killed_at_any_moment_a_preparation_ends_with_the_same_bytes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6000, 24, 24), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images)
    expected = prepared(tmp_path / "x.npz", tmp_path / "whole")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "x.npz"), str(tmp_path / "store")]
    parts = tmp_path / "store" / ".work" / "parts"
    for more, there in ((2, 1), (4, 4), (5, 8)):  # killed before it names its second, fourth, fifth part; so many are then there
        assert subprocess.run([*command, str(more)], env=environment(), check=False).returncode == -signal.SIGKILL
        assert len(list(parts.glob("*.safetensors"))) == there
    subprocess.run([*command, "1000"], env=environment(), check=True)
    assert contents(open_image_store(tmp_path / "store").folder) == contents(expected.folder)
