"""DropPos's objective (arXiv 2309.03576, section 3): which place on the grid did a patch come from, with smoothed targets and weighted patches.

Sources: the paper; Haochen-Wang409/DropPos models_DropPos_mae.py (`forward_drop_pos_loss`, `get_feature_similarity`) and engine_pretrain.py
(`_get_label_smoothing_map`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.errors import UsageError

Grid = tuple[int, int]


def squared_distances(grid: Grid) -> Tensor:
    """float32 [places, places]: squared distance in rows and columns between the places of a grid."""
    index = torch.arange(grid[0] * grid[1])
    y, x = index // grid[1], index % grid[1]
    return ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2).float()


def official_distances(grid: Grid, patch_size: int) -> Tensor:
    """float32 [places, places] as the official code has them: it builds the map for (image size // tokens a side)^2 cells, which is patch_size^2 for
    square images, and cuts its first columns. Neighbours above and below are then `patch_size` places away instead of a row's length.

    Raises:
        UsageError: the image is no square, or the official map is too small for it (the official code would stop there too).
    """
    places = grid[0] * grid[1]
    if grid[0] != grid[1] or patch_size**2 < places:
        raise UsageError(
            f"The official code's smoothing map has {patch_size} x {patch_size} cells, which does not cover a grid of {grid[0]} x {grid[1]}.",
            "Leave out --method.official-quirks; the published setting (224 pixels, patches of 16) has them.",
        )
    return squared_distances((patch_size, patch_size))


def smoothing_map(distances: Tensor, sigma: Tensor | float, places: int | None = None, official_quirks: bool = False) -> Tensor:
    """float32 [places, places]: row i is the target of a patch that sat at i, exp(-distance^2 / sigma^2), normalised to sum 1; sigma 0: the identity.

    Args:
        distances: squared, from `squared_distances` (or `official_distances`, whose map is larger than the grid).
        sigma: a number or a scalar tensor on the device: nothing waits for it.
        places: of the grid, where the map is larger.
        official_quirks: divide column j by the sum of row j, as the official code does for want of a keepdim: rows then do not sum to 1.
    """
    variance = sigma.square().clamp(min=1e-12) if isinstance(sigma, Tensor) else max(sigma**2, 1e-12)
    weights = torch.exp(-distances / variance)
    sums = weights.sum(1)
    weights = weights / (sums if official_quirks else sums[:, None])
    return weights if places is None else weights[:places, :places]


def position_losses(logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    """float32 [...]: -sum_l t_l log p_l of each patch, its target t being the row of its place.

    Args:
        logits: [..., places], any precision; labels: int64 [...], the true place; smoothing: [places, places].
    """
    log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32)
    return -(F.embedding(labels, smoothing) * log_probs).sum(-1)


def unsure(logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    """bool [...]: patches whose probability at the true place is still below the target's (the official `conf_ignore` scores these alone)."""
    probabilities = logits.detach().softmax(-1, dtype=torch.float32)
    return probabilities.gather(-1, labels[..., None])[..., 0] < smoothing.diagonal()[labels]


@torch.no_grad()
def affinities(class_feature: Tensor, patch_features: Tensor, temperature: float = 0.1) -> Tensor:
    """float32 [batch, patches]: how much each patch says about its image: softmax over the patches of their cosine with the class token.

    Args:
        class_feature: [batch, dim]; patch_features: [batch, patches, dim].
    """
    cosines = F.cosine_similarity(class_feature.float()[:, None], patch_features.float(), dim=-1)
    return (cosines / temperature).softmax(-1)


def renormalised(weights: Tensor, chosen: Tensor) -> Tensor:
    """[batch, kept]: the weights [batch, patches] of the chosen patches int64 [batch, kept], summing to 1 for each image."""
    taken = weights.gather(1, chosen)
    return taken / taken.sum(1, keepdim=True)
