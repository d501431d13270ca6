"""Losses and counts of dense tasks on one image: segmentation, numbers of every pixel, depth. Nothing here waits for the device.

Where there is no truth (class -1, NaN) nothing is scored.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.objectives.matching import Scored

RegressionKind = Literal["l1", "l2", "berhu"]
BERHU_SHARE = 0.2
"""Of the batch's largest error, where the reversed Huber loss turns from l1 to l2."""


def segmentation_loss(logits: Tensor, classes: Tensor) -> Scored:
    """Mean cross-entropy over the pixels that have a class.

    Args:
        logits: [batch, classes, height, width].
        classes: int64 [batch, height, width], -1 where none is scored.
    """
    pixels = (classes >= 0).sum()
    total = F.cross_entropy(logits.float(), classes, ignore_index=-1, reduction="sum")
    return Scored(total / pixels.clamp(min=1), pixels)


def regression_loss(predicted: Tensor, truth: Tensor, kind: RegressionKind) -> Scored:
    """Mean over the pixels with finite truth, and over channels; [batch, channels, height, width] each.

    berhu: |e| up to c, (e^2 + c^2) / (2 c) above, with c a fifth of the largest |e| of the batch (Laina et al. 2016).
    """
    valid = torch.isfinite(truth).all(1, keepdim=True).expand_as(truth)
    error = torch.where(valid, truth - predicted.float(), 0.0).abs()
    if kind == "l2":
        losses = error.square()
    elif kind == "l1":
        losses = error
    else:
        turn = (BERHU_SHARE * error.detach().max()).clamp(min=1e-9)
        losses = torch.where(error <= turn, error, (error.square() + turn.square()) / (2 * turn))
    count = valid.sum()
    return Scored(losses.sum() / count.clamp(min=1), count)


def confusion(predicted: Tensor, truth: Tensor, n_classes: int) -> Tensor:
    """int64 [classes, classes]: pixels of each class (row) that were called each class (column).

    Args:
        predicted, truth: int64 of one shape; truth -1 where none is scored.
    """
    pair = torch.where(truth >= 0, truth * n_classes + predicted, n_classes**2).flatten()  # what is not scored falls into one more bin
    counts = torch.zeros(n_classes**2 + 1, dtype=torch.int64, device=pair.device)
    return counts.scatter_add_(0, pair, torch.ones_like(pair))[:-1].view(n_classes, n_classes)


def segmentation_metrics(counts: Tensor) -> dict[str, float]:
    """Of all pixels together: miou, the mean intersection over union of the classes that occur in truth or prediction; pixel_accuracy; mean_accuracy,
    the mean over the classes that occur in truth.

    Args:
        counts: a sum of `confusion`.
    """
    counts = counts.double()
    right, truth, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    union = truth + said - right
    return {
        "miou": float((right / union)[union > 0].mean()),
        "pixel_accuracy": float(right.sum() / counts.sum()),
        "mean_accuracy": float((right / truth)[truth > 0].mean()),
    }


def regression_sums(predicted: Tensor, truth: Tensor) -> Tensor:
    """float64 [5]: number of values, sums of squared and absolute errors, of the truth, and of its squares."""
    known = torch.isfinite(truth).all(1, keepdim=True).expand_as(truth)
    true, error = (torch.where(known, values, 0.0).double() for values in (truth, predicted - truth))
    return torch.stack([known.sum().double(), error.square().sum(), error.abs().sum(), true.sum(), true.square().sum()])


def regression_metrics(sums: Tensor) -> dict[str, float]:
    """rmse, mae, and r2: 1 - squared errors / squared deviations from the mean of the truth (0: as good as that mean)."""
    count, squares, absolute, total, of_truth = sums.tolist()
    deviation = of_truth - total**2 / count
    return {"rmse": (squares / count) ** 0.5, "mae": absolute / count, "r2": 1 - squares / deviation if deviation > 0 else 0.0}
