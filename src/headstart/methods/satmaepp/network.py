"""What SatMAE++ adds to a masked autoencoder: a decoder of groups of bands, and blocks that enlarge what it draws.

- Pixels are held as cells [batch, cells, bands, pixels of a patch]: a group's prediction is a few of the bands, and a band's error one mean.
- Parameter names are those of techmn/satmae_pp (models_mae_group_channels.py, models_mae.py); facts are its, no code of it is here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.positions import Grid, sincos_1d, sincos_2d
from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import EPSILON, Block, grid_of, initialise
from headstart.core.errors import UsageError


def cut_cells(images: Tensor, patch_size: int) -> Tensor:
    """[batch, bands, height, width] -> [batch, cells, bands, patch_size * patch_size]: cells row by row, in each band row and column of the patch."""
    rows, columns = grid_of(images.shape[2], images.shape[3], patch_size)
    cut = images.unflatten(3, (columns, patch_size)).unflatten(2, (rows, patch_size))  # [batch, bands, rows, p, columns, p]
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(4).flatten(1, 2)


def join_cells(cells: Tensor, patch_size: int, grid: Grid) -> Tensor:
    """The inverse of `cut_cells`: [batch, cells, bands, pixels] -> [batch, bands, height, width]."""
    cut = cells.unflatten(3, (patch_size, patch_size)).unflatten(1, grid)  # [batch, rows, columns, bands, p, p]
    return cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def group_loss(errors: Tensor, hidden: Tensor, group_of_band: Tensor, band_share: Tensor) -> Tensor:
    """float32 [batch]: the summed error of each image's hidden tokens; that of a token is the mean over its group's bands.

    Args:
        errors: float32 [batch, cells, bands].
        hidden: bool [batch, groups, cells].
        group_of_band: int64 [bands]; band_share: float32 [bands], 1 / bands of its group.
    """
    counted = hidden.mT.index_select(2, group_of_band) * band_share  # [batch, cells, bands]
    return (errors * counted).sum((1, 2))


class GroupDecoder(nn.Module):
    """MAE's decoder for tokens of groups: positions say place and group, every group has its own last layer.

    Args:
        encoder_dim: width of the encoder's tokens.
        dim, num_layers, num_heads: of the decoder.
        group_sizes: bands of each group.
        group_width: part of `dim` that says the group; 0: none.
        patch_size, grid: of the images.

    Raises:
        UsageError: `group_width` leaves nothing for the place.
    """

    decoder_pos_embed: Tensor
    decoder_channel_embed: Tensor

    def __init__(
        self,
        encoder_dim: int,
        dim: int,
        num_layers: int,
        num_heads: int,
        group_sizes: Sequence[int],
        group_width: int,
        patch_size: int,
        grid: Grid,
    ) -> None:
        super().__init__()
        if not 0 <= group_width < dim:
            raise UsageError(f"A decoder group width of {group_width} leaves nothing of {dim} for the place.", "Choose a smaller one.")
        self.groups, self.cells, self.bands = len(group_sizes), grid[0] * grid[1], sum(group_sizes)
        self.decoder_embed = nn.Linear(encoder_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_buffer("decoder_pos_embed", sincos_2d(grid, dim - group_width, class_row=True))
        if group_width:  # the last row is the class token's
            self.register_buffer("decoder_channel_embed", sincos_1d(torch.arange(self.groups + 1), group_width).float()[None])
        self.decoder_blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(num_layers))
        self.decoder_norm = nn.LayerNorm(dim, eps=EPSILON)
        self.decoder_pred = nn.ModuleList(nn.Linear(dim, size * patch_size**2) for size in group_sizes)
        initialise(self)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """What is drawn for all tokens, seen and hidden.

        Args:
            tokens: [batch, 1 + kept, encoder dim], class token first.
            keep: int64 [batch, kept], number of each token, group * cells + cell.

        Returns:
            [batch, cells, bands, pixels]: bands in the order of the groups.
        """
        x = self._placed(self.decoder_embed(tokens), keep) + self.positions()
        for block in self.decoder_blocks:
            x = block(x)
        x = self.decoder_norm(x)[:, 1:].unflatten(1, (self.groups, self.cells))
        drawn = [head(of_group) for head, of_group in zip(self.decoder_pred, x.unbind(1), strict=True)]  # [batch, cells, bands * pixels] each
        return torch.cat(drawn, dim=2).unflatten(2, (self.bands, -1))

    def positions(self) -> Tensor:
        """[1, 1 + groups * cells, dim]: place and group of every token, in front the class token's: no place, the last group."""
        places = self.decoder_pos_embed[:, 1:].expand(self.groups, -1, -1)  # [groups, cells, .]
        first = self.decoder_pos_embed[:, :1]
        if hasattr(self, "decoder_channel_embed"):
            groups = self.decoder_channel_embed[0, :, None]  # [groups + 1, 1, group width]
            places = torch.cat([places, groups[:-1].expand(-1, self.cells, -1)], dim=2)
            first = torch.cat([first, groups[-1:]], dim=2)
        return torch.cat([first, places.flatten(0, 1)[None]], dim=1)

    def _placed(self, tokens: Tensor, keep: Tensor) -> Tensor:
        """[batch, 1 + kept, dim] -> [batch, 1 + groups * cells, dim]: tokens at their places, the mask token elsewhere."""
        index = keep[..., None].expand(-1, -1, tokens.shape[-1])
        everywhere = self.mask_token.to(tokens.dtype).expand(len(tokens), self.groups * self.cells, -1)
        return torch.cat([tokens[:, :1], everywhere.scatter(1, index, tokens[:, 1:])], dim=1)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel of [batch, channels, height, width]: in memory with channels last, nothing is copied."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, EPSILON).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + half of conv(ReLU(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.conv2(F.relu(self.conv1(x)))


