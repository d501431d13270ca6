"""A store is opened only whole, and a stranger's cannot make us read or allocate what it likes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.rows import ImageRows
from headstart.data.image.store import open_image_store, prepare_images
from headstart.data.loader import Loader
from headstart.data.mixture import Mixture
from tests.data.image.pictures import encoded, npy, smooth, write_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    data = write_folder(folder / "data", each=10)
    for storage in ("decoded", "encoded"):
        prepare_images([data], folder / storage, ImageConfig(size=20, storage=storage, held_out_share=0.2))  # type: ignore[arg-type]
    return folder


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


BROKEN: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "another kind": lambda folder: change_manifest(folder, lambda manifest: manifest.update(kind="text")),
    "another format": lambda folder: change_manifest(folder, lambda manifest: manifest.update(format_version=99)),
    "no form": lambda folder: change_manifest(folder, lambda manifest: manifest.pop("form")),
    "a form of objects": lambda folder: change_manifest(folder, lambda manifest: manifest["form"].update(dtype="object")),
    "endless images": lambda folder: change_manifest(folder, lambda manifest: manifest["form"].update(size=2**40)),
    "a mean of words": lambda folder: change_manifest(folder, lambda manifest: manifest.update(mean=["a", "b", "c"])),
    "a mean of two": lambda folder: change_manifest(folder, lambda manifest: manifest.update(mean=[1.0, 2.0])),
    "another storage": lambda folder: change_manifest(folder, lambda manifest: manifest["preparation"].update(storage="x")),
    "labels beyond the classes": lambda folder: np.save(folder / "labels.npy", np.full(20, 2)),
    "cut off": lambda folder: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-1]),
    "fewer images": lambda folder: np.save(folder / "images.npy", np.zeros((19, 3, 20, 20), np.uint8)),
    "other images": lambda folder: np.save(folder / "images.npy", np.zeros((20, 3, 20, 20), np.uint16)),
    "another shape in the manifest": lambda folder: change_manifest(folder, lambda manifest: manifest["arrays"]["hashes"].update(shape=[19])),
    "a manifest elsewhere": lambda folder: (folder / "manifest.json").symlink_to((folder / "manifest.json").rename(folder.parent / "m.json")),
    "a link": lambda folder: ((folder / "images.npy").unlink(), (folder / "images.npy").symlink_to("/etc/hostname")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_store_is_not_opened(made: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(made / "decoded", tmp_path / "store")
    open_image_store(folder)
    BROKEN[name](folder)
    with pytest.raises(BadInput):
        open_image_store(folder)


def test_an_unfinished_store_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    with pytest.raises(BadInput, match="it continues"):
        open_image_store(tmp_path)


def test_offsets_that_lead_elsewhere_are_refused(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "encoded", tmp_path / "store")
    offsets = np.load(folder / "offsets.npy")
    offsets[3] = 10**12
    np.save(folder / "offsets.npy", offsets)
    with pytest.raises(BadInput, match="does not fit"):
        open_image_store(folder)


def test_a_changed_pixel_is_found_by_verify(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "decoded", tmp_path / "store")
    with (folder / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(BadInput, match="differs from its hash"):
        open_image_store(folder).verify()


def test_a_damaged_encoded_image_is_bad_input(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "encoded", tmp_path / "store")
    with (folder / "encoded.npy").open("r+b") as file:
        file.seek(-200, 2)
        file.write(bytes(100))
    with pytest.raises(BadInput, match="image 19"):
        open_image_store(folder).read(np.arange(20))


def test_an_encoded_image_that_was_prepared_is_not_checked_again(tmp_path: Path) -> None:
    """Stores of versions that took a JPEG with less data than its header says go on serving it: a run that was begun on one is not ended by it."""
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(smooth(64, 64, seed=number), "JPEG", quality=90))
    folder = prepare_images([tmp_path / "0.jpg", tmp_path / "1.jpg"], tmp_path / "store", ImageConfig(size=64, storage="encoded")).folder
    stored = np.load(folder / "encoded.npy", mmap_mode="r+")
    frame = stored.tobytes().index(b"\xff\xc0")
    stored[frame + 5 : frame + 7] = (0, 200)  # the height that the header of the first says
    stored.flush()
    (tmp_path / "taller.jpg").write_bytes(stored[: np.load(folder / "offsets.npy")[1]].tobytes())
    with pytest.raises(BadInput, match="less data than its header says"):
        prepare_images([tmp_path / "taller.jpg"], tmp_path / "new", ImageConfig(size=64))
    assert open_image_store(folder).read([0, 1]).shape == (2, 3, 64, 64)


# --- rows -----------------------------------------------------------------------------------------------------------------------------------------


def test_rows_are_the_images_of_a_split_and_count_as_images(made: Path) -> None:
    store = open_image_store(made / "decoded")
    train, held_out = ImageRows(store), ImageRows(store, "held_out")
    assert len(train) + len(held_out) == 20
    assert len(held_out) > 0
    assert (train.n_tokens, train.unit, train.length) == (len(train), "images", 1)
    last = len(train) - 1
    assert train.indices[last] != last  # some image before it is held out
    np.testing.assert_array_equal(train.batch(np.array([last, 0]))["images"], store.images[train.indices[[last, 0]]])
    assert not set(train.indices) & set(held_out.indices)


@pytest.mark.parametrize("storage", ["decoded", "encoded"])
def test_a_loader_gives_the_same_images_however_a_batch_is_cut(made: Path, storage: str) -> None:
    loader = Loader(Mixture([ImageRows(open_image_store(made / storage))], seed=5), 6)
    assert (loader.unit, loader.tokens_per_row) == ("images", 1)
    whole = loader.batch(9)["images"]
    assert tuple(whole.shape) == (6, 3, 20, 20)
    parts = [loader.batch(9, start, start + 2)["images"] for start in (0, 2, 4)]
    assert all(bool((part == whole[start : start + 2]).all()) for start, part in zip((0, 2, 4), parts, strict=True))


def test_an_epoch_shows_every_training_image_once(made: Path) -> None:
    rows = ImageRows(open_image_store(made / "decoded"))
    loader = Loader(Mixture([rows], seed=5), 1)
    seen = {loader.batch(step)["images"].numpy().tobytes() for step in range(len(rows))}
    assert len(seen) == len(rows)


def test_bands_and_floats_are_trained_on_in_their_own_type(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    values = np.random.default_rng(0).normal(size=(6, 5, 8, 8)).astype(np.float32)
    for number, image in enumerate(values):
        (tmp_path / "data" / f"{number}.npy").write_bytes(npy(image))
    store = prepare_images([tmp_path / "data"], tmp_path / "store", ImageConfig(size=8, held_out_share=0.0))
    batch = Loader(Mixture([ImageRows(store)], seed=0), 6).batch(0)["images"]
    assert {image.numpy().tobytes() for image in batch} == {image.tobytes() for image in values}
    assert "WARNING" not in "".join(store.report())
