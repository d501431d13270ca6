"""The network of CroCo: one encoder for both views, and a decoder that completes the first with the help of the second.

- The decoder's parameters have the names of naver/croco (models/croco.py, models/blocks.py). The encoder is `backbones.vit.ViT` under timm's;
  `interop.croco` renames it.
- A decoder block: x += self-attention(norm1(x)); x += cross-attention(norm2(x), norm_y(y)); x += mlp(norm3(x)). The memory y, the second view, is
  never changed; every block has a norm_y of its own.
- Positions: fixed tables added in encoder and decoder (first paper), or queries and keys of every attention turned by row and column (second).
- Images of any size that the patch divides, of two different sizes too: positions come from the grids as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from headstart.backbones.attention import attention
from headstart.backbones.positions import Grid, Rotation, grid_coordinates, interpolate_positions, rope_2d, rotate, sincos_2d
from headstart.backbones.vit import ViT, ViTConfig
from headstart.backbones.vit_blocks import EPSILON, Attention, Mlp, grid_of, initialise, take
from headstart.core.errors import UsageError


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the decoder."""

    hidden_size: int = 512
    num_layers: int = 8
    num_heads: int = 16
    mlp_ratio: float = 4.0
    positions: Literal["rope", "cosine"] = "cosine"
    rope_base: float = 100.0
    normalise_memory: bool = True
    """Whether each block has a `norm_y` (norm_im2_in_dec)."""
    cross: bool = True
    """False: no cross-attention, so there is no second view."""


class CrossAttention(nn.Module):
    """Queries from one view, keys and values from the other: `projq`, `projk`, `projv`, `proj`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.projq, self.projk, self.projv, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, rotation: Rotation | None = None, memory_rotation: Rotation | None = None) -> Tensor:
        """[batch, tokens, dim] and [batch, memory tokens, dim] -> the shape of the first."""
        query, key, value = (self._split(project(of)) for project, of in ((self.projq, x), (self.projk, memory), (self.projv, memory)))
        if rotation is not None and memory_rotation is not None:
            query, key = rotate(query, rotation), rotate(key, memory_rotation)
        mixed, _ = attention(self, query, key, value, None, is_causal=False)  # [batch, tokens, heads, head dim]
        return self.proj(mixed.reshape(x.shape))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [batch, heads, tokens, head dim]


class DecoderBlock(nn.Module):
    """One block of the decoder: `norm1`, `attn`, `norm_y`, `norm2`, `cross_attn`, `norm3`, `mlp`; without `cross` it is a plain block."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.norm1 = nn.LayerNorm(dim, eps=EPSILON)
        self.attn = Attention(dim, config.num_heads)
        if config.cross:
            self.cross_attn = CrossAttention(dim, config.num_heads)
            self.norm2 = nn.LayerNorm(dim, eps=EPSILON)
            self.norm_y = nn.LayerNorm(dim, eps=EPSILON) if config.normalise_memory else nn.Identity()
        self.norm3 = nn.LayerNorm(dim, eps=EPSILON)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.cross = config.cross

    def forward(
        self, x: Tensor, memory: Tensor | None, rotation: Rotation | None = None, memory_rotation: Rotation | None = None
    ) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        if self.cross:
            assert memory is not None
            x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), rotation, memory_rotation)
        return x + self.mlp(self.norm3(x))