class UpsampleBlock(nn.Module):
    """Features of twice the resolution, and the image that they show."""

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.up_conv = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.up_norm = ChannelNorm(channels)
        self.res_block = ResidualBlock(channels)
        self.res_norm = ChannelNorm(channels)
        self.proj_out = nn.Conv2d(channels, bands, 3, padding=1)
        for module in (self.res_block.conv1, self.res_block.conv2, self.proj_out):  # up_conv keeps PyTorch's first weights
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, channels, height, width] -> the same with both sides doubled, and [batch, bands, 2 * height, 2 * width]."""
        x = F.leaky_relu(self.up_norm(self.up_conv(x)))
        x = self.res_norm(self.res_block(x))
        return x, self.proj_out(x)


class MultiScaleHead(nn.Module):
    """The drawn image, larger and larger.

    Args:
        bands: of the image.
        proj_ratio: channels of the blocks, in bands.
        blocks: their names in the released files: up_block1 and up_block2, or up_block alone.
    """

    def __init__(self, bands: int, proj_ratio: int, blocks: Sequence[str]) -> None:
        super().__init__()
        channels = bands * proj_ratio
        self.proj_up_conv = nn.Conv2d(bands, channels, 1)
        self.proj_up_norm = ChannelNorm(channels)
        self.blocks = tuple(blocks)
        for name in self.blocks:
            self.add_module(name, UpsampleBlock(channels, bands))

    def forward(self, image: Tensor) -> list[Tensor]:
        """[batch, bands, height, width] -> the image at twice the resolution, at four times ... as many as there are blocks."""
        x = self.proj_up_norm(F.gelu(self.proj_up_conv(image.contiguous(memory_format=torch.channels_last))))
        larger = []
        for name in self.blocks:
            x, drawn = self.get_submodule(name)(x)
            larger.append(drawn)
        return larger


class BilinearHead(nn.Module):
    """The same without weights: the drawn image itself, enlarged."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, image: Tensor) -> list[Tensor]:
        return [enlarged(image, 2 ** (i + 1)) for i in range(self.count)]


def enlarged(image: Tensor, factor: int) -> Tensor:
    """[batch, bands, height, width] -> both sides times `factor`, bilinear."""
    return F.interpolate(image.float(), scale_factor=factor, mode="bilinear", align_corners=False)


def halved(image: Tensor) -> Tensor:
    """[batch, bands, height, width] -> half of both sides: the mean of 2 x 2 pixels, which is what bilinear interpolation by one half computes."""
    return F.avg_pool2d(image, 2)


def dense_features(encoder: ViT, images: Tensor) -> Tensor:
    """[batch, groups, rows, columns, dim]: what the encoder makes of every token, for segmentation; their mean over the groups (axis 1) is a map of
    the places. Optical networks have one group."""
    grid = grid_of(images.shape[2], images.shape[3], encoder.config.patch_size)
    return encoder(images)[:, encoder.prefix :].unflatten(1, (max(1, len(encoder.config.groups)), *grid))
