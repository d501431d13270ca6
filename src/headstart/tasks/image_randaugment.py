"""RandAugment (Cubuk et al. 2020) as MAE was fine-tuned with it, a whole batch at once on its device: timm's `rand-mM-mstd0.5-inc1`.

- Of each image two operations are drawn out of fifteen, with replacement; each is done with probability one half, at the magnitude M plus normal
  noise of deviation 0.5, cut to 0..10. With "inc1" a larger magnitude is always a stronger change.
- Operations are Pillow's, on bytes: rounding, the grey value of colours, the bicubic filter of its transforms, borders filled with the mean.
- Draws are few and lie on the host: so images of the same operation are known there, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.rng import Rng

LAYERS = 2
PROBABILITY = 0.5
DEVIATION = 0.5
STRONGEST = 10.0
"""Magnitudes are parts of this."""
DEGREES, SHEAR, SHIFT, ENHANCED, ADDED = 30.0, 0.3, 0.45, 0.9, 110.0
"""At the strongest: degrees; slope; share of a side; change of a factor; what is added to dark values."""
CUBIC = -1.0
"""Pillow's transforms use this cubic, its resizing one of -0.5."""


def randaugment(images: Tensor, rng: Rng, magnitude: float, fill: Tensor) -> Tensor:
    """Two random operations on each image.

    Args:
        images: [batch, channels, height, width], values of bytes; rounded to whole ones.
        rng: draws of each row, on the CPU.
        magnitude: 0..10; MAE: 9.
        fill: [channels], what comes in at borders.

    Returns:
        float32, whole values 0..255.
    """
    images, fill = images.round().clamp(0, 255), fill.round().clamp(0, 255)
    draws = drawn(rng, magnitude)
    for operation, done, level, sign in zip(*draws, strict=True):
        for number in operation[done].unique().tolist():
            rows = torch.nonzero((operation == number) & done)[:, 0]
            at, of_level, of_sign = (values.to(images.device) for values in (rows, level[rows], sign[rows]))
            images = images.index_copy(0, at, OPERATIONS[number](images[at], of_level, of_sign, fill))
    return images


class Draws(NamedTuple):
    """What happens to each image, [layers, batch] each: which operation, whether it is done, how strongly (0..1), to which side (-1 or 1)."""

    operation: Tensor
    done: Tensor
    level: Tensor
    sign: Tensor


def drawn(rng: Rng, magnitude: float) -> Draws:
    """The law."""
    return Draws(
        rng.integers("randaugment.operation", len(OPERATIONS), LAYERS).T,
        rng.uniform("randaugment.done", LAYERS).T < PROBABILITY,
        (magnitude + DEVIATION * rng.normal("randaugment.magnitude", LAYERS).T).clamp(0, STRONGEST) / STRONGEST,
        torch.where(rng.uniform("randaugment.sign", LAYERS).T < 0.5, -1.0, 1.0),
    )


# --- operations: (images [n, channels, height, width], level [n] in 0..1, sign [n] of -1 and 1, fill [channels]) -> images


def auto_contrast(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """Each channel from its smallest value to its largest becomes 0 to 255."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    scale = 255.0 / (high - low).clamp(min=1)
    return torch.where(high > low, _whole((images - low) * scale), images)


def equalize(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """Each channel's values become spread evenly over 0 to 255."""
    n, channels, height, width = images.shape
    values = images.long().view(n * channels, height * width)
    counts = torch.zeros(n * channels, 256, dtype=torch.long, device=images.device).scatter_add_(1, values, torch.ones_like(values))
    last = counts.gather(1, values.amax(1, keepdim=True))
    step = (height * width - last) // 255  # [n * channels, 1]; 0 where one value has nearly all pixels: nothing is changed there
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, table.gather(1, values), values).view_as(images).to(images.dtype)


