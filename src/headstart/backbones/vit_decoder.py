"""The light decoder of masked image modelling, with the names of facebookresearch/mae (`decoder_embed`, `decoder_blocks`, `decoder_norm`,
`decoder_pred`, and `mask_token`, `decoder_pos_embed` where there are mask tokens).

MAE's decoder sees every place: the encoder's tokens where they were, mask tokens elsewhere, positions added to all. DropPos's sees the encoder's
tokens alone and has no positions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headstart.backbones.positions import Grid, sincos_2d
from headstart.backbones.vit_blocks import EPSILON, Block, initialise, take


class Decoder(nn.Module):
    """Projection, blocks, norm and prediction.

    Args:
        encoder_dim: width of the encoder's tokens.
        dim, num_layers, num_heads: of the decoder.
        outputs: numbers predicted for each token.
        grid: with it the decoder has mask tokens and fixed positions of this grid (MAE); None: neither (DropPos).
    """

    decoder_pos_embed: Tensor

    def __init__(self, encoder_dim: int, dim: int, num_layers: int, num_heads: int, outputs: int, grid: Grid | None = None) -> None:
        super().__init__()
        self.decoder_embed = nn.Linear(encoder_dim, dim)
        if grid is not None:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.register_buffer("decoder_pos_embed", sincos_2d(grid, dim, class_row=True))
        self.decoder_blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(num_layers))
        self.decoder_norm = nn.LayerNorm(dim, eps=EPSILON)
        self.decoder_pred = nn.Linear(dim, outputs)
        initialise(self)

    def forward(self, tokens: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Predictions of the encoder's tokens themselves.

        Args:
            tokens: [batch, 1 + kept, encoder dim], class token first.
            wanted: int64 [batch, n], which of the kept ones to predict; None: all.

        Returns:
            [batch, kept or n, outputs].
        """
        return self.predict(self.decode(self.decoder_embed(tokens)), wanted)

    def reconstruct(self, tokens: Tensor, keep: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Predictions of all places, or of the `wanted` ones.

        Args:
            tokens: [batch, 1 + kept, encoder dim], class token first.
            keep: int64 [batch, kept]: the place of each token; wanted: int64 [batch, n], the places to predict.

        Returns:
            [batch, places or n, outputs].
        """
        return self.predict(self.decode(self.place(self.decoder_embed(tokens), keep) + self.decoder_pos_embed), wanted)

    def place(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """[batch, 1 + kept, dim] -> [batch, 1 + places, dim]: tokens at their places, the mask token elsewhere, the class token in front."""
        places = self.decoder_pos_embed.shape[1] - 1
        index = keep[..., None].expand(-1, -1, tokens.shape[-1])
        patches = self.mask_token.to(tokens.dtype).expand(len(tokens), places, -1).scatter(1, index, tokens[:, 1:])
        return torch.cat([tokens[:, :1], patches], dim=1)

    def decode(self, tokens: Tensor) -> Tensor:
        for block in self.decoder_blocks:
            tokens = block(tokens)
        return self.decoder_norm(tokens)

    def predict(self, decoded: Tensor, wanted: Tensor | None) -> Tensor:
        patches = decoded[:, 1:]
        return self.decoder_pred(patches if wanted is None else take(patches, wanted))
