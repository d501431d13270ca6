"""Augmentation of a whole batch on its device: random resized crop, flip, normalisation. Nothing here waits for the device.

- The law of the crops is that of torchvision's `RandomResizedCrop`: ten tries, then the middle; drawn for all rows at once from `ctx.rng`, so a row's
  crop depends on (seed, step, global row) only.
- Resampling is Pillow's bicubic with antialiasing. A crop, its resizing and its flip are one small matrix a side: on a GPU two products of matrices,
  on a CPU, where most of their numbers are zeros that take time, sums of the few pixels that count (`python -m benchmarks.augment`).
  `torch.nn.functional.grid_sample` has no antialiasing, `interpolate` no crop of its own for each row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

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
    height, width = images.shape[-2:]
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 has 8 bits: as many as a pixel, and none left for sums of them
        rows = bicubic_taps(top, tall, height, size)
        columns = bicubic_taps(left, wide, width, size)
        if mirrored is not None:
            columns = tuple(torch.where(mirrored[:, None, None], part.flip(1), part) for part in columns)
        result = _by_sums(images, rows, columns) if images.device.type == "cpu" else _by_products(images, rows, columns)
    if not images.dtype.is_floating_point:  # the filter overshoots at edges
        result = result.clamp_(0, torch.iinfo(images.dtype).max)
    return result


Taps = tuple[Tensor, ...]
"""Of one side: the pixels that are looked at, int64 [batch, size, taps], and what each gives, float32 of the same shape."""


def bicubic_taps(start: Tensor, length: Tensor, total: int, size: int) -> Taps:
    """What of `total` pixels makes each of `size`, which cover `length` pixels from `start` on.

    Pillow's antialiasing bicubic filter (a = -0.5): where it shrinks, the filter is as much wider. Weights of a pixel sum to one; those of pixels
    outside of the part are zero.
    """
    step = length.float() / size  # [batch]
    widened = step.clamp(min=1.0)
    centre = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * step[:, None]  # [batch, size]
    first = torch.ceil(centre - 2 * widened[:, None] - 0.5).long()
    taps = math.ceil(4 * max(1.0, total / size)) + 1  # of the largest part: a number that no device has to be asked for
    pixel = first[..., None] + torch.arange(taps, device=start.device)
    distance = ((pixel + 0.5 - centre[..., None]) / widened[:, None, None]).abs()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    inside = (pixel >= start[:, None, None]) & (pixel < (start + length)[:, None, None])  # what lies beside the part is not looked at
    weights = weights * inside
    return pixel.clamp(0, total - 1), weights / weights.sum(-1, keepdim=True)


def _by_products(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """[batch, channels, size, size] by a matrix a side, [batch, size, pixels]."""
    height, width = images.shape[-2:]
    down, across = (_matrix(taps, total) for taps, total in ((rows, height), (columns, width)))
    return down[:, None] @ images.float() @ across[:, None].mT


def _matrix(taps: Taps, total: int) -> Tensor:
    pixel, weights = taps
    return weights.new_zeros(*pixel.shape[:2], total).scatter_add_(2, pixel, weights)


def _by_sums(images: Tensor, rows: Taps, columns: Taps) -> Tensor:
    """The same by weighted sums of rows, then of columns, each of which lies in one piece."""
    batch, channels, _, width = images.shape
    size = rows[0].shape[1]
    tall = _weighted(images.transpose(1, 2).contiguous().float(), rows)  # [batch, size, channels, width]
    turned = tall.view(batch, size * channels, width).mT.contiguous().view(batch, width, size, channels)
    return _weighted(turned, columns).permute(0, 3, 2, 1).contiguous()  # from [batch, size of x, size of y, channels]


def _weighted(lines: Tensor, taps: Taps) -> Tensor:
    """[batch, size, ...]: weighted sums of lines [batch, pixels, ...]."""
    pixel, weights = taps
    batch, total, *shape = lines.shape
    found = pixel + torch.arange(0, batch * total, total)[:, None, None]
    summed = F.embedding_bag(found.flatten(0, 1), lines.flatten(2).flatten(0, 1), per_sample_weights=weights.flatten(0, 1), mode="sum")
    return summed.view(batch, -1, *shape)


def normalize(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """float32 [batch, channels, height, width]: each channel less its mean, over its deviation.

    Args:
        mean, std: [channels], in the values of `images`. A channel that never varies (std 0) is only shifted.
    """
    scale = torch.where(std > 0, std, 1.0)
    return (images.float() - mean[:, None, None]) / scale[:, None, None]
