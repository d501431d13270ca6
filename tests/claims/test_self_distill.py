"""The claim of self-distillation: its crops, its arms, its fine-tuning. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.claims.self_distill import CLAIM, SIDE, kept_crops, photo_crops, recipe

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """Bright on the left, dark on the right, wider than high."""
    ramp = np.linspace(250, 5, 300).astype(np.uint8)
    Image.fromarray(np.repeat(np.tile(ramp, (200, 1))[..., None], 3, 2)).save(tmp_path / "ramp.png")
    return tmp_path / "ramp.png"


def test_crops_are_squares_of_every_size_half_of_them_mirrored(photo: Path) -> None:
    crops = photo_crops([photo], 400)
    assert crops.shape == (400, 1, SIDE, SIDE)
    slope = crops[:, 0, :, 0].astype(float).mean(1) - crops[:, 0, :, -1].astype(float).mean(1)
    assert 0.4 < (slope < 0).mean() < 0.6
    shares = np.abs(slope) / (245 * 200 / 300)  # a side of the whole height spans 200 of 300 columns
    assert shares.min() < 0.15
    assert 0.9 < shares.max() <= 1.0
    assert abs(shares.mean() - 0.55) < 0.05
    assert np.abs(np.diff(crops.astype(int), axis=2)).max() <= 1, "rows of the ramp are alike"
    assert np.array_equal(photo_crops([photo], 400), crops)


def test_crops_are_drawn_once(photo: Path, tmp_path: Path) -> None:
    path = kept_crops(tmp_path / "photos.npz", [photo], 3)
    before = path.read_bytes()
    kept_crops(path, [], 3)
    assert path.read_bytes() == before


@pytest.mark.parametrize("preset", CLAIM.presets)
def test_arms_differ_in_what_they_are_named_after(preset: str) -> None:
    arms = {arm.name: arm for arm in CLAIM.presets[preset].arms}
    assert {"scratch", "finetune", "fpt", "fpt_long", "self_distill"} <= arms.keys()
    first, *others = [arm.start for arm in arms.values() if arm.start is not None]
    assert all(other is first for other in others)
    assert first.seeds == 1
    assert arms["fpt_long"].settings == {}
    assert not arms["fpt_long"].unequal
    assert not arms["self_distill"].unequal
    assert arms["fpt"].settings["budget.steps"] == (5 if preset == "smoke" else 200)
    assert ("fpt_pull_0.01" in arms) == (preset == "gpu")


def test_fine_tuning_is_the_papers() -> None:
    config = recipe(100)
    assert (config.layer_decay, config.weight_decay, config.clip_norm) == (1.0, 0.01, 1.0)
    assert (config.pooling, config.dropout, config.flip) == ("class", 0.1, 0.0)
    assert (config.schedule, config.warmup_share, config.minimum_share, config.decay_norms) == ("linear", 0.05, 0.0, True)
