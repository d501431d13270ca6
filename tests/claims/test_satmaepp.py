"""SatMAE++'s claim: what of the scene is learnt from and what is asked. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones.vit import ViT
from headstart.claims.satmaepp import CLAIM, CLASSES, FOLDS, Fold, Scene, balanced, neighbourhoods, open_data
from headstart.methods.satmaepp import method
from headstart.tasks.image_data import ImageData


@pytest.fixture(scope="module")
def land() -> tuple[np.ndarray, np.ndarray]:
    """A scene whose every pixel says where it is, and its land use."""
    row, column = np.mgrid[:101, :34]
    place = (row * 34 + column).astype(np.uint16)  # below 3,434
    bands = np.stack([np.stack([place + 5 * band + date for band in range(10)]) for date in range(5)]).astype(np.uint16)
    bands[:2] += 9000  # cloud
    return bands, np.random.default_rng(0).choice([0, 1, 2, 3, 4, 8], (101, 34)).astype(np.uint8)


@pytest.mark.parametrize("name", FOLDS)
def test_statistics_are_those_of_the_clear_training_rows(land: tuple[np.ndarray, np.ndarray], name: str) -> None:
    scene = Scene(*land, name)
    clear = land[0][2:, 3, FOLDS[name][0]].astype(np.float64)
    value = float(land[0][2, 3, 50, 7])
    wanted = (value - clear.mean() + 2 * clear.std()) / (4 * clear.std()) * 255
    assert scene.pixels[2, 3, 50, 7] == int(np.clip(wanted, 0, 255))
    assert (scene.pixels[:2] == 255).all(), "cloud is cut off"


@pytest.mark.parametrize("name", FOLDS)
def test_no_window_that_is_asked_shares_a_pixel_with_one_that_teaches(land: tuple[np.ndarray, np.ndarray], name: str) -> None:
    learn, ask = FOLDS[name]
    taught = {row + offset for row in range(learn.start, learn.stop) for offset in range(-8, 8)}
    asked = {row + offset for row in range(ask.start, ask.stop) for offset in range(-8, 8)}
    assert not taught & asked
    scene = Scene(*land, name)
    fold = Fold(scene, per_class=20, dev=15, most=30)
    for centres, rows in ((fold.centres, learn), (fold.dev_centres, learn)):
        assert all(rows.start <= row < rows.stop for places in centres for row, _ in places)
    together = [{tuple(place) for place in places} for places in fold.centres]
    assert not any(tuple(place) in found for places, found in zip(fold.dev_centres, together, strict=True) for place in places)
    assert len(fold.scored["test"]) == 3 * 4 * 30
    assert len(fold.scored["dev"]) == 3 * 4 * 15


def test_the_labelled_pixel_stands_at_the_ninth_place_and_edges_are_mirrored(land: tuple[np.ndarray, np.ndarray]) -> None:
    scene = Scene(*land, "train")
    centres = np.array([[20, 10], [0, 0], [100, 33]])
    windows = scene.windows(centres, np.array([2, 3, 4]))
    assert windows.shape == (3, 10, 16, 16)
    for window, (row, column), date in zip(windows, centres, (2, 3, 4), strict=True):
        assert np.array_equal(window[:, 8, 8], scene.pixels[date, :, row, column])
    assert np.array_equal(windows[0], scene.pixels[2, :, 12:28, 2:18])
    assert np.array_equal(windows[1][:, 8 - 3, 8], scene.pixels[3, :, 3, 0])
    labels = scene.centres(slice(63, 101))
    assert all((scene.land_use[places[:, 0], places[:, 1]] == number).all() for places, number in zip(labels, CLASSES, strict=True))
    assert all((places[:, 0] >= 63).all() for places in labels)


def test_the_pool_is_every_window_of_the_training_rows(land: tuple[np.ndarray, np.ndarray]) -> None:
    scene = Scene(*land, "train")
    pool = scene.pool()
    assert pool.shape == (14 * 3 * 5, 10, 32, 32)
    assert np.array_equal(pool[14 * 3 * 2 + 4], scene.pixels[2, :, 1:33, 1:33])  # dates, then rows, then columns


def test_draws_go_by_the_seed_and_take_clear_dates(land: tuple[np.ndarray, np.ndarray]) -> None:
    fold = Fold(Scene(*land, "train"), per_class=20, dev=10, most=10)
    drawn = fold.draw(3)
    assert drawn.labels.tolist() == [label for label in range(4) for _ in range(20)]
    assert np.array_equal(fold.draw(3).images, drawn.images)
    assert not np.array_equal(fold.draw(4).images, drawn.images)
    assert not (drawn.images == 255).all((1, 2, 3)).any()


def test_a_rare_class_keeps_its_labels_before_its_choices(land: tuple[np.ndarray, np.ndarray]) -> None:
    bands, land_use = land[0], land[1].copy()
    places = np.argwhere(land_use[:45] == 8)
    land_use[tuple(places[25:].T)] = 0
    fold = Fold(Scene(bands, land_use, "train"), per_class=20, dev=15, most=30)
    assert [len(centres) for centres in fold.dev_centres] == [15, 15, 15, 5]
    assert len(fold.draw(0)) == 80


def test_every_class_counts_alike() -> None:
    data = ImageData(np.zeros((6, 1, 2, 2), np.uint8), np.array([0, 0, 0, 0, 1, 1]), ["a", "b"])
    score = balanced(np.array([0, 0, 0, 1, 1, 0]), data)
    assert score.value == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert score.items is not None
    assert score.items[:, 0].sum() / score.items[:, 1].sum() == pytest.approx(score.value)
    assert score.stuck is None
    assert balanced(np.zeros(6, np.int64), data).stuck == "it says 'a' for every window"


def test_neighbourhoods_are_five_by_five_around_the_centre() -> None:
    images = np.zeros((1, 2, 16, 16), np.uint8)
    images[0, 0, 6:11, 6:11] = 100
    images[0, 1, 8, 8] = 250
    wanted = [100, 10, 0, float(np.std([250, *[0] * 24]))]
    assert neighbourhoods(ImageData(images, np.zeros(1, np.int64)))[0].tolist() == pytest.approx(wanted)


def test_the_data_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", "/nowhere")
    data = open_data(CLAIM.scale("smoke"), tmp_path)
    with np.load(data.corpora["train"][0], allow_pickle=False) as pool:
        assert pool.files == ["images"]
        assert len(pool["images"]) == data.facts["train"]["windows"] == 210
    assert data.facts["test"] == {"train": 3 * 4 * 10}
    floor = data.anchors["mean and deviation of 5 x 5 pixels under logistic regression, the same labels"]["train"]
    assert 0.25 < floor <= 1


def test_every_arm_has_the_network_of_the_specification() -> None:
    for preset, width, depth, heads in (("cpu", 96, 4, 3), ("gpu", 192, 6, 6)):
        scale = CLAIM.scale(preset)
        for arm in scale.arms:
            settings = {**scale.settings, **arm.settings}
            sizes = {name.removeprefix("method."): value for name, value in settings.items() if name.startswith("method.")}
            config = dataclasses.replace(method.SatMAEPP.presets["tiny"].method, **sizes)
            groups = method.resolve_groups(config, 10)
            with torch.device("meta"):
                encoder = ViT(method.encoder_config(config, groups, 10))
            assert (encoder.config.hidden_size, encoder.config.num_layers, encoder.config.num_heads) == (width, depth, heads)
            assert encoder.config.group_width * 3 == width
            assert (encoder.config.num_tokens, config.factor) == (48, 4)
