"""Regularisers of fine-tuning on images, a whole batch at once on its device: mixup, cutmix, random erasing.

The laws are those of timm, with which MAE was fine-tuned: mixup and cutmix mix a batch with itself turned round, one share for the whole batch (mode
"batch"); erasing draws for each image.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.rng import Rng

ERASED_AREA = (0.02, 1 / 3)
ERASED_RATIO = (0.3, 1 / 0.3)
TRIES = 10


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """float32 [batch, classes]: 1 - smoothing + smoothing / classes at the label, smoothing / classes elsewhere.

    Args:
        labels: int64 [batch].
    """
    return F.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def mix(images: Tensor, targets: Tensor, random: np.random.Generator, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018) or cutmix (Yun et al. 2019) of a batch; with both alphas above 0 one of them, each as often.

    Args:
        images: [batch, channels, height, width].
        targets: [batch, classes].
        random: draws of the batch, on the host.

    Returns:
        new images, and the targets in the same shares.
    """
    if not mixup and not cutmix:
        return images, targets
    cuts = bool(cutmix) and (not mixup or random.random() < 0.5)
    alpha = cutmix if cuts else mixup
    share = float(random.beta(alpha, alpha))
    if cuts:
        height, width = images.shape[-2:]
        top, bottom, left, right = cut_box(height, width, share, int(random.integers(height)), int(random.integers(width)))
        share = 1 - (bottom - top) * (right - left) / (height * width)
        images = images.clone()
        images[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
    else:
        images = images * share + images.flip(0) * (1 - share)
    return images, targets * share + targets.flip(0) * (1 - share)


def cut_box(height: int, width: int, share: float, row: int, column: int) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the part that comes from the other image: of area 1 - share, around (row, column), cut at the border."""
    part = math.sqrt(1 - share)
    tall, wide = int(height * part), int(width * part)
    return max(row - tall // 2, 0), min(row + tall // 2, height), max(column - wide // 2, 0), min(column + wide // 2, width)


def erase(images: Tensor, rng: Rng, probability: float) -> Tensor:
    """Random erasing (Zhong et al. 2020) with noise: a rectangle of some images becomes standard normal noise.

    Args:
        images: [batch, channels, height, width], normalised.
        rng: draws of each row.
    """
    if not probability:
        return images
    height, width = images.shape[-2:]
    draws = rng.uniform("erase.shape", TRIES, 2)
    area = height * width * (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * draws[..., 0])  # [batch, tries]
    low, high = (math.log(ratio) for ratio in ERASED_RATIO)
    ratio = torch.exp(low + (high - low) * draws[..., 1])
    tall, wide = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (tall < height) & (wide < width)
    first = fits.long().argmax(1, keepdim=True)
    tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    places = rng.uniform("erase.place", 2)
    top = (places[:, 0] * (height - tall + 1)).long()
    left = (places[:, 1] * (width - wide + 1)).long()
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    inside = _between(rows, top, tall)[:, :, None] & _between(columns, left, wide)[:, None, :]  # [batch, height, width]
    chosen = (rng.uniform("erase") < probability) & fits.any(1)
    noise = rng.normal("erase.noise", *images.shape[1:])
    return torch.where((inside & chosen[:, None, None])[:, None], noise.to(images.dtype), images)


def _between(place: Tensor, start: Tensor, length: Tensor) -> Tensor:
    return (place >= start[:, None]) & (place < (start + length)[:, None])
