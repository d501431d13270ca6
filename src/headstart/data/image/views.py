"""Views of a scene as CroCo wants them, a whole batch on its device: crops at places of their own without rescaling, and colour jitter drawn for each
view alone (naver/croco datasets/transforms.py: `crop224+acolor`). Nothing here waits for the device.

The jitter is torchvision's on float images: each of brightness, contrast and saturation mixes the image with black, with its mean grey, or with its
own greys; the three in random order, and after each the values are cut to the range of their type.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headstart.core.rng import Rng

GREY = (0.2989, 0.587, 0.114)
"""What red, green and blue give to grey (ITU-R BT.601)."""


def random_places(rng: Rng, name: str, height: int, width: int, size: int) -> Tensor:
    """int64 [batch, 2]: top and left of a square of `size` pixels, each uniform over where it fits."""
    top = rng.integers(f"{name}.top", height - size + 1)
    left = rng.integers(f"{name}.left", width - size + 1)
    return torch.stack([top, left], dim=1)


def crop_at(images: Tensor, places: Tensor, size: int) -> Tensor:
    """Squares of `size` pixels of [batch, channels, height, width], at int64 [batch, 2] (top, left): [batch, channels, size, size]."""
    batch, channels, height, width = images.shape
    if (height, width) == (size, size):
        return images
    steps = torch.arange(size, device=images.device)
    rows, columns = places[:, :1] + steps, places[:, 1:] + steps  # [batch, size]
    index = (rows[:, :, None] * width + columns[:, None]).view(batch, 1, -1)  # [batch, 1, size * size]
    return images.flatten(2).gather(2, index.expand(-1, channels, -1)).view(batch, channels, size, size)


def middle(images: Tensor, size: int, offset: int = 0) -> Tensor:
    """The squares of `size` pixels in the middle, or `offset` pixels further down and right."""
    top, left = ((side - size) // 2 + offset for side in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def colour_jitter(images: Tensor, rng: Rng, name: str, strength: float) -> Tensor:
    """float32 [batch, channels, height, width]: brightness, contrast and saturation of each image times 1 - strength to 1 + strength.

    Args:
        images: of any real type; results stay within the range of an integer type. Grey is the mean of the channels where there are not three; one
            channel has no saturation.
        strength: at most 1.
    """
    limit = None if images.dtype.is_floating_point else torch.iinfo(images.dtype).max
    images = images.float()
    factors = 1 + strength * (2 * rng.uniform(f"{name}.factors", 3) - 1)  # [batch, 3]: brightness, contrast, saturation
    order = rng.uniform(f"{name}.order", 3).argsort(1)
    for step in range(3):  # of the three operations, not of the images
        which = order[:, step, None, None, None]  # [batch, 1, 1, 1]
        factor = factors.gather(1, order[:, step : step + 1])[..., None, None]
        grey = _grey(images)
        base = torch.where(which == 1, grey.mean((2, 3), keepdim=True), torch.where(which == 2, grey, 0.0))
        images = torch.lerp(base.expand_as(images), images, factor)
        if limit is not None:
            images = images.clamp(0, limit)
    return images


def _grey(images: Tensor) -> Tensor:
    """[batch, 1, height, width]"""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = (images[:, i : i + 1] * share for i, share in enumerate(GREY))
    return red + green + blue
