"""What follows the pre-training: stereo and flow from two views, depth from one (naver/croco models/croco_downstream.py, head_downstream.py,
stereoflow/engine.py).

- Two views: both encoded as one batch, the decoder without mask tokens; a DPT head reads the last encoder block and three of the decoder. One view:
  the encoder alone, four blocks of it.
- A linear head is the other choice: one layer from a token to its patch of pixels, for small networks.
- Larger images than the network was trained on are cut into overlapping windows, whose predictions are averaged by their confidence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.dpt import DPT
from headstart.backbones.positions import Grid
from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import grid_of, unpatchify
from headstart.core.errors import UsageError
from headstart.methods.croco.network import Binocular, CrossDecoder, encoder_outputs

STEPS = {8: 3, 12: 4, 24: 8}
"""Blocks between two hooks, by the decoder's depth."""


class Prediction(NamedTuple):
    """What a head says of every pixel: values [batch, channels, height, width] and raw confidence [batch, 1, height, width], None without."""

    values: Tensor
    confidence: Tensor | None


class Head(Protocol):
    """A module from the outputs of all blocks to [batch, outputs, height, width]."""

    def __call__(self, outputs: list[Tensor], grid: Grid, size: tuple[int, int]) -> Tensor: ...


def dpt_hooks(encoder_layers: int, decoder_layers: int | None) -> tuple[int, ...]:
    """Which outputs a DPT head reads, numbered over encoder, then decoder blocks.

    Args:
        decoder_layers: None: there is no decoder.

    Raises:
        UsageError: a depth for which there is no usual choice.
    """
    step = encoder_layers // 4 if decoder_layers is None else STEPS.get(decoder_layers, 0)
    last = encoder_layers + (decoder_layers or 0) - 1
    hooks = tuple(last - back * step for back in (3, 2, 1, 0))
    if step < 1 or hooks[0] < 0:
        raise UsageError(
            f"There is no usual choice of blocks for {encoder_layers} encoder and {decoder_layers or 0} decoder blocks.",
            "Give the hooks: four numbers.",
        )
    return hooks


