"""Losses on pairs: the first of two scores should be the higher one. Rows come as positive, negative, positive, negative ..."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

PairLoss = Literal["softmax_hinge", "hinge", "logistic"]


def pair_losses(scores: Tensor, kind: PairLoss = "softmax_hinge") -> Tensor:
    """float32 [pairs]: the loss of each pair.

    softmax_hinge: max(0, 1 - (p+ - p-)) with p = softmax of the two scores, which is 2 sigmoid(-(s+ - s-)): 1 at equal scores, at most 2; the
    gradient also vanishes where a pair is surely wrong. hinge: max(0, 1 - (s+ - s-)). logistic: ln(1 + exp(-(s+ - s-))).

    Args:
        scores: [2 * pairs], neighbours are a pair.

    Raises:
        ValueError: an odd number of scores.
    """
    if scores.shape[0] % 2:
        raise ValueError(f"{scores.shape[0]} scores are no pairs")
    margins = (scores[0::2] - scores[1::2]).float()
    if kind == "softmax_hinge":
        return 2 * torch.sigmoid(-margins)
    return F.relu(1 - margins) if kind == "hinge" else F.softplus(-margins)


def pair_accuracies(scores: Tensor) -> Tensor:
    """float32 [pairs]: 1 where the first is higher, 1/2 where both are the same."""
    margins = scores[0::2] - scores[1::2]
    return (margins > 0).float() + 0.5 * (margins == 0).float()
