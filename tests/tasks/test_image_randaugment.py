"""RandAugment's operations are Pillow's, its law is timm's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from headstart.core.rng import Rng
from headstart.tasks.image_randaugment import OPERATIONS, drawn, randaugment

FILL = (120, 110, 100)
BICUBIC = Image.Resampling.BICUBIC


def affine(*numbers: float) -> Callable[[Image.Image], Image.Image]:
    return lambda picture: picture.transform(picture.size, Image.Transform.AFFINE, numbers, BICUBIC, fillcolor=FILL)


PILLOW: dict[str, Callable[[Image.Image], Image.Image]] = {  # at level .9, sign 1: what timm's functions call
    "auto_contrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "invert": ImageOps.invert,
    "rotate": lambda picture: picture.rotate(27, BICUBIC, fillcolor=FILL),
    "posterize": lambda picture: ImageOps.posterize(picture, 1),
    "solarize": lambda picture: ImageOps.solarize(picture, 26),
    "solarize_add": lambda picture: picture.point([min(255, i + 99) if i < 128 else i for i in range(256)] * 3),
    "colour": lambda picture: ImageEnhance.Color(picture).enhance(1.81),
    "contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.81),
    "brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(1.81),
    "sharpness": lambda picture: ImageEnhance.Sharpness(picture).enhance(1.81),
    "shear_x": affine(1, 0.27, 0, 0, 1, 0),
    "shear_y": affine(1, 0, 0, 0.27, 1, 0),
    "translate_x": affine(1, 0, 0.405 * 20, 0, 1, 0),
    "translate_y": affine(1, 0, 0, 0, 1, 0.405 * 24),
}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """uint8 [2, 24, 20, 3]: smooth colours with grain."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:24, 0:20]
    smooth = [[128 + 90 * np.sin(x * a + y * b) for a, b in random.uniform(0.1, 0.6, (3, 2))] for _ in range(2)]
    return (np.moveaxis(np.array(smooth), 1, -1) + random.normal(0, 9, (2, 24, 20, 3))).clip(20, 240).astype(np.uint8)


def as_tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy()).float()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_an_operation_is_pillows(operation: Callable[..., Tensor], pictures: np.ndarray) -> None:
    expected = as_tensor(np.stack([np.asarray(PILLOW[operation.__name__](Image.fromarray(picture))) for picture in pictures]))
    found = operation(as_tensor(pictures), torch.full((2,), 0.9), torch.ones(2), torch.tensor(FILL).float())
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1, "a fraction near a whole number may fall on either side"
    assert (found != expected).float().mean() < 0.02
    assert not torch.equal(found, as_tensor(pictures))


def test_every_row_has_its_own_level_and_sign(pictures: np.ndarray) -> None:
    images, fill = as_tensor(pictures), torch.tensor(FILL).float()
    for operation in OPERATIONS:
        level, sign = torch.tensor([0.2, 0.7]), torch.tensor([1.0, -1.0])
        both = operation(images, level, sign, fill)
        for row in range(2):
            assert torch.equal(both[row], operation(images[row : row + 1], level[row : row + 1], sign[row : row + 1], fill)[0])


def test_the_law_is_timms() -> None:
    """rand-m9-mstd0.5-inc1: two of fifteen with replacement, each done half the times, magnitude 9 with deviation .5, at most 10."""
    n = 6000
    draws = drawn(Rng.at(0, 0, torch.arange(n)), 9.0)
    assert draws.operation.shape == (2, n)
    assert torch.allclose(draws.done.sum(0).bincount(minlength=3) / n, torch.tensor([0.25, 0.5, 0.25]), atol=0.03)
    assert torch.allclose(draws.operation.flatten().bincount(minlength=15) / (2 * n), torch.tensor(1 / 15), atol=0.01)
    assert float((draws.operation[0] == draws.operation[1]).float().mean()) == pytest.approx(1 / 15, abs=0.02)
    assert float(draws.level.max()) == 1.0
    quantiles = draws.level.flatten().quantile(torch.tensor([0.1587, 0.5, 0.8413]))
    assert torch.allclose(quantiles, torch.tensor([0.85, 0.9, 0.95]), atol=0.006), "a deviation is a twentieth"
    assert abs(float(draws.sign.mean())) < 0.06


def test_draws_go_by_the_row_and_whole_bytes_come_out(pictures: np.ndarray) -> None:
    images = as_tensor(pictures).repeat(8, 1, 1, 1) + 0.3
    rows = torch.arange(16)
    whole = randaugment(images, Rng.at(3, 5, rows), 9.0, torch.tensor(FILL).float())
    part = randaugment(images[5:9], Rng.at(3, 5, rows[5:9]), 9.0, torch.tensor(FILL).float())
    assert torch.equal(whole[5:9], part)
    assert torch.equal(whole, whole.round())
    assert whole.min() >= 0
    assert whole.max() <= 255
    assert not torch.equal(whole[0], whole[2]), "the same picture is changed in another way"


def test_grey_images_and_many_bands_are_changed_too() -> None:
    random = np.random.default_rng(1)
    for channels in (1, 5):
        images = torch.from_numpy(random.integers(0, 255, (60, channels, 9, 7)).astype(np.float32))
        found = randaugment(images, Rng.at(0, 0, torch.arange(60)), 9.0, torch.full((channels,), 90.0))
        assert found.shape == images.shape
        assert (found != images).flatten(1).any(1).float().mean() > 0.5
