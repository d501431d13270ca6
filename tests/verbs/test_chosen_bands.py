"""Bands that a run chose are those that fine-tuning, predictions and dense tasks read, from the same files, with nothing to say again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from headstart.core.errors import BadInput
from headstart.tasks.dense_saved import load_dense
from headstart.tasks.image_network import load_classifier
from headstart.verbs.finetune import finetune
from headstart.verbs.pretrain import pretrain

RUN: dict[str, Any] = {
    "batch": 8, "device": "cpu", "precision": "fp32", "budget.steps": 4, "image.size": 16, "image.held_out_share": 0.2, "image.bands": (6, 2, 3, 5),
    "method.image_size": 16, "method.patch_size": 4, "method.hidden_size": 32, "method.num_layers": 1, "method.num_heads": 2, "method.scales": 1,
    "method.decoder_hidden_size": 16, "method.decoder_layers": 1, "method.decoder_heads": 2, "method.group_width": 8, "method.decoder_group_width": 4,
    "trainer.evaluate_every": 4, "trainer.checkpoint_every": 4, "trainer.evaluate_rows": 8,
}  # fmt: skip
TUNED: dict[str, Any] = {"device": "cpu", "seeds": 1, "baseline": False, "steps": 60, "batch": 8, "learning_rate": 3e-3, "flip": 0.0}


def write_tiles(folder: Path, each: int, seed: int, bands: tuple[int, ...] = (1, 2, 3, 4, 5, 6)) -> Path:
    """GeoTIFFs of six bands, and a mask for each: class `wet` is bright in band 6, the first that the run chose."""
    random = np.random.default_rng(seed)
    for label in ("dry", "wet"):
        (folder / "tiles" / label).mkdir(parents=True)
        for number in range(each):
            tile = random.integers(500, 1500, (6, 16, 16)).astype(np.uint16)
            tile[5] += 2000 * (label == "wet")
            kept = np.ascontiguousarray(tile[[band - 1 for band in bands]])
            tifffile.imwrite(folder / "tiles" / label / f"{number:02d}.tif", kept, photometric="minisblack", planarconfig="separate")
            for place, content in (("images", kept), ("masks", np.full((16, 16), label == "wet", np.uint8))):
                (folder / "dense" / place).mkdir(parents=True, exist_ok=True)
                options = {"planarconfig": "separate"} if place == "images" else {}
                tifffile.imwrite(folder / "dense" / place / f"{label}{number:02d}.tif", content, photometric="minisblack", **options)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("bands")
    train, test = write_tiles(folder / "train", 10, 0), write_tiles(folder / "test", 5, 1)
    return pretrain("satmaepp", train / "tiles", say=lambda line: None, out=folder / "run", **RUN).folder, train, test


def test_the_export_says_which_bands_its_files_had(run: tuple[Path, Path, Path]) -> None:
    said = json.loads((run[0] / "export" / "preprocessor_config.json").read_text())
    assert said["headstart_reading"] == {"bands": [6, 2, 3, 5]}


def test_labelled_tiles_are_read_as_the_run_read_its_own(run: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder, train, test = run
    settings = TUNED | {"train": train / "tiles", "test": test / "tiles", "out": tmp_path / "out"}
    found = finetune("image-classification", init=folder, say=lambda line: None, **settings)
    assert found.arms[0].mean("accuracy") > 0.9
    model = load_classifier(tmp_path / "out" / "model", "cpu")
    tiles = sorted((test / "tiles").rglob("*.tif"))
    assert np.mean([said == tile.parent.name for said, tile in zip(model.predict(tiles), tiles, strict=True)]) > 0.9
    kept = sorted((write_tiles(tmp_path / "kept", 5, 1, bands=(6, 2, 3, 5)) / "tiles").rglob("*.tif"))
    assert model.predict(kept) == model.predict(tiles), "files of the chosen bands alone are taken whole"
    silent = tmp_path / "silent"
    silent.mkdir()
    for name in ("timm.safetensors", "vit.json"):
        shutil.copy(folder / "export" / name, silent)
    with pytest.raises(BadInput, match="has 6 channels, the network takes 4"):
        finetune("image-classification", init=silent, say=lambda line: None, **settings | {"out": None})
    finetune("image-classification", init=silent, say=lambda line: None, **settings | {"out": None, "bands": (6, 2, 3, 5), "steps": 1})


def test_dense_tasks_read_them_too(run: tuple[Path, Path, Path], tmp_path: Path) -> None:
    folder, train, test = run
    settings = TUNED | {"train": train / "dense", "test": test / "dense", "out": tmp_path / "out"}
    found = finetune("segmentation", init=folder, say=lambda line: None, **settings)
    assert found.arms[0].mean("pixel_accuracy") > 0.9
    model = load_dense(tmp_path / "out" / "model", "cpu")
    image = test / "dense" / "images" / "wet00.tif"
    assert model.predict([image])[0].shape == (16, 16)
    with pytest.raises(BadInput, match="band 9 is asked for"):
        finetune("segmentation", init=folder, say=lambda line: None, **settings | {"out": None, "bands": (9, 1, 2, 3)})
