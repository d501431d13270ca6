"""CroCo's claim: its scenes, floors, data and what makes it valid. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headstart.claims._claim import Data
from headstart.claims._data import CHECKOUT, data_folder
from headstart.claims._scenes import TEST, TRAIN, Layer, Shape, Texture, block_matching, floors, kept_pairs, make_scene, make_scenes, read_photographs
from headstart.claims.croco import CLAIM, FLOORS, MEDIAN_MAP, open_data, validity
from headstart.core.errors import BadInput
from headstart.methods.croco.method import CroCo, decoder_config, encoder_config

FIXTURES = CHECKOUT / "tests" / "fixtures" / "phototex"


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    return read_photographs(FIXTURES, ("astronaut", "camera", "retina"))


# --- scenes ---------------------------------------------------------------------------------------------------------------------------------------


def test_a_point_of_the_left_view_lies_that_far_to_the_left_in_the_right_one(photographs: list[np.ndarray]) -> None:
    """Where it is seen in both, the colour of the right view at x - d is that of the left at x, but for gain, noise and rounding to whole pixels."""
    differences, elsewhere = [], []
    for index in range(12):
        scene = make_scene(photographs, 0, index, 64, 1.0)
        y, x = np.nonzero(scene.visible)
        there = np.rint(x - scene.disparity[y, x]).astype(int)
        left, right = (view.astype(float) / view.mean() for view in (scene.left, scene.right))
        differences.append(np.abs(left[:, y, x] - right[:, y, there]).mean())
        elsewhere.append(np.abs(left[:, y, x] - right[:, y, x]).mean())
    assert np.mean(differences) < 0.6 * np.mean(elsewhere)


def test_a_slanted_plane_is_found_again_from_the_right() -> None:
    """x_right = x - d(x), inverted."""
    plane, x, y = (1.5, 0.05, 0.02), np.array([3.0, 20.0, 31.0]), np.array([0.0, 7.0, 30.0])
    layer = Layer(plane, Shape(), Texture(np.zeros((50, 50, 3)), 0, 0, 1.0, False, 1.0))
    x_right = x - layer.disparity(x, y)
    np.testing.assert_allclose((x_right + plane[0] + plane[2] * y) / (1 - plane[1]), x)


def test_near_layers_hide_far_ones_and_are_hidden_points_of_the_other_view(photographs: list[np.ndarray]) -> None:
    scenes = make_scenes(photographs, 1, range(20), 32, 0.5)
    assert (scenes.disparity > 0).all()
    assert 0.6 < scenes.visible.mean() < 0.98
    x = np.arange(32)[None, None]
    assert not scenes.visible[np.broadcast_to(x - scenes.disparity < 0, scenes.visible.shape)].any(), "what lies beyond the border is not seen"


def test_a_scene_is_the_same_alone_among_others_and_on_several_cores(photographs: list[np.ndarray], tmp_path: Path) -> None:
    many = make_scenes(photographs, 0, [5, 9], 32, 0.5)
    alone = make_scene(photographs, 0, 9, 32, 0.5)
    assert np.array_equal(many.left[1], alone.left)
    assert np.array_equal(many.disparity[1], alone.disparity)
    assert not np.array_equal(make_scene(photographs, 1, 9, 32, 0.5).left, alone.left), "the split is part of the seed"
    with np.load(kept_pairs(tmp_path, photographs, 0, [5, 9], 32, 0.5), allow_pickle=False) as kept:
        assert kept.files == ["images"]
        assert np.array_equal(kept["images"], np.stack([many.left[0], many.right[0], many.left[1], many.right[1]]))


def test_scenes_are_kept_under_what_they_are_of(photographs: list[np.ndarray], tmp_path: Path) -> None:
    first = kept_pairs(tmp_path, photographs, 0, [1], 32, 0.5)
    before = first.stat().st_mtime_ns
    assert kept_pairs(tmp_path, photographs, 0, [1], 32, 0.5) == first
    assert first.stat().st_mtime_ns == before
    assert kept_pairs(tmp_path, photographs, 0, [2], 32, 0.5) != first
    assert kept_pairs(tmp_path, photographs[:2], 0, [1], 32, 0.5) != first


def test_a_texture_is_mirrored_at_its_borders_and_enlarged() -> None:
    photograph = np.arange(5.0).repeat(3).reshape(1, 5, 3).repeat(5, 0) / 10
    texture = Texture(photograph, 3, 0, 0.5, False, 1.0)
    found = texture(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.zeros(5))
    assert (10 * found[:, 0]).tolist() == pytest.approx([3, 3.5, 4, 3.5, 3])
    turned = dataclasses.replace(texture, mirrored=True, gain=2.0)
    assert (10 * turned(np.array([2.0]), np.zeros(1))[0, 0]) == pytest.approx(2 * 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "wanted"), [(64, (4.02, 3.05, 9.8, 0.882, 0.328)), (32, (2.01, 1.53, 4.9, 0.875, 0.348))], ids=["64 pixels", "32 pixels"]
)
def test_the_statistics_are_those_of_the_specification(size: int, wanted: tuple[float, ...]) -> None:
    """An independent implementation has mean disparity, deviation within a scene, mean maximum, co-visible share and mean grey within 5 %."""
    try:
        folder = data_folder("phototex")
    except BadInput:
        pytest.skip("needs the photographs (HEADSTART_DATA)")
    scenes = make_scenes(read_photographs(folder, TEST), 1, range(300), size, size / 64)
    d = scenes.disparity
    found = (d.mean(), d.std((1, 2)).mean(), d.max((1, 2)).mean(), scenes.visible.mean(), scenes.left.mean() / 255)
    assert found == pytest.approx(wanted, rel=0.05)


def test_no_photograph_is_in_both_splits() -> None:
    assert not set(TRAIN) & set(TEST)
    assert len(TRAIN) + len(TEST) == 13


# --- floors ---------------------------------------------------------------------------------------------------------------------------------------


def test_matching_blocks_finds_a_plain_shift() -> None:
    wide = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 24)).astype(np.uint8)
    left, right = wide[..., :20], wide[..., 3:23]  # a pixel lies three to the left in the right view
    found = block_matching(left, right, most=6)
    assert (found[:, :, 5:18] == 3).mean() > 0.98


def test_floors_are_those_of_guessing(photographs: list[np.ndarray]) -> None:
    train, test = (make_scenes(photographs, split, range(30), 32, 0.5) for split in (0, 1))
    found = floors(train, test, 8)
    assert found["the train median"] == pytest.approx(np.abs(np.median(train.disparity) - test.disparity).mean())
    assert found["the train median map"] < found["the train median"]


# --- the claim ------------------------------------------------------------------------------------------------------------------------------------


def test_the_data_of_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATA", "/nowhere")
    data = open_data(CLAIM.scale("smoke"), tmp_path)
    with np.load(data.corpora["train"][0], allow_pickle=False) as pool:
        assert pool["images"].shape == (2 * 48, 3, 36, 36), "cut to 32 at places of their own"
    assert [task.name for task in data.tasks] == ["disparity", "co-visible", "another scene's view", "one view"]
    assert set(data.anchors[FLOORS]) == {"the train median", "the train mean map", MEDIAN_MAP, "5 x 5 block matching"}
    assert len({path.stem for path in data.files} & set(TEST)) == 2


@pytest.mark.parametrize(
    ("scores", "reasons"),
    [
        ({"croco": (0.8, 1.2), "mae": (0.9, 0.92), "scratch": (0.95, 0.95)}, []),
        ({"croco": (0.96, 1.2), "mae": (0.97, 0.97), "scratch": (0.99, 0.99)}, ["task not learnt: the best arm's EPE is 0.960"]),
        ({"croco": (0.8, 0.84), "mae": (0.9, 0.93), "scratch": (0.9, 1.9)}, ["second view is not used: that of another scene costs croco +0.040"]),
        ({"croco": (0.99, 0.99), "mae": (0.99, 0.99)}, ["task not learnt", "second view is not used"]),
    ],
    ids=["valid", "not learnt", "not used", "neither"],
)
def test_what_decides_nothing_is_said(scores: dict[str, tuple[float, float]], reasons: list[str]) -> None:
    data = Data({}, {}, (), anchors={FLOORS: {MEDIAN_MAP: 0.995}})
    found = validity({arm: {"disparity": true, "another scene's view": other} for arm, (true, other) in scores.items()}, data)
    assert len(found) == len(reasons)
    assert all(reason in sentence for reason, sentence in zip(reasons, found, strict=True))


def test_every_arm_has_the_network_of_the_specification_and_fewer_images_for_croco() -> None:
    for preset, width, depth, heads, tokens in (("cpu", 96, 3, 3, 16), ("gpu", 192, 6, 6, 64)):
        scale = CLAIM.scale(preset)
        assert {arm.name for arm in scale.arms} >= {"croco", "mae", "scratch"}
        for arm in scale.arms:
            settings = {**scale.settings, **arm.settings}
            sizes = {name.removeprefix("method."): value for name, value in settings.items() if name.startswith("method.")}
            config = dataclasses.replace(CroCo.presets["tiny"].method, **sizes)
            encoder, decoder = encoder_config(config, 3), decoder_config(config)
            assert (encoder.hidden_size, encoder.num_layers, encoder.num_heads, encoder.grid[0] ** 2) == (width, depth, heads, tokens)
            assert (decoder.hidden_size, decoder.num_layers, decoder.num_heads, decoder.cross) == (width, depth, heads, arm.name != "mae")
            assert encoder.hidden_size // encoder.num_heads == 32
            assert settings["image.size"] == settings["method.image_size"] * 9 // 8
    assert CLAIM.scale("cpu").options["labels"] == 2000
