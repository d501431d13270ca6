"""Stereo and flow: losses with and without a predicted confidence, and the usual metrics (naver/croco stereoflow/criterion.py).

A map of disparity has one channel, of flow two (x, y). Where the truth is no finite number nothing is scored. Nothing here waits for the device.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["l1", "laplacian", "bounded", "bounded2"]
"""laplacian: CroCo-Stereo on ETH3D; bounded: CroCo-Flow; bounded2: CroCo-Stereo elsewhere."""
LARGEST_FLOW = 1e4
"""bounded: pixels that move further are not scored."""


class Scored(NamedTuple):
    """A mean over the valid pixels of a batch, and their number: what a loss over micro-batches is weighted with."""

    mean: Tensor
    pixels: Tensor


def matching_loss(predicted: Tensor, truth: Tensor, confidence: Tensor | None = None, kind: Kind = "l1") -> Scored:
    """The mean loss over valid pixels.

    Args:
        predicted, truth: [batch, channels, height, width].
        confidence: [batch, 1, height, width], as the network gives it: high where it is unsure. None only for l1.
    """
    truth = truth.float()
    valid = torch.isfinite(truth).all(1)  # [batch, height, width]
    if kind == "bounded":
        valid = valid & (truth.square().sum(1).sqrt() < LARGEST_FLOW)
    error = (torch.where(valid[:, None], truth, 0.0) - predicted.float()).abs().sum(1)
    losses = pixel_losses(error, None if confidence is None else confidence[:, 0].float(), kind)
    pixels = valid.sum()
    return Scored(torch.where(valid, losses, 0.0).sum() / pixels.clamp(min=1), pixels)


def pixel_losses(error: Tensor, confidence: Tensor | None, kind: Kind) -> Tensor:
    """The loss of each pixel from its error, summed over channels, and its raw confidence, of one shape.

    With a deviation s of a Laplace distribution it is e / s + log s; the kinds differ in how s comes from the confidence c: exp(c), 0.25 to 4, exp of
    -3 to 3.
    """
    if kind == "l1":
        return error
    assert confidence is not None
    if kind == "bounded":
        deviation = (4.0 - 0.25) * confidence.sigmoid() + 0.25
        return error / deviation + deviation.log()
    if kind == "bounded2":
        confidence = 6.0 * ((confidence / 3.0).sigmoid() - 0.5)
    return error * (-confidence).exp() + confidence


def disparity_metrics(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Of [batch, 1, height, width]: avgerr, the mean |error| in pixels, and bad@t, the share of pixels in per cent whose error is above t = .5, 1, 2,
    3; each of every image, then averaged."""
    return _metrics(predicted, truth, "avgerr", (0.5, 1.0, 2.0, 3.0))


def flow_metrics(predicted: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Of [batch, 2, height, width]: EPE, the mean length of the error in pixels, and bad@1, 3, 5."""
    return _metrics(predicted, truth, "EPE", (1.0, 3.0, 5.0))


def _metrics(predicted: Tensor, truth: Tensor, name: str, thresholds: tuple[float, ...]) -> dict[str, Tensor]:
    truth = truth.float()
    valid = torch.isfinite(truth).all(1)
    error = (torch.where(valid[:, None], truth, 0.0) - predicted.float()).square().sum(1).sqrt()
    found = {name: _mean(error, valid)}
    return found | {f"bad@{threshold:g}": 100 * _mean((error > threshold).float(), valid) for threshold in thresholds}


def depth_delta1(predicted: Tensor, truth: Tensor) -> Tensor:
    """The share of the pixels of [batch, 1, height, width] whose depth is right within a factor of 1.25; of every image, then averaged."""
    truth, predicted = truth.float(), predicted.float()
    valid = torch.isfinite(truth) & (truth > 0)
    safe = torch.where(valid, truth, 1.0)
    ratio = torch.where(predicted > 0, torch.maximum(predicted / safe, safe / predicted), torch.inf)
    return _mean((ratio < 1.25).float(), valid)


def _mean(values: Tensor, valid: Tensor) -> Tensor:
    """Of the valid pixels of each image, then of the images that have any."""
    counts = valid.flatten(1).sum(1)
    means = torch.where(valid, values, 0.0).flatten(1).sum(1) / counts.clamp(min=1)
    return means.sum() / (counts > 0).sum().clamp(min=1)
