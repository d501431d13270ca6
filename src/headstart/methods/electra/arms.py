"""What the main network is trained on: ELECTRA's loss and the ablations of section 3.4. """

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.objectives.token_loss import rtd_loss, weighted_mean


def discriminator_loss(logits: Tensor, replaced: Tensor, written: Tensor, mask: Tensor | None, only_written: bool) -> Tensor:
    """L_Disc (section 2): binary cross-entropy over all tokens that are not padding, or (electra_15) over the written positions only."""
    return rtd_loss(logits, replaced, written if only_written else mask)


def copy_gate_nll(logits: Tensor, gate: Tensor, inputs: Tensor, originals: Tensor) -> Tensor:
    """float32 [...]: -log p(original) with p(x) = d [x = input] + (1 - d) softmax(x), d = sigmoid(gate): the copy mechanism of all-tokens MLM.

    Args:
        logits: [..., vocab]; gate: [...]; inputs: int64 [...], the tokens the network saw; originals: int64 [...].
    """
    gate = gate.float()
    from_softmax = F.logsigmoid(-gate) - F.cross_entropy(logits.flatten(0, -2).float(), originals.flatten(), reduction="none").view(originals.shape)
    with_copy = torch.logaddexp(F.logsigmoid(gate), from_softmax)
    return -torch.where(inputs == originals, with_copy, from_softmax)


def all_tokens_loss(logits: Tensor, gate: Tensor, inputs: Tensor, originals: Tensor, mask: Tensor | None) -> Tensor:
    """Scalar: the mean of `copy_gate_nll` over the tokens that are not padding."""
    return weighted_mean(copy_gate_nll(logits, gate, inputs, originals), mask)


@torch.no_grad()
def detection_metrics(logits: Tensor, replaced: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Shares over the tokens that are not padding: replaced ones, rightly judged ones; and of the replaced ones those that were found. Beside each
    the number of tokens that it is a share of ("weight/NAME").

    Accuracy is about 90 % for a model that always says "original": look at the recall.
    """
    counted = torch.ones_like(replaced) if mask is None else mask.to(torch.bool)
    replaced = replaced & counted
    found = logits > 0
    n, positives = counted.sum(), replaced.sum()
    return {
        "replaced_share": positives / n.clamp(min=1),
        "disc_accuracy": ((found == replaced) & counted).sum() / n.clamp(min=1),
        "disc_recall": (found & replaced).sum() / positives.clamp(min=1),
        "weight/replaced_share": n,
        "weight/disc_accuracy": n,
        "weight/disc_recall": positives,
    }
