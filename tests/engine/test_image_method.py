"""What methods on images share: batches of files and arrays, augmentation by row, and a preprocessor that transformers agrees with."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart import catalog
from headstart.core.errors import BadInput
from headstart.core.rng import Rng
from headstart.data.image.config import ImageConfig
from headstart.data.image.store import ImageStore, prepare_images
from headstart.engine.image_method import ImageMethod
from headstart.engine.method import Context
from tests.data.image.pictures import write_folder


@dataclasses.dataclass
class Config:
    image_size: int = 12


class Plain(ImageMethod):
    """A method without a network."""

    card = catalog.card("mae")
    Config = Config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return prepare_images([folder], tmp_path_factory.mktemp("stores") / "store", ImageConfig(size=16))


def context(rows: torch.Tensor) -> Context:
    return Context(0, 10, "train", Rng.at(0, 0, rows), torch.device("cpu"))


def test_plain_images_of_the_training_part_are_normalised(store: ImageStore) -> None:
    method = Plain(Config(16), store)
    images = method.plain({"images": torch.from_numpy(store.read(store.rows("train")))})
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_augmented_images_depend_on_the_row_of_the_global_batch_only(store: ImageStore) -> None:
    method = Plain(Config(), store)
    images = torch.from_numpy(store.read(np.arange(8)))
    whole = method.augmented({"images": images}, context(torch.arange(8)))
    assert whole.shape == (8, 3, 12, 12)
    part = method.augmented({"images": images[5:7]}, context(torch.tensor([5, 6])))
    torch.testing.assert_close(part, whole[5:7])
    moved = method.augmented({"images": images[5:7]}, context(torch.tensor([0, 1])))
    assert not torch.allclose(moved, part)


def test_an_augmentation_that_cuts_nothing_gives_the_plain_image(store: ImageStore) -> None:
    method = Plain(Config(), store)
    method.crop_scale, method.crop_ratio, method.flip = (1.0, 1.0), (1.0, 1.0), 0.0
    batch = {"images": torch.from_numpy(store.read(np.arange(4)))}
    torch.testing.assert_close(method.augmented(batch, context(torch.arange(4))), method.plain(batch))


def test_files_bytes_and_arrays_become_what_the_store_holds(store: ImageStore, folder: Path) -> None:
    method = Plain(Config(), store)
    path = folder / "class0" / "001.png"
    found = method.encode([path, str(path), path.read_bytes(), np.asarray(Image.open(path))])["images"]
    np.testing.assert_array_equal(found.numpy(), np.repeat(store.images[1:2], 4, 0))


def test_a_record_that_is_no_image_is_named(store: ImageStore, tmp_path: Path) -> None:
    method = Plain(Config(), store)
    with pytest.raises(BadInput, match=r"none\.png: cannot be read"):
        method.encode([tmp_path / "none.png"])
    with pytest.raises(BadInput, match="record 2: is no image"):
        method.encode([np.zeros((16, 16, 3), np.uint8), b"words"])


def test_the_preprocessor_of_transformers_gives_what_the_network_was_trained_on(store: ImageStore, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor

    method = Plain(Config(16), store)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(method.preprocessor()))
    pixels = store.images[3]
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(Image.fromarray(pixels.transpose(1, 2, 0)), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(theirs, method.plain({"images": torch.from_numpy(pixels[None].copy())}), atol=1e-4, rtol=1e-4)


def test_what_changed_in_the_source_is_said(store: ImageStore, folder: Path, tmp_path: Path) -> None:
    assert Plain.source_changes(store, [folder]) == []
    assert "16 -> 8 input files" in Plain.source_changes(store, [folder / "class0"])[0]
    assert "does not exist" in Plain.source_changes(store, [tmp_path / "gone"])[0]


def test_a_list_with_columns_of_its_own_names_is_known_again(folder: Path, tmp_path: Path) -> None:
    rows = [f"{file},{file.parent.name}" for file in sorted(folder.rglob("*.png"))]
    (tmp_path / "list.csv").write_text("\n".join(["photo,species", *rows]))
    data = ImageConfig(size=16, image_field="photo", label_field="species")
    store = Plain.prepare([tmp_path / "list.csv"], tmp_path / "store", data)
    assert Plain.source_changes(store, [tmp_path / "list.csv"]) == []
    (tmp_path / "list.csv").write_text("\n".join(["photo,species", *rows[1:]]))
    assert "16 -> 15 input files" in Plain.source_changes(store, [tmp_path / "list.csv"])[0]


def test_a_smoke_run_has_few_images_and_holds_some_out(store: ImageStore, folder: Path, tmp_path: Path) -> None:
    sources, data = Plain.smoke_source([folder], tmp_path, ImageConfig(size=16), 10)
    smoke = Plain.prepare(sources, tmp_path / "store", data)
    assert len(smoke) == 10
    assert smoke.held_out.any()
    assert len(Plain.rows(smoke, Config())) < 10
