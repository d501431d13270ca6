"""How well a score ranks positives above negatives, on the device, without a threshold."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def auc(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Scalar float32: the area under the ROC curve, the probability that a positive scores above a negative; ties count one half.

    One sort and two searches, static shapes, no host sync. NaN when there is no positive or no negative.

    Args:
        scores: [...] any precision; labels: bool [...]; weights: 0 or 1 [...], which elements count (all by default).
    """
    scores, labels = scores.flatten().float(), labels.flatten().to(torch.float64)
    weights = torch.ones_like(labels) if weights is None else weights.flatten().to(torch.float64)
    ordered, order = scores.sort()
    negatives = torch.nn.functional.pad(((1 - labels) * weights)[order].cumsum(0), (1, 0))  # [n + 1]: negatives among the first i
    below = negatives[torch.searchsorted(ordered, scores)]
    not_above = negatives[torch.searchsorted(ordered, scores, right=True)]
    positives = labels * weights
    return ((below + not_above) / 2 * positives).sum().div(positives.sum() * negatives[-1]).to(torch.float32)