class DPTHead(nn.Module):
    """DPT on four blocks.

    Args:
        encoder_dim, decoder_dim: widths; the decoder's None without one.
        encoder_layers, decoder_layers: depths.
        outputs: channels of the result.
        hooks: which outputs are read; None: the usual ones.
    """

    def __init__(
        self,
        encoder_dim: int,
        encoder_layers: int,
        decoder_dim: int | None,
        decoder_layers: int | None,
        outputs: int,
        hooks: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.hooks = hooks or dpt_hooks(encoder_layers, decoder_layers)
        total = encoder_layers + (decoder_layers or 0)
        if len(self.hooks) != 4 or not all(0 <= hook < total for hook in self.hooks):
            raise UsageError(f"Hooks {self.hooks} do not name four of {total} blocks.", f"Give four numbers from 0 to {total - 1}.")
        widths = [encoder_dim if hook < encoder_layers else decoder_dim or encoder_dim for hook in self.hooks]
        self.dpt = DPT(widths, outputs)

    def forward(self, outputs: list[Tensor], grid: Grid, size: tuple[int, int]) -> Tensor:
        return self.dpt([outputs[hook] for hook in self.hooks], grid, size)


class LinearHead(nn.Module):
    """One layer from the last block's token to the pixels of its patch.

    Args:
        bias: first value of every pixel, of each channel (the median of the truth).
    """

    def __init__(self, dim: int, patch_size: int, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.linear = nn.Linear(dim, patch_size**2 * outputs)
        nn.init.constant_(self.linear.bias, bias)

    def forward(self, outputs: list[Tensor], grid: Grid, size: tuple[int, int]) -> Tensor:
        return unpatchify(self.linear(outputs[-1]), self.patch_size, grid)


class TwoView(nn.Module):
    """Stereo or flow: encoder, decoder and a head.

    Args:
        channels: 1 (stereo) or 2 (flow).
        with_confidence: the head's last output is a confidence.
    """

    def __init__(self, encoder: ViT, decoder: CrossDecoder, head: Head, channels: int, with_confidence: bool = False) -> None:
        super().__init__()
        self.network, self.head = Binocular(encoder, decoder), head
        self.channels, self.with_confidence = channels, with_confidence

    def forward(self, first: Tensor, second: Tensor) -> Prediction:
        """[batch, 3, height, width] twice, normalised -> the prediction for every pixel of the first view."""
        size = (first.shape[2], first.shape[3])
        found = self.head(self.network(first, second), grid_of(*size, self.network.encoder.config.patch_size), size)
        return _parted(found, self.channels, self.with_confidence)


class OneView(nn.Module):
    """Depth: the encoder and a head."""

    def __init__(self, encoder: ViT, head: Head, channels: int = 1, with_confidence: bool = False) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.channels, self.with_confidence = channels, with_confidence

    def forward(self, images: Tensor) -> Prediction:
        size = (images.shape[2], images.shape[3])
        found = self.head(encoder_outputs(self.encoder, images), grid_of(*size, self.encoder.config.patch_size), size)
        return _parted(found, self.channels, self.with_confidence)


def _parted(found: Tensor, channels: int, with_confidence: bool) -> Prediction:
    return Prediction(found[:, :channels], found[:, channels : channels + 1] if with_confidence else None)


def layer_id(name: str, encoder_layers: int, decoder_layers: int) -> int:
    """Number of a parameter's layer for rates that fall with depth (utils/misc.py): patches, positions and mask token 0, encoder block i: i + 1,
    encoder norm and `decoder_embed`: as the last encoder block, decoder block i: encoder depth + i + 1, its norm: as the last, a head: one more.

    Args:
        name: as `TwoView` and `OneView` have it.
    """
    parts = name.split(".")
    if "head" in parts[:1]:
        return encoder_layers + decoder_layers + 1
    if "dec_blocks" in parts:
        return encoder_layers + int(parts[parts.index("dec_blocks") + 1]) + 1
    if "blocks" in parts:
        return int(parts[parts.index("blocks") + 1]) + 1
    if "dec_norm" in parts:
        return encoder_layers + decoder_layers
    return encoder_layers if {"decoder_embed", "norm"} & set(parts) else 0


# --- images that are larger than the network's window ----------------------------------------------------------------------------------------------


def tile_offsets(total: int, window: int, overlap: float) -> list[int]:
    """Where windows begin: evenly from 0 to the end, as few as overlap by that share.

    Raises:
        UsageError: the window is larger than the side.
    """
    if window > total or not 0 <= overlap < 1:
        raise UsageError(f"A window of {window} pixels with overlap {overlap} does not fit a side of {total}.", "Enlarge the image, or give a share.")
    count = 1 + math.ceil((total - window) / ((1 - overlap) * window))
    return [round((total - window) * place / max(1, count - 1)) for place in range(count)]


@torch.no_grad()
def tiled(
    predict: Callable[[Tensor, Tensor], Prediction],
    first: Tensor,
    second: Tensor,
    window: tuple[int, int],
    overlap: float = 0.9,
    sharpness: tuple[float, float] = (15.0, 3.0),
) -> Tensor:
    """[batch, channels, height, width]: predictions of overlapping windows, averaged where they overlap.

    Args:
        predict: such as a `TwoView` in evaluation mode.
        first, second: [batch, 3, height, width]. Images smaller than the window are enlarged first, and their predictions scaled back.
        window: height and width of the training crops.
        overlap: share by which windows overlap; the paper: 0.9, 0.7 while validating.
        sharpness: (beta, s) of the weights exp(-beta * 2 * (sigmoid(c / s) - .5)) of confidence c; (15, 3) for stereo, (10, 5) for flow.
    """
    height, width = first.shape[2:]
    factor = max(window[0] / height, window[1] / width, 1.0)
    if factor > 1:
        size = (max(window[0], round(height * factor)), max(window[1], round(width * factor)))
        first, second = (F.interpolate(view, size=size, mode="bicubic", align_corners=False) for view in (first, second))
    sums, weights = None, first.new_zeros(len(first), 1, *first.shape[2:])
    for top in tile_offsets(first.shape[2], window[0], overlap):
        for left in tile_offsets(first.shape[3], window[1], overlap):
            here = (..., slice(top, top + window[0]), slice(left, left + window[1]))
            values, confidence = predict(first[here], second[here])
            weight = torch.ones_like(values[:, :1])
            if confidence is not None:
                beta, scale = sharpness
                weight = torch.exp(-2 * beta * ((confidence / scale).sigmoid() - 0.5))
            if sums is None:
                sums = first.new_zeros(len(first), values.shape[1], *first.shape[2:])
            sums[here] += values * weight
            weights[here] += weight
    assert sums is not None
    found = sums / weights
    if factor == 1:
        return found
    back = F.interpolate(found, size=(height, width), mode="bicubic", align_corners=False)
    shrunk = back.new_tensor([width / found.shape[3], height / found.shape[2]])[: back.shape[1]]  # x, then y
    return back * shrunk[:, None, None]
