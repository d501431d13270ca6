"""Test images that were trained on are counted: their pixels, their looks, and in the store of the pre-training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.image.config import ImageConfig
from headstart.data.image.prepare import prepare_images
from headstart.data.image.store import ImageStore
from headstart.tasks.image_data import ImageData
from headstart.tasks.image_leaks import image_leaks
from tests.data.image.test_looks import again, photographs


def data(pictures: np.ndarray) -> ImageData:
    return ImageData(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)), np.arange(len(pictures)) % 2)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Of twelve photographs, reduced."""
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(photographs(12)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return prepare_images([folder], tmp_path_factory.mktemp("run") / "store", ImageConfig(size=48, held_out_share=0.0))


def test_equal_and_nearly_equal_test_images_are_counted(tmp_path: Path) -> None:
    train, others = photographs(10), photographs(6, seed=1)
    test = np.concatenate([train[:2], [again(picture) for picture in train[2:5]], others])
    first, second = image_leaks(data(test), [data(train[:4]), data(train[4:])], tmp_path)
    assert first == "2 of 11 test images stand in the training images."
    assert second == "3 of 11 test images look nearly like one of the training images; the first is number 3."
    assert image_leaks(data(others), [data(train)], tmp_path) == []


def test_the_images_of_the_pre_training_are_looked_at(store: ImageStore, tmp_path: Path) -> None:
    test = np.concatenate([photographs(12)[:5], photographs(6, seed=1)])
    export = tmp_path / "export"
    export.mkdir()
    entry = {"kind": "image", "store": str(store.folder), "counts": store.manifest["counts"]}
    run = {"format_version": 1, "status": "stopped", "config": {"init": None}, "data": [entry]}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (found,) = image_leaks(data(test), [data(photographs(4, seed=2))], export)
    assert found == f"5 of 11 test images stand in the pre-training images of {tmp_path}, or look nearly like one there."
    entry["counts"] = {**entry["counts"], "images": 13}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (unknown,) = image_leaks(data(test), [data(photographs(4, seed=2))], export)
    assert "cannot be checked" in unknown
