"""Token prediction straight from hidden states: projection onto the vocabulary, softmax and cross-entropy in one, without logits to keep.

The plain way holds four tensors of [tokens, vocab] at once: logits, log-probabilities, and the gradients of both. GPT-2 with 32 rows of 1024: 20 GiB.
Here a chunk of tokens is scored, its gradient p - 1(target) written over its logits, and both products of the backward pass made from it at once: the
same three products, one buffer of a fixed size, two where the softmax is compiled (as Liger's and Apple's cut cross-entropy do; Hsu et al. 2024,
arXiv 2410.10989; Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from headstart.core import products, second_order
from headstart.objectives.token_loss import masked_lm_loss

OfBlock: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
CHUNK = 1 << 27
"""Logits that exist at a time: 512 MiB in fp32, half of it in bf16."""
CPU_BLOCK = 1 << 20
"""Of them, those whose softmax is taken at a time on a CPU: 4 MiB, which its cache holds."""


def projected_lm_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weights: Tensor | None,
    eps: float = 1e-6,
    *,
    chunk: int = CHUNK,
    of_block: OfBlock | None = None,
) -> Tensor:
    """`masked_lm_loss` of the logits `F.linear(hidden, weight, bias)`: sum(w * -log p(target)) / (sum(w) + eps), in nats.

    Equal to it up to the order of sums; under autocast the products are in its type, the softmax in fp32. It can be differentiated once; within
    `core.second_order` it is the plain loss, which can be differentiated again.

    Args:
        hidden: [..., dim]; weight: [vocab, dim]; bias: [vocab] or None; targets: int64 [...]; weights: float [...] or None for all 1.
        chunk: logits that exist at a time.
        of_block: a compiled `nll_and_gradient`, where the network is compiled too; None: the same by torch's own operations, in place.
    """
    if second_order.wanted():
        return masked_lm_loss(F.linear(hidden, weight, bias), targets, weights, eps)
    counted = torch.ones_like(targets, dtype=torch.float32) if weights is None else weights.to(torch.float32)
    shares = (counted / (counted.sum() + eps)).flatten()
    rows, ids = hidden.reshape(-1, hidden.shape[-1]), targets.flatten()
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (hidden, weight, bias)):
        loss: Tensor = _ProjectedLoss.apply(rows, weight, bias, ids, shares, chunk, of_block)
        return loss
    return _score(rows, weight, bias, ids, shares, chunk, None, (False, False, False))[0]


def next_token_loss(
    hidden: Tensor,
    output: nn.Linear,
    ids: Tensor,
    attention_mask: Tensor | None,
    next_ids: Tensor | None = None,
    of_block: OfBlock | None = None,
) -> tuple[Tensor, Tensor]:
    """(mean -log p of each token that is not padding given those before it, in nats; the number of these tokens).

    Args:
        hidden: [batch, length, dim], what the output layer takes; ids: int64 [batch, length].
        next_ids: int64 [batch, length], what follows each token, where the row itself does not say it of the last.
        of_block: as of `projected_lm_loss`.
    """
    if next_ids is None:
        hidden, next_ids = hidden[:, :-1], ids[:, 1:]
        attention_mask = None if attention_mask is None else attention_mask[:, 1:]
    scored = torch.ones_like(next_ids, dtype=torch.float32) if attention_mask is None else attention_mask.float()
    return projected_lm_loss(hidden, output.weight, output.bias, next_ids, scored, of_block=of_block), scored.sum()


class _ProjectedLoss(torch.autograd.Function):
    """The gradients are made in the forward pass, while the logits are there; the backward pass only scales them."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, shares: Tensor, chunk: int, of_block: OfBlock | None
    ) -> Tensor:
        loss, ctx.gradients = _score(hidden, weight, bias, targets, shares, chunk, of_block, ctx.needs_input_grad[:3])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("The loss was differentiated already, and its gradients are gone.")
        scaled = [None if part is None else part.mul_(gradient) for part in ctx.gradients]
        ctx.gradients = None
        return (*scaled, None, None, None, None)


def _score(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    shares: Tensor,
    chunk: int,
    of_block: OfBlock | None,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """(sum of shares * -log p(target), its gradients with respect to hidden, weight and bias where they are wanted).

    Args:
        hidden: [n, dim]; targets: int64 [n]; shares: float32 [n].
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    n, vocab = len(hidden), len(weight)
    rows = math.ceil(n / max(1, math.ceil(n * vocab / chunk))) or 1
    loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
    of_hidden: list[Tensor] = []
    of_weight: Tensor | None = None
    of_bias: Tensor | None = None
    with torch.no_grad(), torch.autocast(device, enabled=False):
        matrix, offset = weight.to(dtype), None if bias is None else bias.to(dtype)
        for part, ids, share in zip(hidden.to(dtype).split(rows), targets.split(rows), shares.split(rows), strict=True):
            logits = products.linear(part, matrix, offset)  # [rows, vocab]
            if of_block is not None and any(wanted):
                nll, logits = of_block(logits, ids)
            else:
                nll = _nll(logits, ids, any(wanted))
            loss += (nll * share).sum()
            onednn = products.worth_it(part, matrix)
            if wanted[0]:  # the shares go to the narrow factor of each product
                of_hidden.append(products.matmul(logits, matrix, onednn) * share[:, None])
            if wanted[1]:
                added = products.outer_sum(logits, part * share[:, None].to(dtype), onednn)
                of_weight = added.float() if of_weight is None else of_weight.add_(added)
            if wanted[2]:
                added = share.to(dtype) @ logits
                of_bias = added.float() if of_bias is None else of_bias.add_(added)
    return loss, [
        torch.cat(of_hidden).to(hidden.dtype) if wanted[0] else None,
        None if of_weight is None else of_weight.to(weight.dtype),
        None if of_bias is None or bias is None else of_bias.to(bias.dtype),
    ]


def nll_and_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(-log p(target), float32 [rows]; its gradient p - 1(target), in the type of the logits [rows, vocab]): one expression an element, of which
    torch.compile makes one pass over the logits, where `_nll` makes three."""
    log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
    nll = -log_probs.gather(1, targets[:, None]).squeeze(1)
    is_target = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    return nll, torch.where(is_target, torch.expm1(log_probs), torch.exp(log_probs)).to(logits.dtype)


def _nll(logits: Tensor, targets: Tensor, differentiate: bool) -> Tensor:
    """float32 [rows]: -log p(target); `differentiate` turns the logits [rows, vocab] into its gradient, p - 1(target), in place."""
    rows = len(logits) if logits.device.type != "cpu" else max(1, CPU_BLOCK // logits.shape[1])
    found = []
    for block, ids in zip(logits.split(rows), targets[:, None].split(rows), strict=True):
        log_probs = F.log_softmax(block, dim=-1, dtype=torch.float32)
        log_prob = log_probs.gather(1, ids)
        found.append(-log_prob.squeeze(1))
        if differentiate:
            torch.exp(log_probs, out=block)
            block.scatter_(1, ids, torch.expm1(log_prob).to(block.dtype))  # p - 1 where p is close to 1: not from a rounded p
    return torch.cat(found)
