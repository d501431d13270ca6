"""Masked image modelling: which patches are seen (how many: `seen.py`), and how far predicted pixels are from the true ones (facebookresearch/mae
models_mae.py)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Numbers of the tokens of each row in random order, cut in two: int64 [batch, kept] and [batch, total - kept]."""

    keep: Tensor
    rest: Tensor


def random_split(noise: Tensor, kept: int) -> Split:
    """Cuts each row at random: those with the least noise are kept.

    Args:
        noise: float [batch, total], uniform.
    """
    order = noise.argsort(dim=1)
    return Split(order[:, :kept], order[:, kept:])


def normalise_patches(patches: Tensor, eps: float = 1e-6) -> Tensor:
    """float32 [..., values]: each patch less its mean, over its deviation (variance with n - 1): the target of MAE's published models.

    A prediction of 0 then scores (n - 1) / n, and patches without content are 0.
    """
    patches = patches.float()
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) * (variance + eps).rsqrt()


def patch_errors(predicted: Tensor, target: Tensor) -> Tensor:
    """float32 [...]: the squared error of each patch [..., values], meaned over its values."""
    return (predicted.float() - target.float()).square().mean(-1)


def seen_and_drawn(patches: Tensor, drawn: Tensor, hidden: Tensor, normalised: bool) -> tuple[Tensor, Tensor]:
    """[batch, total, values] twice: the patches with nothing where they are hidden, and with what a decoder draws there.

    Args:
        patches: [batch, total, values], the true ones.
        drawn: [batch, n, values], what was predicted of the hidden ones.
        hidden: int64 [batch, n], their places.
        normalised: the decoder predicts `normalise_patches`; mean and deviation of each hidden patch are then the true ones, for it was never asked
            for them.
    """
    index, drawn = hidden[..., None].expand_as(drawn), drawn.to(patches.dtype)
    if normalised:
        variance, mean = torch.var_mean(patches.gather(1, index), dim=-1, keepdim=True)
        drawn = drawn * (variance + 1e-6).sqrt() + mean
    return patches.scatter(1, index, torch.zeros_like(drawn)), patches.scatter(1, index, drawn)


def nothing_learnt(last: Tensor, most: int) -> list[str]:
    """A warning where a decoder predicts no better than zeros.

    Args:
        last: [2], the loss of the last update, and that of predicting 0.
        most: what the loss of a fresh decoder with normalised targets stays below.
    """
    loss, grey = last.tolist()
    if not loss or loss < 0.98 * grey:
        return []
    return [
        f"The decoder has learnt nothing yet: its loss is {loss:.3f}, that of predicting 0 is {grey:.3f}. Give a larger budget; with normalised"
        f" targets every run begins between 1 and {most}."
    ]
