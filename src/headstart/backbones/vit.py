"""One vision transformer for all of vision (Dosovitskiy et al. 2021, arXiv 2010.11929), with timm's parameter names.

- `cls_token, pos_embed, patch_embed.proj, blocks.i.{norm1, attn.qkv, attn.proj, norm2, mlp.fc1, mlp.fc2}, norm`: files of timm, MAE and DropPos load
  by name.
- Positions: fixed sine and cosine (MAE), learned (ViT), rotary on two axes (CroCo v2) or none. Images of another size than the network was made for
  get interpolated tables.
- Token dropping: `keep` names the patches that are seen. The others are not even embedded, so a quarter of the patches costs a quarter.
- Any number of channels, any rectangle of patches, a class token or none, drop path that grows with depth.
- Bands in groups (SatMAE): one embedding per group, tokens group by group, part of the width for the group instead of the place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from headstart.backbones.positions import Grid, Rotation, grid_coordinates, interpolate_positions, rope_2d, sincos_1d, sincos_2d
from headstart.backbones.vit_blocks import EPSILON, Block, PatchEmbed, grid_of, initialise, patchify, take
from headstart.core.errors import UsageError

Positions = Literal["sincos", "learned", "rope", "none"]
Pooling = Literal["mean", "class"]


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a vision transformer."""

    image_size: tuple[int, int] = (224, 224)
    """(height, width) in pixels; multiples of the patch."""
    patch_size: int = 16
    channels: int = 3
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    class_token: bool = True
    positions: Positions = "sincos"
    rope_base: float = 100.0
    drop_path: float = 0.0
    """Probability of the last block; the first has 0, those between on a line (MAE's fine-tuning)."""
    groups: tuple[tuple[int, ...], ...] = ()
    """Channels of each group of bands (SatMAE++); empty: all channels in one token."""
    group_width: int = 256
    """Part of the width that says the group instead of the place; only with groups."""

    @property
    def grid(self) -> Grid:
        """(rows, columns) of patches."""
        return grid_of(*self.image_size, self.patch_size)

    @property
    def num_tokens(self) -> int:
        """Patch tokens of an image: patches, times groups."""
        return self.grid[0] * self.grid[1] * max(1, len(self.groups))

    def at(self, **changes: object) -> ViTConfig:
        """The same with some settings changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


class ViT(nn.Module):
    """The encoder. `forward` gives all tokens after the last norm; `pool` makes one vector an image.

    Raises:
        UsageError: sizes that no network can have.
    """

    pos_embed: Tensor
    channel_embed: Tensor
    bands: Tensor  # int64 [channels], in the order of the groups

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        dim = config.hidden_size
        self.patch_embed: nn.Module
        if config.groups:
            self.patch_embed = nn.ModuleList(PatchEmbed(config.patch_size, len(group), dim) for group in config.groups)
            order = torch.tensor([channel for group in config.groups for channel in group])
            self.register_buffer("bands", order, persistent=False)  # a list as index is copied to the device each time: no graph can hold that
        else:
            self.patch_embed = PatchEmbed(config.patch_size, config.channels, dim)
        if config.class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self._make_positions()
        rates = [config.drop_path * i / max(1, config.num_layers - 1) for i in range(config.num_layers)]
        self.blocks = nn.ModuleList(Block(dim, config.num_heads, config.mlp_ratio, rate, config.qkv_bias) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=EPSILON)
        initialise(self)

    def _make_positions(self) -> None:
        config = self.config
        width = config.hidden_size - (config.group_width if config.groups else 0)
        if config.positions == "sincos":
            self.register_buffer("pos_embed", sincos_2d(config.grid, width, class_row=config.class_token))
        elif config.positions == "learned":
            rows = config.grid[0] * config.grid[1] + config.class_token
            self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows, width), std=0.02))
        if config.groups and config.group_width:
            table = sincos_1d(torch.arange(len(config.groups)), config.group_width).float()
            self.register_buffer("channel_embed", table[None])  # [1, groups, group width]

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Features of an image's patches, or of the kept ones.

        Args:
            images: [batch, channels, height, width], normalised; any size that the patch divides.
            keep: int64 [batch, kept], distinct patch tokens of each row in any order; None: all.

        Returns:
            [batch, class token + kept, dim], after the last norm.
        """
        grid = grid_of(images.shape[2], images.shape[3], self.config.patch_size)
        return self._encode_at(self.embed(images, keep), grid, keep)

    def from_patches(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """The same from an image's cut patches [batch, patches, values] (`patchify`), which a reconstruction needs anyway: of the network's own image
        size, without groups."""
        return self._encode_at(self.embed_patches(patches, keep), self.config.grid, keep)

    def _encode_at(self, tokens: Tensor, grid: Grid, keep: Tensor | None) -> Tensor:
        places = self.positions(grid, keep)
        return self.encode(tokens if places is None else tokens + places, self.rotation(grid, keep))

    def embed(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """[batch, kept, dim]: patches as vectors, nothing added."""
        if self.config.groups:
            bands = images.index_select(1, self.bands).split([len(group) for group in self.config.groups], dim=1)
            tokens = torch.cat([embed(of_group) for embed, of_group in zip(self._groups, bands, strict=True)], dim=1)
            return tokens if keep is None else take(tokens, keep)
        return self.embed_patches(patchify(images, self.config.patch_size), keep)

    def embed_patches(self, patches: Tensor, keep: Tensor | None = None) -> Tensor:
        """The same from cut patches [batch, patches, values] (`patchify`); only without groups."""
        assert isinstance(self.patch_embed, PatchEmbed)
        return self.patch_embed.embed(patches if keep is None else take(patches, keep))

    def positions(self, grid: Grid, keep: Tensor | None = None) -> Tensor | None:
        """[1 or batch, kept, dim]: what is added to the patches of a grid; None with rotary positions or none."""
        if self.config.positions in ("rope", "none"):
            return None
        places = interpolate_positions(self.pos_embed, self.config.grid, grid)[:, self.prefix :]
        if self.config.groups:  # group by group, as the tokens
            groups, cells = len(self.config.groups), places.shape[1]
            places = places.expand(groups, -1, -1)
            if self.config.group_width:
                places = torch.cat([places, self.channel_embed[0][:, None].expand(-1, cells, -1)], dim=2)
            places = places.reshape(1, groups * cells, -1)
        return places if keep is None else take(places, keep)

    def rotation(self, grid: Grid, keep: Tensor | None = None) -> Rotation | None:
        """Rotary positions of a grid's patches; the class token is not turned."""
        if self.config.positions != "rope":
            return None
        config, device = self.config, next(self.blocks.parameters()).device
        rotation = rope_2d(grid_coordinates(grid, device), config.hidden_size // config.num_heads, config.rope_base)
        if self.config.groups:
            rotation = Rotation(*(part.repeat(len(self.config.groups), 1) for part in rotation))
        if keep is not None:
            rotation = rotation.take(keep)
        if self.config.class_token:
            cos, sin = (part.movedim(-2, 0) for part in rotation)
            cos, sin = torch.cat([torch.ones_like(cos[:1]), cos]), torch.cat([torch.zeros_like(sin[:1]), sin])
            rotation = Rotation(cos.movedim(0, -2), sin.movedim(0, -2))
        return rotation

    def encode(self, tokens: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Placed patches [batch, kept, dim] -> [batch, class token + kept, dim], after the last norm."""
        tokens = self._with_class_token(tokens)
        for block in self.blocks:
            tokens = block(tokens, rotation)
        return self.norm(tokens)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """What dense tasks read: the patches [batch, rows * columns, dim] after every block, the last after `norm`. The class token is left out; of
        groups of bands the mean is taken."""
        grid = grid_of(images.shape[2], images.shape[3], self.config.patch_size)
        tokens, places, rotation = self.embed(images), self.positions(grid), self.rotation(grid)
        tokens = self._with_class_token(tokens if places is None else tokens + places)
        found = []
        for block in self.blocks:
            tokens = block(tokens, rotation)
            found.append(tokens)
        found[-1] = self.norm(tokens)
        found = [output[:, self.prefix :] for output in found]
        groups = len(self.config.groups)
        return [output.unflatten(1, (groups, -1)).mean(1) for output in found] if groups else found

    def _with_class_token(self, tokens: Tensor) -> Tensor:
        if not self.config.class_token:
            return tokens
        first = self.cls_token if self.config.groups or not hasattr(self, "pos_embed") else self.cls_token + self.pos_embed[:, :1]
        return torch.cat([first.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)

    def pool(self, features: Tensor, how: Pooling = "mean") -> Tensor:
        """[batch, dim] of what `forward` gives: the mean of the patch tokens (MAE's fine-tuning) or the class token.

        Raises:
            UsageError: there is no class token.
        """
        if how == "mean":
            return features[:, self.prefix :].mean(1)
        if not self.config.class_token:
            raise UsageError("This network has no class token.", "Pool by the mean of the patches.")
        return features[:, 0]

    @property
    def prefix(self) -> int:
        """Tokens in front of the patches."""
        return int(self.config.class_token)

    @property
    def _groups(self) -> nn.ModuleList:
        assert isinstance(self.patch_embed, nn.ModuleList)
        return self.patch_embed


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """A patch convolution [dim, old channels, patch, patch] for another number of channels, so that a picture repeated over them gives what it gave:
    for one channel the old ones are summed; otherwise they are repeated in turn and scaled by old / new (as timm does)."""
    old = weight.shape[1]
    if old == channels:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(channels) % old] * (old / channels)


def layer_scales(names: list[str], num_layers: int, decay: float) -> dict[str, float]:
    """The share of the learning rate that each parameter gets in MAE's fine-tuning (facebookresearch/mae util/lr_decay.py): decay^(depth + 1 - id),
    id 0 for tokens, positions and patches, i + 1 for block i, depth + 1 for norms and head."""

    def layer(name: str) -> int:
        if name.startswith(("cls_token", "pos_embed", "patch_embed")):
            return 0
        return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else num_layers + 1

    return {name: decay ** (num_layers + 1 - layer(name)) for name in names}


def _check(config: ViTConfig) -> None:
    if min(config.num_layers, config.num_heads, config.hidden_size, config.patch_size, config.channels) < 1:
        raise UsageError(
            f"A network of {config.num_layers} layers, {config.num_heads} heads, width {config.hidden_size}, patches of {config.patch_size} pixels"
            f" and {config.channels} channels cannot be built.",
            "Give at least 1 of each.",
        )
    _ = config.grid
    named = [channel for group in config.groups for channel in group]
    if config.groups and sorted(named) != list(range(config.channels)):
        raise UsageError(
            f"The groups name the channels {sorted(named)}, the images have {config.channels}.", "Put every channel into exactly one group."
        )
    if config.groups and not 0 <= config.group_width < config.hidden_size:
        raise UsageError(
            f"A group width of {config.group_width} leaves nothing of {config.hidden_size} for the place.", "Choose a smaller group width."
        )
