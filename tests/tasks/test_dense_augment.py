"""What a dense task sees of a record: what changes a place changes its truth with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from headstart.tasks import dense_augment as augment
from headstart.tasks.dense_data import Sample


def ramp(size: int = 32) -> Sample:
    """Every pixel says its column and its row; so does the target."""
    y, x = np.mgrid[:size, :size]
    image = np.stack([x * 7, y * 7, x + y]).astype(np.uint8)
    return Sample((image, image.copy()), np.stack([x, y]).astype(np.float32))


def test_a_part_of_one_view_keeps_image_and_target_together() -> None:
    for seed in range(8):
        part = augment.one_view(ramp(), np.random.default_rng(seed), (16, 12), (1.0, 1.0), 0.5, 0.0)
        assert part.views[0].shape == (3, 16, 12)
        assert torch.equal(part.views[0][0], part.target[0] * 7)
        assert torch.equal(part.views[0][1], part.target[1] * 7)


def test_images_that_are_too_small_are_enlarged_and_targets_never_mixed() -> None:
    mask = np.random.default_rng(0).integers(0, 2, (1, 10, 14)).astype(np.int32) * 9
    sample = Sample((np.zeros((3, 10, 14), np.uint8),), mask)
    part = augment.one_view(sample, np.random.default_rng(0), (16, 16), (0.5, 2.0), 0.0, 0.0)
    assert part.target.shape == (1, 16, 16)
    assert set(part.target.unique().tolist()) <= {0, 9}


def test_disparity_grows_with_the_width_and_flow_with_either_side() -> None:
    one = Sample((np.zeros((3, 8, 8), np.uint8),) * 2, np.full((1, 8, 8), 2.0, np.float32))
    two = Sample(one.views, np.concatenate([one.target, 3 * one.target]))
    of_one, of_two = (augment._stretched(augment.whole(sample), 2.0, 3.0, axes) for sample, axes in ((one, (0,)), (two, (0, 1))))
    assert of_one.target.shape == (1, 16, 24)
    assert of_one.target.unique().tolist() == [6.0]
    assert [channel.unique().tolist() for channel in of_two.target] == [[6.0], [12.0]]
    enlarged = augment.plain_pair(one, np.random.default_rng(0), (16, 16), (0,))
    assert enlarged.target.unique().tolist() == [4.0]


def test_stereo_cuts_both_views_alike_and_widens_to_the_crop_and_eight() -> None:
    """Before the right view is turned and colours change, both are the same part: the left view's columns still say the disparity's."""
    widths = set()
    for seed in range(20):
        sample = ramp(40)
        sample = Sample(sample.views, sample.target[:1])
        part = augment.stereo(sample, np.random.default_rng(seed), (32, 32))
        assert part.target.shape == (1, 32, 32)
        widths.add(round(float(part.target[0].max() - part.target[0].min())))
        assert all(view.shape == (3, 32, 32) for view in part.views)
        assert all(float(view.min()) >= 0 and float(view.max()) <= 255 for view in part.views)
    assert widths <= {29, 30, 31, 32, 33}, "a stretched column counts as many pixels more as it is wider"


def test_only_what_is_scaled_is_stretched() -> None:
    """Of five images one is not scaled, and then not stretched either; of the others four in five are (stereoflow/augmentor.py)."""
    still = Sample((np.zeros((3, 40, 40), np.uint8),) * 2, np.full((2, 40, 40), 1.0, np.float32))
    parts = [augment.flow(still, np.random.default_rng(seed), (8, 8)).target.abs() for seed in range(600)]
    x, y = torch.stack([part[:, 0, 0] for part in parts]).T
    whole = 1 / 40  # sides are whole pixels
    assert float(((x - 1).abs() + (y - 1).abs() < 1e-6).float().mean()) == pytest.approx(0.2, abs=0.05)
    assert float(((x - y).abs() < 1e-6).float().mean()) == pytest.approx(0.2 + 0.8 * 0.2, abs=0.1)
    assert float(torch.stack([x, y]).min()) >= 2**-0.4 - whole
    assert float(torch.stack([x, y]).max()) <= 2**0.7 + whole


def test_flips_turn_the_flow_round() -> None:
    def is_mirrored(axis: int, seed: int) -> bool:
        still = Sample((np.zeros((3, 8, 8), np.uint8),) * 2, np.stack([np.full((8, 8), 2.0), np.full((8, 8), 5.0)]).astype(np.float32))
        return bool(augment.flow(still, np.random.default_rng(seed), (8, 8)).target[axis].mean() < 0)

    across, down = ([is_mirrored(axis, seed) for seed in range(200)] for axis in (0, 1))
    assert 0.38 < np.mean(across) < 0.62
    assert 0.04 < np.mean(down) < 0.18


def test_colours_of_the_right_view_are_now_and_then_its_own() -> None:
    view = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    same, changed = 0, 0
    for seed in range(200):
        left, right = augment.stereo_colours([view, view], np.random.default_rng(seed), 255.0)
        same += int(torch.equal(left, right))
        changed += int(not torch.allclose(left, view, atol=1e-3))
    assert 40 < same < 140
    assert changed > 150


def test_hue_turns_the_circle_of_colours() -> None:
    red = torch.tensor([0.8, 0.2, 0.2])[:, None, None]
    assert augment.hue(red, 1 / 3).flatten().tolist() == pytest.approx([0.2, 0.8, 0.2], abs=1e-6)
    assert augment.hue(red, 1.0).flatten().tolist() == pytest.approx([0.8, 0.2, 0.2], abs=1e-6)
    grey = torch.full((3, 1, 1), 0.4)
    assert torch.allclose(augment.hue(grey, 0.2), grey)
    assert torch.equal(augment.hue(grey[:1], 0.2), grey[:1])


def test_gamma_contrast_and_saturation_by_hand() -> None:
    view = torch.tensor([[[0.25, 0.75]]] * 3)
    assert augment.gamma(view, 0.5)[0].flatten().tolist() == pytest.approx([0.5, math.sqrt(0.75)])
    assert augment.contrast(view, 0.0)[0].flatten().tolist() == pytest.approx([0.5, 0.5], abs=1e-3)
    assert torch.allclose(augment.saturation(view, 3.0), view, atol=1e-3), "grey has no saturation"


def test_a_small_turn_and_shift_moves_the_right_view_down() -> None:
    view = torch.zeros(1, 9, 9)
    view[0, 4, 4] = 1.0
    moved = augment._turned(view, 0.0, 2.0)
    assert moved[0].nonzero().tolist() == [[6, 4]]
    assert float(augment._turned(view, 90.0, 0.0)[0, 4, 4]) == pytest.approx(1.0, abs=1e-5)


def test_the_right_view_turns_about_any_point() -> None:
    """Half of all right views are turned by up to a tenth of a degree, and moved by up to 2 pixels. The point decides by how much more they move."""
    width = 3000
    rows = torch.arange(24.0)[:, None].expand(1, 24, width).contiguous()
    moved = [augment.misaligned(rows, np.random.default_rng(seed))[0, 12] - 12 for seed in range(100)]  # a row says where it came from
    changed = [row for row in moved if float(row.abs().max()) > 1e-3]
    assert 35 < len(changed) < 65
    slopes = torch.stack([(row[-1] - row[0]) / width for row in changed])
    assert float(slopes.abs().max()) == pytest.approx(math.tan(math.radians(0.1)), rel=0.15)
    middles = torch.stack([row[width // 2] for row in changed])
    assert float(middles.abs().max()) > 2.05, "about the middle it would move by the shift alone"
    assert float(middles.abs().max()) < 2 + width / 2 * math.tan(math.radians(0.1))
    corner = augment._turned(rows, 0.1, 0.0, (0.0, 0.5))[0, 12] - 12
    assert float(corner[0].abs()) < 2e-3
    assert float(corner[-1].abs()) == pytest.approx(width * math.tan(math.radians(0.1)), rel=0.01)


def test_images_of_floats_keep_their_values() -> None:
    values = np.random.default_rng(0).normal(0, 50, (3, 8, 8)).astype(np.float32)
    part = augment.one_view(Sample((values,), np.zeros((1, 8, 8), np.int32)), np.random.default_rng(0), (8, 8), (1.0, 1.0), 0.0, 0.5)
    assert np.array_equal(part.views[0].numpy(), values)