def invert(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return 255 - images


def rotate(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """Around the middle, counter-clockwise for a positive sign."""
    angle = -torch.deg2rad(DEGREES * level * sign)
    cos, sin = angle.cos(), angle.sin()
    middle_x, middle_y = images.shape[3] / 2, images.shape[2] / 2
    return transformed(
        images,
        (cos, sin, middle_x - cos * middle_x - sin * middle_y),
        (-sin, cos, middle_y + sin * middle_x - cos * middle_y),
        fill,
    )


def posterize(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """4 to 0 of the highest bits are kept."""
    kept = 4 - (4 * level).floor()
    step = _column(2 ** (8 - kept))
    return (images / step).floor() * step


def solarize(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """Values from a threshold on are inverted."""
    return torch.where(images < _column(256 - (256 * level).floor()), images, 255 - images)


def solarize_add(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """Something is added to the values of the darker half."""
    return torch.where(images < 128, (images + _column((ADDED * level).floor())).clamp(max=255), images)


def colour(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return blended(grey(images).expand_as(images), images, _factor(level, sign))


def contrast(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    mean = (grey(images).mean((2, 3), keepdim=True) + 0.5).floor()
    return blended(mean.expand_as(images), images, _factor(level, sign))


def brightness(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return blended(torch.zeros_like(images), images, _factor(level, sign))


def sharpness(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    """Between the image and its mean over 3 x 3 pixels, the middle one counted five times; the border is left as it is."""
    n, channels, height, width = images.shape
    if min(height, width) < 3:
        return images
    kernel = torch.ones(1, 1, 3, 3, device=images.device)
    kernel[0, 0, 1, 1] = 5
    smooth = images.clone()
    inside = F.conv2d(images.reshape(n * channels, 1, height, width), kernel / 13).view(n, channels, height - 2, width - 2)
    smooth[:, :, 1:-1, 1:-1] = (inside + 0.5).floor()
    return blended(smooth, images, _factor(level, sign))


def shear_x(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return transformed(images, (1.0, SHEAR * level * sign, 0.0), (0.0, 1.0, 0.0), fill)


def shear_y(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return transformed(images, (1.0, 0.0, 0.0), (SHEAR * level * sign, 1.0, 0.0), fill)


def translate_x(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return transformed(images, (1.0, 0.0, SHIFT * level * sign * images.shape[3]), (0.0, 1.0, 0.0), fill)


def translate_y(images: Tensor, level: Tensor, sign: Tensor, fill: Tensor) -> Tensor:
    return transformed(images, (1.0, 0.0, 0.0), (0.0, 1.0, SHIFT * level * sign * images.shape[2]), fill)


OPERATIONS: tuple[Callable[[Tensor, Tensor, Tensor, Tensor], Tensor], ...] = (
    auto_contrast, equalize, invert, rotate, posterize, solarize, solarize_add, colour, contrast, brightness, sharpness, shear_x, shear_y,
    translate_x, translate_y,
)  # fmt: skip
"""timm's, in its order."""

Row = tuple[Tensor | float, Tensor | float, Tensor | float]


def transformed(images: Tensor, of_x: Row, of_y: Row, fill: Tensor) -> Tensor:
    """Each pixel from the place a x + b y + c of the image, by Pillow's bicubic filter; from outside, the fill.

    Args:
        of_x, of_y: (a, b, c) of the column and of the row that a pixel comes from; numbers, or [n].
    """
    n, channels, height, width = images.shape
    y, x = (torch.arange(side, device=images.device) + 0.5 for side in (height, width))

    def place(row: Row) -> Tensor:
        a, b, c = (torch.as_tensor(value, dtype=torch.float32, device=images.device).expand(n)[:, None, None] for value in row)
        return a * x + b * y[:, None] + c  # [n, height, width]

    from_x, from_y = place(of_x), place(of_y)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    (left, x_weights), (top, y_weights) = cubic_taps(from_x, width), cubic_taps(from_y, height)
    flat = images.reshape(n, channels, height * width)
    total = torch.zeros_like(images)
    for row, row_weight in zip(top, y_weights, strict=True):
        line = torch.zeros_like(images)
        for column, weight in zip(left, x_weights, strict=True):
            index = (row * width + column).view(n, 1, -1).expand(-1, channels, -1)
            line += flat.gather(2, index).view_as(images) * weight[:, None]
        total += line * row_weight[:, None]
    return torch.where(inside[:, None], _whole(total.clamp(0, 255)), fill[:, None, None])


def cubic_taps(place: Tensor, side: int) -> tuple[list[Tensor], list[Tensor]]:
    """The four pixels around each place along an axis, int64, cut at the border, and their weights."""
    first = (place - 0.5).floor()
    d = place - 0.5 - first
    near = lambda t: ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1  # noqa: E731
    far = lambda t: CUBIC * (((t - 5) * t + 8) * t - 4)  # noqa: E731
    weights = [far(1 + d), near(d), near(1 - d), far(2 - d)]
    return [(first.long() + offset).clamp(0, side - 1) for offset in (-1, 0, 1, 2)], weights


def blended(other: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """other + factor (images - other), as bytes."""
    return _whole((other + _column(factor) * (images - other)).clamp(0, 255))


def grey(images: Tensor) -> Tensor:
    """[n, 1, height, width]: Pillow's grey of three colours; of other numbers of channels their mean."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True).round()
    weights = torch.tensor([19595.0, 38470.0, 7471.0], dtype=torch.float64, device=images.device)[:, None, None]
    return (((images * weights).sum(1, keepdim=True) + 32768) / 65536).floor().to(images.dtype)


def _factor(level: Tensor, sign: Tensor) -> Tensor:
    return (1 + ENHANCED * level * sign).clamp(min=0.1)


def _whole(values: Tensor) -> Tensor:
    """As Pillow makes bytes of fractions: cut off, with room for the error of a float."""
    return (values + 1e-3).floor()


def _column(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
