"""Random tensors under the names and in the shapes of the official checkpoints of MAE and DropPos.

They are written out here, so that a name of ours that changes cannot stand for one of theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, Tensor]


def linear(name: str, out: int, into: int) -> State:
    return {f"{name}.weight": torch.randn(out, into), f"{name}.bias": torch.randn(out)}


def norm(name: str, dim: int) -> State:
    return {f"{name}.weight": torch.randn(dim), f"{name}.bias": torch.randn(dim)}


def block(name: str, dim: int) -> State:
    attention = linear(f"{name}.attn.qkv", 3 * dim, dim) | linear(f"{name}.attn.proj", dim, dim)
    mlp = linear(f"{name}.mlp.fc1", 4 * dim, dim) | linear(f"{name}.mlp.fc2", dim, 4 * dim)
    return norm(f"{name}.norm1", dim) | attention | norm(f"{name}.norm2", dim) | mlp


def encoder(dim: int, depth: int, places: int, patch: int) -> State:
    """Of timm, MAE and DropPos: class token, positions of `places` patches, three channels."""
    state = {"cls_token": torch.randn(1, 1, dim), "pos_embed": torch.randn(1, places + 1, dim)}
    state |= {"patch_embed.proj.weight": torch.randn(dim, 3, patch, patch), "patch_embed.proj.bias": torch.randn(dim)}
    for i in range(depth):
        state |= block(f"blocks.{i}", dim)
    return state | norm("norm", dim)


def decoder(encoder_dim: int, dim: int, depth: int, outputs: int, prefix: str = "") -> State:
    """Of MAE and DropPos, without mask token and positions."""
    state = linear(f"{prefix}decoder_embed", dim, encoder_dim) | norm(f"{prefix}decoder_norm", dim) | linear(f"{prefix}decoder_pred", outputs, dim)
    for i in range(depth):
        state |= block(f"{prefix}decoder_blocks.{i}", dim)
    return state
