"""DropPos's claim and what claims on images share. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.claims._images import draw_images, flat_pixels, mirror_accuracy, pixel_auc, write_pool
from headstart.claims.droppos import CLAIM, open_data
from headstart.tasks.image_data import ImageData


@pytest.fixture
def lit() -> np.ndarray:
    """Images whose left half is bright."""
    images = np.random.default_rng(0).integers(0, 90, (60, 1, 8, 8)).astype(np.uint8)
    images[..., :4] += 120
    return images


def test_left_and_right_are_told_by_pixels_and_not_by_what_has_no_sides(lit: np.ndarray) -> None:
    before = lit.copy()
    assert mirror_accuracy(flat_pixels, lit, lit, 20, 3, 0.1, seed=0).value == 1.0
    assert np.array_equal(lit, before), "the pool is not mirrored for good"

    def sideless(images: np.ndarray) -> Tensor:
        return flat_pixels(np.sort(images, axis=-1))

    assert mirror_accuracy(sideless, lit, lit, 20, 3, 0.1, seed=0).value == pytest.approx(0.5, abs=1e-9)


def test_draws_are_balanced_and_go_by_the_seed(lit: np.ndarray) -> None:
    data = ImageData(lit, np.arange(60) // 40, ["many", "few"])
    drawn = draw_images(data, 5, seed=3)
    assert drawn.labels.tolist() == [0] * 5 + [1] * 5
    assert np.array_equal(draw_images(data, 5, seed=3).images, drawn.images)
    assert not np.array_equal(draw_images(data, 5, seed=4).images, drawn.images)


def test_raw_pixels_are_an_anchor(lit: np.ndarray) -> None:
    both = np.concatenate([lit, lit[..., ::-1]])
    data = ImageData(both, np.arange(120) // 60, ["left", "right"])
    assert pixel_auc(draw_images(data, 10, 0), data) == 1.0


def test_the_same_pool_is_left_as_it_is(lit: np.ndarray, tmp_path: Path) -> None:
    path = write_pool(tmp_path / "pool.npz", lit)
    before = path.stat().st_mtime_ns, path.read_bytes()
    write_pool(path, lit)
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before
    write_pool(path, lit[:5])
    with np.load(path, allow_pickle=False) as found:
        assert np.array_equal(found["images"], lit[:5])


def test_no_label_is_drawn_from_the_images_for_choices_and_none_is_in_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", "/nowhere")
    scale = CLAIM.scale("smoke")
    data = open_data(scale, tmp_path)
    with np.load(data.corpora["train"][0], allow_pickle=False) as pool:
        assert pool.files == ["images"]
        assert len(pool["images"]) == data.facts["train"]["pool"] == 120
    assert 0.5 < data.anchors["raw pixels under logistic regression, the same numbers of images"]["labels"] <= 1
    assert [task.name for task in data.tasks] == ["labels", "mirrored"]
    with pytest.raises(ValueError, match="larger sample than population"):
        open_data(dataclasses.replace(scale, options={**scale.options, "per_class": 50}), tmp_path)  # 60 of each class, 30 kept for choices


def test_every_arm_has_the_encoder_of_the_specification() -> None:
    from headstart.backbones.vit import ViT
    from headstart.engine.image_method import encoder_shape
    from headstart.methods.droppos import method

    for preset, width, depth in (("cpu", 96, 4), ("gpu", 192, 8)):
        settings = CLAIM.scale(preset).settings
        sizes = {name.removeprefix("method."): value for name, value in settings.items() if name.startswith("method.")}
        config = dataclasses.replace(method.DropPos.presets["tiny"].method, **sizes)
        with torch.device("meta"):
            encoder = ViT(encoder_shape(config, channels=1))
        assert (encoder.config.hidden_size, encoder.config.num_layers, encoder.config.num_heads) == (width, depth, 3)
        assert encoder.config.num_tokens == 49
