"""The parts of every vision transformer here, encoders and decoders alike, under timm's parameter names.

A block is pre-norm (Dosovitskiy et al. 2021): x += attention(norm1(x)); x += mlp(norm2(x)). LayerNorm epsilon 1e-6, exact GELU, biases everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.attention import attention
from headstart.backbones.positions import Rotation, rotate
from headstart.core import products
from headstart.core.errors import UsageError

EPSILON = 1e-6
"""Of every LayerNorm. transformers' ViT defaults to 1e-12: an export says 1e-6."""


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values: `qkv`, `proj`."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise UsageError(f"A width of {dim} cannot be split over {num_heads} heads.", "Choose a multiple of the number of heads.")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """[batch, tokens, dim] -> the same shape."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # [batch, heads, tokens, head dim] each
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        mixed, _ = attention(self, query, key, value, None, is_causal=False)  # [batch, tokens, heads, head dim]
        return self.proj(mixed.reshape(batch, tokens, dim))


class Mlp(nn.Module):
    """`fc1`, GELU, `fc2`."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """One pre-norm transformer block: `norm1`, `attn`, `norm2`, `mlp`."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, drop_path: float = 0.0, qkv_bias: bool = True) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = drop_path

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x), rotation))
        return x + self.drop(self.mlp(self.norm2(x)))

    def drop(self, branch: Tensor) -> Tensor:
        return drop_path(branch, self.drop_path) if self.training and self.drop_path else branch


def drop_path(branch: Tensor, p: float) -> Tensor:
    """A residual branch left out for a share `p` of the rows, and divided by 1 - p for the others (stochastic depth, Huang et al. 2016)."""
    kept = torch.rand(branch.shape[0], *[1] * (branch.ndim - 1), device=branch.device) >= p
    return branch * (kept.to(branch.dtype) / (1 - p))


class PatchEmbed(nn.Module):
    """Patches as vectors: a convolution whose stride is its kernel (`proj`), computed as one matrix product on cut patches."""

    def __init__(self, patch_size: int, channels: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(channels, dim, patch_size, patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, patches, dim]."""
        return self.embed(patchify(images, self.patch_size))

    def embed(self, patches: Tensor) -> Tensor:
        """Cut patches [..., values] in the order of `patchify` -> [..., dim]: those of a few patches cost only themselves."""
        return products.linear(patches, self.proj.weight.permute(0, 2, 3, 1).flatten(1), self.proj.bias)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """[batch, channels, height, width] -> [batch, patches, patch_size * patch_size * channels]: patches row by row; in a patch row, column, channel,
    the channel fastest (facebookresearch/mae models_mae.py)."""
    batch, channels, height, width = images.shape
    rows, columns = grid_of(height, width, patch_size)
    cut = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * channels)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """The inverse of `patchify`: [batch, patches, values] -> [batch, channels, height, width]."""
    rows, columns = grid
    cut = patches.view(len(patches), rows, columns, patch_size, patch_size, -1)
    return cut.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, rows * patch_size, columns * patch_size)


def grid_of(height: int, width: int, patch_size: int) -> tuple[int, int]:
    """(rows, columns) of patches of an image.

    Raises:
        UsageError: a side is no multiple of the patch; names the nearest sides that are.
    """
    for side, what in ((height, "high"), (width, "wide")):
        if side % patch_size or side < patch_size:
            below = side // patch_size * patch_size
            good = f"{below} or {below + patch_size}" if below else f"{patch_size}"
            raise UsageError(
                f"An image {side} pixels {what} cannot be cut into patches of {patch_size} pixels.",
                f"The nearest good sides are {good}; or choose another patch size.",
            )
    return height // patch_size, width // patch_size


def take(tokens: Tensor, indices: Tensor) -> Tensor:
    """[batch or 1, tokens, dim] at int64 [batch, kept], distinct in a row -> [batch, kept, dim]: what is left out is never computed on."""
    if len(tokens) == 1:
        return F.embedding(indices, tokens[0])
    batch, count, dim = tokens.shape
    flat = indices + torch.arange(batch, device=indices.device)[:, None] * count
    return tokens.reshape(batch * count, dim).index_select(0, flat.flatten()).view(batch, -1, dim)


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """MAE's first weights, in place: Linear and patch convolutions (as the linear layers that they are) Xavier uniform with zero bias, LayerNorm 1
    and 0, tokens (`cls_token`, `mask_token` ...) normal with deviation .02."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    for name, parameter in network.named_parameters():
        if name.endswith("_token"):
            nn.init.normal_(parameter, std=0.02)
