"""Mixup, cutmix and random erasing keep their laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.core.rng import Rng
from headstart.tasks.image_mixing import cut_box, erase, mix, soft_targets

LABELS = torch.tensor([0, 2, 1, 2])


def test_smoothed_targets() -> None:
    found = soft_targets(LABELS, 4, 0.1)
    assert torch.allclose(found[1], torch.tensor([0.025, 0.025, 0.925, 0.025]))
    assert torch.equal(soft_targets(LABELS, 4, 0.0).argmax(1), LABELS)


def test_mixup_mixes_pixels_and_targets_in_the_same_share() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    mixed, targets = mix(images, soft_targets(LABELS, 3, 0.0), np.random.default_rng(0), mixup=0.8, cutmix=0.0)
    share = float(np.random.default_rng(0).beta(0.8, 0.8))
    assert torch.allclose(mixed[0], torch.full((3, 8, 8), (1 - share) * 3))
    assert torch.allclose(targets[0], torch.tensor([share, 0.0, 1 - share]))
    assert torch.allclose(targets.sum(1), torch.ones(4))


def test_cutmix_takes_a_part_and_counts_its_area() -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    for seed in range(20):
        mixed, targets = mix(images, torch.eye(4), np.random.default_rng(seed), mixup=0.0, cutmix=1.0)
        from_other = (mixed[0] == 3.0).float().mean()
        assert targets[0, 3] == pytest.approx(float(from_other), abs=1e-6)
        assert targets[0, 0] == pytest.approx(1 - float(from_other), abs=1e-6)
    assert torch.equal(images[0], torch.zeros(1, 16, 16)), "the images given are not changed"


def test_the_part_is_cut_at_the_border() -> None:
    assert cut_box(10, 10, 0.75, 5, 5) == (3, 7, 3, 7)  # sqrt(1/4) of 10 is 5, half of it 2
    assert cut_box(10, 10, 0.75, 0, 9) == (0, 2, 7, 10)


def test_with_both_each_comes_as_often() -> None:
    images = torch.rand(2, 1, 8, 8)
    cuts = 0
    for seed in range(400):
        mixed, _ = mix(images, torch.eye(2), np.random.default_rng(seed), mixup=0.8, cutmix=1.0)
        cuts += bool(torch.isin(mixed, images).all())
    assert 160 < cuts < 240  # 200 within 4 standard deviations
    same, targets = mix(images, torch.eye(2), np.random.default_rng(0), mixup=0.0, cutmix=0.0)
    assert same is images
    assert torch.equal(targets, torch.eye(2))


def test_erasing_hits_its_share_of_images_with_noise_in_a_rectangle() -> None:
    images = torch.full((2000, 2, 16, 16), 7.0)
    rng = Rng.at(0, 3, torch.arange(2000))
    erased = erase(images, rng, 0.25)
    changed = erased != 7.0
    hit = changed.flatten(1).any(1)
    assert abs(float(hit.float().mean()) - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    shares = changed[hit][:, 0].float().mean((1, 2))
    assert shares.min() > 0.01
    assert shares.max() < 0.36  # a third, and the rounding of its sides
    assert torch.equal(changed[:, 0], changed[:, 1]), "the same place in every channel"
    one = changed[hit][0, 0]
    rows, columns = one.any(1), one.any(0)
    assert bool((one == rows[:, None] & columns[None]).all()), "it is a rectangle"
    noise = erased[changed]
    assert abs(float(noise.mean())) < 0.05
    assert abs(float(noise.std()) - 1) < 0.05
    part = erase(images[500:600], Rng.at(0, 3, torch.arange(500, 600)), 0.25)
    assert torch.equal(part, erased[500:600]), "it goes by the row, not by the place in the batch"
    assert erase(images, rng, 0.0) is images
