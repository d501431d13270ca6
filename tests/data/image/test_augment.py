"""The crops follow torchvision's law, the pixels Pillow's filter, and a row's crop depends on nothing but seed, step and row."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.core.rng import Rng
from headstart.data.image.augment import _by_products, _by_sums, bicubic_taps, normalize, random_boxes, random_resized_crop_flip, resize

SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def rng(rows: int, first: int = 0, step: int = 3) -> Rng:
    return Rng.at(0, step, torch.arange(first, first + rows))


def pictures(n: int = 24, channels: int = 3, height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def by_hand(height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], draw: random.Random) -> tuple[int, int, int, int]:
    """torchvision 0.26, RandomResizedCrop.get_params: its law in plain Python."""
    for _ in range(10):
        area = height * width * draw.uniform(*scale)
        aspect = math.exp(draw.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return draw.randint(0, height - h), draw.randint(0, width - w), h, w
    if width / height < ratio[0]:
        h, w = round(width / ratio[0]), width
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize(("height", "width", "scale"), [(64, 64, SCALE), (48, 80, (0.08, 1.0)), (20, 200, (0.5, 1.0))])
def test_crops_have_the_law_of_torchvision(height: int, width: int, scale: tuple[float, float]) -> None:
    """Mean and deviation of each side and place, and their distributions, over 20,000 draws (4 standard errors; Kolmogorov-Smirnov at 1e-4)."""
    n = 20_000
    ours = torch.stack(random_boxes(rng(n), height, width, scale, RATIO), 1).numpy()
    draw = random.Random(0)
    theirs = np.array([by_hand(height, width, scale, RATIO, draw) for _ in range(n)])
    error = 4 * np.sqrt(ours.var(0) / n + theirs.var(0) / n)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) <= error + 1e-9).all()
    for column in range(4):
        grid = np.arange(max(height, width) + 1)
        gap = np.abs(np.searchsorted(np.sort(ours[:, column]), grid, "right") - np.searchsorted(np.sort(theirs[:, column]), grid, "right")).max() / n
        assert gap <= 2.23 * math.sqrt(2 / n)


def test_a_part_lies_within_the_image_and_has_an_allowed_shape() -> None:
    top, left, tall, wide = random_boxes(rng(5000), 33, 47, SCALE, RATIO)
    assert bool(((top >= 0) & (left >= 0) & (top + tall <= 33) & (left + wide <= 47) & (tall > 0) & (wide > 0)).all())
    share = (tall * wide) / (33 * 47)
    assert float(share.min()) > 0.18
    assert float(share.max()) <= 1


def test_where_no_try_fits_the_middle_is_taken() -> None:
    """A strip of 1 : 50 has no part of a fifth of its area with such a ratio."""
    top, left, tall, wide = random_boxes(rng(50), 4, 200, SCALE, RATIO)
    assert set(zip(top.tolist(), left.tolist(), tall.tolist(), wide.tolist(), strict=True)) == {(0, (200 - 5) // 2, 4, 5)}


@pytest.mark.parametrize("size", [24, 90])
def test_pixels_are_those_of_pillow(size: int) -> None:
    """Crop, bicubic resize with antialiasing, flip: Pillow's float images, to rounding."""
    images = pictures()
    top, left, tall, wide = random_boxes(rng(24), 40, 56, SCALE, RATIO)
    mirrored = rng(24).uniform("flip") < 0.5
    ours = random_resized_crop_flip(images.float(), rng(24), size, SCALE, RATIO).numpy()
    assert 4 < int(mirrored.sum()) < 20
    for i in range(24):
        box = (int(left[i]), int(top[i]), int(left[i] + wide[i]), int(top[i] + tall[i]))
        for channel in range(3):
            whole = Image.fromarray(images[i, channel].numpy().astype(np.float32))
            expected = np.asarray(whole.crop(box).resize((size, size), Image.Resampling.BICUBIC))
            np.testing.assert_allclose(ours[i, channel], expected[:, ::-1] if mirrored[i] else expected, atol=0.01)


@pytest.mark.parametrize(("stored", "size"), [((32, 48), 32), ((40, 40), 56), ((64, 64), 16)])
def test_sums_on_a_cpu_are_the_products_of_a_gpu(stored: tuple[int, int], size: int) -> None:
    images = pictures(6, 3, *stored)
    boxes = random_boxes(rng(6), *stored, (0.2, 1.0), (3 / 4, 4 / 3))
    taps = bicubic_taps(boxes[0], boxes[2], stored[0], size), bicubic_taps(boxes[1], boxes[3], stored[1], size)
    torch.testing.assert_close(_by_sums(images, *taps), _by_products(images, *taps), atol=1e-3, rtol=0)


def test_integers_stay_within_their_range() -> None:
    checker = torch.zeros(4, 1, 16, 16, dtype=torch.uint8)
    checker[..., ::2] = 255
    found = random_resized_crop_flip(checker, rng(4), 40)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 255
    assert float(random_resized_crop_flip(checker.float(), rng(4), 40).max()) > 256  # the filter overshoots: there was something to keep


def test_sixteen_bit_images_are_augmented_too() -> None:
    images = torch.from_numpy(np.arange(2 * 16 * 16, dtype=np.uint16).reshape(2, 1, 16, 16) * 100)
    found = random_resized_crop_flip(images, rng(2), 8)
    assert found.dtype == torch.float32
    assert float(found.max()) > 40_000


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.arange(8.0).expand(4000, 1, 8, 8)
    found = random_resized_crop_flip(images, rng(4000), 8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    share = (found[:, 0, 0, 0] > 3.5).float().mean()
    assert abs(float(share) - 0.5) < 4 * math.sqrt(0.25 / 4000)
    still = random_resized_crop_flip(images, rng(4000), 8, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0)
    torch.testing.assert_close(still, images)


def test_micro_batches_cut_the_same_parts_as_the_whole_batch() -> None:
    images = pictures(8)
    whole = random_resized_crop_flip(images, rng(8), 16)
    halves = [random_resized_crop_flip(images[a : a + 4], rng(4, first=a), 16) for a in (0, 4)]
    torch.testing.assert_close(torch.cat(halves), whole)


def test_the_same_row_of_a_step_is_cut_the_same_and_of_another_step_otherwise() -> None:
    images = pictures(8)
    first, again, later = (random_resized_crop_flip(images, rng(8, step=step), 16) for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, later)


def test_bfloat16_of_the_network_does_not_reach_the_pixels() -> None:
    images = pictures(4)
    expected = random_resized_crop_flip(images, rng(4), 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_resized_crop_flip(images, rng(4), 16), expected)


def test_resize_leaves_images_of_that_size_alone() -> None:
    images = pictures(2, height=12, width=12)
    assert torch.equal(resize(images, 12), images.float())
    smaller = resize(images, 6)
    expected = np.asarray(Image.fromarray(images[0, 0].numpy().astype(np.float32)).resize((6, 6), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(smaller[0, 0], expected.clip(0, 255), atol=0.01)


def test_normalised_channels_have_mean_0_and_deviation_1() -> None:
    images = pictures(50)
    mean, std = images.double().mean((0, 2, 3)), images.double().std((0, 2, 3), correction=0)
    found = normalize(images, mean.float(), std.float())
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)
    flat = torch.full((2, 1, 4, 4), 7.0)
    assert torch.equal(normalize(flat, torch.tensor([7.0]), torch.tensor([0.0])), torch.zeros(2, 1, 4, 4))