class CrossDecoder(nn.Module):
    """Projection, blocks, norm and prediction.

    Args:
        encoder_dim: width of the encoder's tokens.
        config: see `DecoderConfig`.
        grid: rows and columns of patches that the tables of positions are made for.
        outputs: numbers predicted for each token; 0: neither `mask_token` nor `prediction_head`, for tasks that bring a head of their own.
    """

    dec_pos_embed: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(self, encoder_dim: int, config: DecoderConfig, grid: Grid, outputs: int) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        self.decoder_embed = nn.Linear(encoder_dim, config.hidden_size)
        if config.positions == "cosine":
            self.register_buffer("dec_pos_embed", sincos_2d(grid, config.hidden_size))
        else:
            turned = self._turned(grid, None)
            self.register_buffer("cos", turned.cos, persistent=False)  # of the usual grid, so that no step computes them again
            self.register_buffer("sin", turned.sin, persistent=False)
        self.dec_blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.num_layers))
        self.dec_norm = nn.LayerNorm(config.hidden_size, eps=EPSILON)
        if outputs:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
            self.prediction_head = nn.Linear(config.hidden_size, outputs)
        initialise(self)

    def complete(self, tokens: Tensor, keep: Tensor, memory: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        """What the first view shows at its places, drawn with the help of the second.

        Args:
            tokens: [batch, kept, encoder dim], of the first view.
            keep: int64 [batch, kept], their places.
            memory: [batch, places, encoder dim], the whole second view; None without cross-attention.
            wanted: int64 [batch, n], the places to predict; None: all.

        Returns:
            [batch, n or places, outputs].
        """
        placed = self.place(self.decoder_embed(tokens), keep)
        decoded = self.decode(placed, None if memory is None else self.decoder_embed(memory), self.grid, self.grid)[-1]
        return self.prediction_head(decoded if wanted is None else take(decoded, wanted))

    def place(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """[batch, kept, dim] -> [batch, places, dim]: tokens at their places, the mask token elsewhere."""
        everywhere = self.mask_token.to(tokens.dtype).expand(len(tokens), self.grid[0] * self.grid[1], -1)
        return everywhere.scatter(1, keep[..., None].expand_as(tokens), tokens)

    def decode(self, tokens: Tensor, memory: Tensor | None, grid: Grid, memory_grid: Grid) -> list[Tensor]:
        """The outputs of every block, [batch, places, dim] each; the last after `dec_norm`.

        Args:
            tokens, memory: all places of the two views, as `decoder_embed` gives them.
            grid, memory_grid: their rows and columns of patches.
        """
        rotation, memory_rotation = self.rotation(grid), self.rotation(memory_grid)
        if self.config.positions == "cosine":
            tokens = tokens + interpolate_positions(self.dec_pos_embed, self.grid, grid)
            if memory is not None:
                memory = memory + interpolate_positions(self.dec_pos_embed, self.grid, memory_grid)
        outputs = []
        for block in self.dec_blocks:
            tokens = block(tokens, memory, rotation, memory_rotation)
            outputs.append(tokens)
        outputs[-1] = self.dec_norm(outputs[-1])
        return outputs

    def rotation(self, grid: Grid) -> Rotation | None:
        """Rotary positions of a grid's patches; None with tables."""
        if self.config.positions == "cosine":
            return None
        return Rotation(self.cos, self.sin) if grid == self.grid else self._turned(grid, self.cos.device)

    def _turned(self, grid: Grid, device: torch.device | None) -> Rotation:
        return rope_2d(grid_coordinates(grid, device), self.config.hidden_size // self.config.num_heads, self.config.rope_base)


class CroCoNet(nn.Module):
    """Encoder and decoder of the pre-training.

    Args:
        encoder: a `ViTConfig` without class token.
        decoder: see `DecoderConfig`.

    Raises:
        UsageError: sizes that no network can have.
    """

    def __init__(self, encoder: ViTConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        _check(encoder, decoder)
        self.encoder = ViT(encoder)
        self.decoder = CrossDecoder(encoder.hidden_size, decoder, encoder.grid, outputs=encoder.patch_size**2 * encoder.channels)

    def forward(self, patches: Tensor, keep: Tensor, second: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        """Pixels of the first view's patches.

        Args:
            patches: [batch, places, values], the cut first view.
            keep: int64 [batch, kept], what of it is seen.
            second: [batch, channels, height, width], the second view; None without cross-attention.
            wanted: int64 [batch, n], the patches to draw; None: all.

        Returns:
            [batch, n or places, values].
        """
        return self.complete(patches, keep, None if second is None else self.encoder(second), wanted)

    def complete(self, patches: Tensor, keep: Tensor, memory: Tensor | None, wanted: Tensor | None = None) -> Tensor:
        """The same from a second view that is encoded already."""
        return self.decoder.complete(self.encoder.from_patches(patches, keep), keep, memory, wanted)


class Binocular(nn.Module):
    """Both views whole, for tasks on two images: the outputs of every encoder block of the first view and of every decoder block.

    Args:
        encoder, decoder: of a `CroCoNet`, or of the same shape without mask token and prediction head.
    """

    def __init__(self, encoder: ViT, decoder: CrossDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """[batch, channels, height, width] twice, of one size -> [batch, places, width of encoder or decoder] for each block; only the last of
        either is normalised."""
        outputs = self.encoder.outputs(torch.cat([first, second]))  # one batch of both: 5 % faster (models/croco_downstream.py)
        of_first = [output.chunk(2)[0] for output in outputs]
        tokens, memory = self.decoder.decoder_embed(outputs[-1]).chunk(2)
        grid = grid_of(first.shape[2], first.shape[3], self.encoder.config.patch_size)
        return of_first + self.decoder.decode(tokens, memory, grid, grid)


def _check(encoder: ViTConfig, decoder: DecoderConfig) -> None:
    if encoder.class_token:
        raise UsageError("CroCo has no class token.", "Build its encoder with class_token=False.")
    if decoder.num_layers < 1 or decoder.num_heads < 1 or decoder.hidden_size % decoder.num_heads:
        raise UsageError(
            f"A decoder of {decoder.num_layers} layers, width {decoder.hidden_size} and {decoder.num_heads} heads cannot be built.",
            "Give at least 1 of each, and a width that is a multiple of the heads.",
        )
