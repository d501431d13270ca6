"""Augmentation of a whole batch on its device: random resized crop, flip, normalisation. Nothing here waits for the device.

- The law of the crops is that of torchvision's `RandomResizedCrop`: ten tries, then the middle; drawn for all rows at once from `ctx.rng`, so a row's
  crop depends on (seed, step, global row) only.
- Resampling is Pillow's bicubic with antialiasing, written as two matrix products: a crop, its resizing and its flip are one small matrix a side.
  `torch.nn.functional.grid_sample` has no antialiasing, `interpolate` no crop of its own for each row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstart.core.rng import Rng

TRIES = 10


def random_resized_crop_flip(
    images: Tensor,
    rng: Rng,
    size: int,
    scale: tuple[float, float] = (0.2, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Tensor:
    """A random part of each image, resized to `size` x `size`, some mirrored left to right.

    Args:
        images: [batch, channels, height, width] of any real type; integers stay within the range of their type.
        scale: smallest and largest share of the area that is kept.
        ratio: smallest and largest width / height of the part.
        flip: probability of mirroring.

    Returns:
        float32 [batch, channels, size, size], in the values of `images`.
    """
    height, width = images.shape[-2:]
    top, left, tall, wide = random_boxes(rng, height, width, scale, ratio)
    mirrored = rng.uniform("flip") < flip
    return resample(images, (top, left, tall, wide), size, mirrored)


def random_boxes(
    rng: Rng, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width of a part of each image: int64 [batch] each.

    torchvision's `RandomResizedCrop.get_params`: area uniform in `scale`, ratio log-uniform in `ratio`, sides rounded; the first of ten that fits;
    if none does, the largest part of the middle with the nearest allowed ratio.
    """
    draws = rng.uniform("crop.shape", TRIES, 2)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[..., 0])  # [batch, tries]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * draws[..., 1])
    wide = (area * aspect).sqrt().round().long()
    tall = (area / aspect).sqrt().round().long()
    fits = (wide > 0) & (wide <= width) & (tall > 0) & (tall <= height)
    first = fits.long().argmax(1, keepdim=True)
    found = fits.any(1)
    middle_height, middle_width = _middle(height, width, ratio)
    tall = torch.where(found, tall.gather(1, first)[:, 0], middle_height)
    wide = torch.where(found, wide.gather(1, first)[:, 0], middle_width)
    places = rng.uniform("crop.place", 2)
    top = torch.where(found, (places[:, 0] * (height - tall + 1)).long(), (height - tall) // 2)
    left = torch.where(found, (places[:, 1] * (width - wide + 1)).long(), (width - wide) // 2)
    return top, left, tall, wide


def _middle(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the part of the middle, for images where no try fits."""
    if width / height < ratio[0]:
        return round(width / ratio[0]), width
    if width / height > ratio[1]:
        return height, round(height * ratio[1])
    return height, width


def resize(images: Tensor, size: int) -> Tensor:
    """The whole of each image as float32 [batch, channels, size, size]; their values as they are where that is their size."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images.float()
    whole = tuple(torch.full((len(images),), value, device=images.device) for value in (0, 0, height, width))
    return resample(images, whole, size)


def resample(images: Tensor, boxes: tuple[Tensor, ...], size: int, mirrored: Tensor | None = None) -> Tensor:
    """A part of each image, resized by Pillow's bicubic filter: float32 [batch, channels, size, size].

    Args:
        boxes: top, left, height and width, int64 [batch] each.
        mirrored: bool [batch].
    """
    top, left, tall, wide = boxes
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has 8 bits: as many as a pixel, and none left for sums of them
        rows = bicubic_weights(top, tall, images.shape[-2], size)  # [batch, size, height]
        columns = bicubic_weights(left, wide, images.shape[-1], size)  # [batch, size, width]
        if mirrored is not None:
            columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        result = rows[:, None] @ images.float() @ columns[:, None].mT
    if not images.dtype.is_floating_point:  # the filter overshoots at edges
        result = result.clamp(0, torch.iinfo(images.dtype).max)
    return result


def bicubic_weights(start: Tensor, length: Tensor, total: int, size: int) -> Tensor:
    """float32 [batch, size, total]: what each of `total` pixels gives to each of `size`, which cover `length` pixels from `start` on.

    Pillow's antialiasing bicubic filter (a = -0.5): where it shrinks, the filter is as much wider.
    """
    step = length.float() / size  # [batch]
    widened = step.clamp(min=1.0)
    centre = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * step[:, None]  # [batch, size]
    pixel = torch.arange(total, device=start.device)
    distance = ((pixel + 0.5 - centre[..., None]) / widened[:, None, None]).abs()  # [batch, size, total]
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])  # [batch, total]: what lies beside the part is not looked at
    weights = weights * inside[:, None]
    return weights / weights.sum(-1, keepdim=True)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 [batch, channels, height, width]: each channel less its mean, over its deviation.

    Args:
        mean, std: [channels], in the values of `images`. A channel that never varies (std 0) is only shifted.
    """
    scale = torch.where(std > 0, std, 1.0)
    return (images.float() - mean[:, None, None]) / scale[:, None, None]
