"""The claim of self-distillation: its crops, its arms, its fine-tuning. Its smoke preset runs with all others in test_electra.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.claims._result import meanings
from headstart.claims.self_distill import CLAIM, SIDE, kept_crops, photo_crops, recipe, remarks

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


def test_the_curve_over_steps_is_told_of_each_metric_for_itself() -> None:
    figures = {"finetune": {"auc": 0.9, "balanced_accuracy": 0.8}, "fpt": {"auc": 0.92, "balanced_accuracy": 0.7}, "scratch": {"auc": 0.5}}
    auc, accuracy = remarks(figures)
    assert auc.startswith("AUC over the steps")
    assert auc.endswith(": finetune 0.9000, fpt 0.9200.")
    assert accuracy.startswith("Balanced accuracy over the steps")
    assert accuracy.endswith(": finetune 0.8000, fpt 0.7000.")
    assert remarks({"scratch": {"auc": 0.5}}) == []


def test_whether_longer_further_pre_training_overfits_is_said_in_words() -> None:
    (overfitting,) = [one for one in CLAIM.comparisons if (one.a, one.b) == ("fpt", "fpt_long")]
    said = {
        verdict: meanings([overfitting], [{"a": "fpt", "b": "fpt_long", "tasks": ["auc"], "verdict": verdict}])
        for verdict in ("reproduced", "not reproduced", "inconclusive")
    }
    assert said["not reproduced"] == ["fpt - fpt_long on auc: no overfitting seen at this scale."]
    assert "overfits: its AUC is lower" in said["reproduced"][0]
    assert "not told by these seeds" in said["inconclusive"][0]
    assert meanings([CLAIM.comparisons[1]], [{"a": "x", "b": "y", "tasks": [], "verdict": "reproduced"}]) == []
