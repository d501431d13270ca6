"""Token-prediction losses at chosen positions, sampling from the same logits, and the replaced-token loss. Everything in float32.

- The head runs only at the gathered positions, so the largest tensor is [batch, kept, vocab], never [batch, length, vocab].
- `sample_tokens` inverts the cumulative distribution with one uniform a slot. The official ELECTRA code adds Gumbel noise to every logit and
  takes the argmax: the same distribution, one random number and two logarithms per vocabulary entry. For 300 slots of 30,522 entries on one
  CPU core: 24 ms against 144 ms (torch's generator) or 550 ms (counter-based); `python -m benchmarks.sampling` gives these again.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gather_positions(hidden: Tensor, positions: Tensor) -> Tensor:
    """[batch, length, dim] at int64 [batch, N] -> [batch, N, dim].

    An embedding look-up, because its backward adds duplicates in a fixed order: `gather` and `index_select` use atomic adds on GPUs, and a run
    would not repeat bit for bit.
    """
    batch, length, dim = hidden.shape
    rows = torch.arange(batch, device=hidden.device)[:, None] * length
    return F.embedding(positions + rows, hidden.reshape(batch * length, dim))


def weighted_mean(values: Tensor, weights: Tensor | None, eps: float = 1e-6) -> Tensor:
    """sum(w * x) / (sum(w) + eps) over the whole batch; without weights every element counts 1."""
    if weights is None:
        return values.sum() / (values.numel() + eps)
    weights = weights.to(values.dtype)
    return (values * weights).sum() / (weights.sum() + eps)


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """float32 [...]: -log p(target) of each slot, in nats. One cast-and-softmax pass: bf16 logits are never copied to float32 first.

    Args:
        logits: [..., vocab], any precision; targets: int64 [...].
    """
    log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
    return F.nll_loss(log_probs.flatten(0, -2), targets.flatten(), reduction="none").view(targets.shape)


def masked_lm_loss(logits: Tensor, targets: Tensor, weights: Tensor | None, eps: float = 1e-6) -> Tensor:
    """Scalar: sum(w * -log p(target)) / (sum(w) + eps), over the slots of the whole batch, in nats.

    Args:
        logits: [..., vocab], any precision; targets: int64 [...]; weights: float [...] or None for all 1.
    """
    return weighted_mean(token_nll(logits, targets), weights, eps)


@torch.no_grad()
def sample_tokens(logits: Tensor, uniform: Tensor, temperature: float = 1.0, disallow: Tensor | None = None) -> Tensor:
    """int64 [...]: one token id a slot from softmax(logits / temperature); no gradient flows through it.

    Args:
        logits: [..., vocab], any precision; computed in float32.
        uniform: float32 [...] in [0, 1), one number a slot.
        disallow: int64 [...], an id a slot that must not be drawn (1000 is taken off its logit after the temperature, as the official code does).
    """
    if temperature != 1.0:
        logits = logits.float() / temperature
    if disallow is not None:
        ids = disallow[..., None]
        logits = logits.float()
        logits = logits.scatter(-1, ids, logits.gather(-1, ids) - 1000.0)
    cumulative = logits.softmax(-1, dtype=torch.float32).cumsum_(-1)
    threshold = uniform[..., None] * cumulative[..., -1:]  # the last entry is 1 up to rounding
    index = torch.searchsorted(cumulative, threshold, right=True)  # the first entry above the threshold: never one of probability 0
    return index.squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def rtd_loss(logits: Tensor, labels: Tensor, mask: Tensor | None, eps: float = 1e-6) -> Tensor:
    """Scalar: replaced-token detection, sum(m * BCE) / (sum(m) + eps) over the tokens of the whole batch.

    Args:
        logits: [batch, length], one a token; positive means replaced. labels: bool [batch, length]. mask: which tokens count; None is all.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="none")
    return weighted_mean(loss, mask, eps)
