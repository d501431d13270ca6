"""Networks for dense tasks: a number, or several, for every pixel of an image (naver/croco models/croco_downstream.py, head_downstream.py).

- One view: any vision transformer of ours, its patches after every block. Two views: both encoded as one batch, CroCo's decoder without mask tokens,
  the blocks of the encoder for the first view and those of the decoder.
- Heads: `dpt` reads four blocks; `linear` makes all pixels of a patch from its last token (small networks); `bilinear` one value a patch, enlarged
  (segmentation with many classes, as in Segmenter and DINOv2).
- Rates that fall with depth: `layer_id` numbers parameters as utils/misc.py of naver/croco.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.croco import Binocular, CrossDecoder
from headstart.backbones.dpt import DPT
from headstart.backbones.positions import Grid
from headstart.backbones.vit import ViT
from headstart.backbones.vit_blocks import grid_of, unpatchify
from headstart.core.errors import UsageError
from headstart.data.image.augment import normalize

HeadName = Literal["dpt", "linear", "bilinear"]
STEPS = {8: 3, 12: 4, 24: 8}
"""Blocks between two hooks, by the decoder's depth."""
DPT_FROM = 8
"""Blocks, of encoder and decoder together, from which the head is DPT unless another is asked for."""


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
            "Give the hooks, four numbers, or another head.",
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
    """One layer from the last block's token to the pixels of its patch."""

    def __init__(self, dim: int, patch_size: int, outputs: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.linear = nn.Linear(dim, patch_size**2 * outputs)
        nn.init.zeros_(self.linear.bias)

    def forward(self, outputs: list[Tensor], grid: Grid, size: tuple[int, int]) -> Tensor:
        return unpatchify(self.linear(outputs[-1]), self.patch_size, grid)


class BilinearHead(nn.Module):
    """One layer from the last block's token to one value of each channel, enlarged to the image (Strudel et al. 2021, the linear decoder)."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, outputs)
        nn.init.zeros_(self.linear.bias)

    def forward(self, outputs: list[Tensor], grid: Grid, size: tuple[int, int]) -> Tensor:
        coarse = self.linear(outputs[-1]).transpose(1, 2).unflatten(2, grid)
        return F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)


def choose_head(head: Literal["auto"] | HeadName, encoder_layers: int, decoder_layers: int | None, hooks: tuple[int, ...] = ()) -> HeadName:
    """What `auto` means: DPT for a network of at least `DPT_FROM` blocks where it is known which blocks it reads, else linear."""
    if head != "auto":
        return head
    known = decoder_layers is None or decoder_layers in STEPS or bool(hooks)
    return "dpt" if known and encoder_layers + (decoder_layers or 0) >= DPT_FROM else "linear"


def make_head(name: HeadName, encoder: ViT, decoder: CrossDecoder | None, outputs: int, hooks: tuple[int, ...] = ()) -> nn.Module:
    """A new head on an encoder, or on the decoder of CroCo after it; draws from torch's global generator."""
    of_encoder = encoder.config
    of_decoder = None if decoder is None else decoder.config
    if name == "dpt":
        dim, layers = (None, None) if of_decoder is None else (of_decoder.hidden_size, of_decoder.num_layers)
        return DPTHead(of_encoder.hidden_size, of_encoder.num_layers, dim, layers, outputs, hooks or None)
    dim = of_encoder.hidden_size if of_decoder is None else of_decoder.hidden_size
    return LinearHead(dim, of_encoder.patch_size, outputs) if name == "linear" else BilinearHead(dim, outputs)


class TwoView(nn.Module):
    """Stereo or flow: encoder, decoder and a head.

    Args:
        channels: 1 (stereo) or 2 (flow).
        with_confidence: the head's last output is a confidence.
    """

    def __init__(self, network: Binocular, head: Head, channels: int, with_confidence: bool = False) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.channels, self.with_confidence = channels, with_confidence

    @property
    def encoder(self) -> ViT:
        return self.network.encoder

    def forward(self, first: Tensor, second: Tensor) -> Prediction:
        """[batch, channels, height, width] twice, normalised -> the prediction for every pixel of the first view."""
        size = (first.shape[2], first.shape[3])
        found = self.head(self.network(first, second), grid_of(*size, self.encoder.config.patch_size), size)
        return _parted(found, self.channels, self.with_confidence)


class OneView(nn.Module):
    """Segmentation, depth and other maps of one image: an encoder and a head."""

    def __init__(self, encoder: ViT, head: Head, channels: int = 1, with_confidence: bool = False) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.channels, self.with_confidence = channels, with_confidence

    def forward(self, images: Tensor) -> Prediction:
        size = (images.shape[2], images.shape[3])
        found = self.head(self.encoder.outputs(images), grid_of(*size, self.encoder.config.patch_size), size)
        return _parted(found, self.channels, self.with_confidence)


def _parted(found: Tensor, channels: int, with_confidence: bool) -> Prediction:
    return Prediction(found[:, :channels], found[:, channels : channels + 1] if with_confidence else None)


class DenseModel(nn.Module):
    """A network between pixels as they are in files and values in their own unit.

    Args:
        mean, std: [channels] of the images, in the values of their pixels.
        shift, scale: [values channels]: a prediction is network * scale + shift. Standardised targets (depth in metres or millimetres) train alike.
    """

    mean: Tensor
    std: Tensor
    shift: Tensor
    scale: Tensor

    def __init__(self, network: OneView | TwoView, mean: Tensor, std: Tensor, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.network = network
        for name, value in (("mean", mean), ("std", std), ("shift", shift), ("scale", scale)):
            self.register_buffer(name, value)

    @property
    def views(self) -> int:
        """1 or 2 images make one prediction."""
        return 2 if isinstance(self.network, TwoView) else 1

    @property
    def encoder(self) -> ViT:
        return self.network.encoder

    def raw(self, *views: Tensor) -> Prediction:
        """What losses are of: values before `scale` and `shift`."""
        found = self.network(*(normalize(view, self.mean, self.std) for view in views))
        return Prediction(found.values.float(), None if found.confidence is None else found.confidence.float())

    def forward(self, *views: Tensor) -> Prediction:
        """Views [batch, channels, height, width] with pixels as stored -> values in their unit, float32."""
        found = self.raw(*views)
        return Prediction(found.values * self.scale[:, None, None] + self.shift[:, None, None], found.confidence)

    def standardised(self, truth: Tensor) -> Tensor:
        """Truth [batch, channels, height, width] as `raw` should give it."""
        return (truth - self.shift[:, None, None]) / self.scale[:, None, None]

    @torch.no_grad()
    def start_at(self, first: Tensor) -> None:
        """Makes a linear head's first values everywhere `first` [values channels], in their unit."""
        assert isinstance(self.network.head, LinearHead)
        bias = self.network.head.linear.bias.view(-1, self.network.channels + self.network.with_confidence)  # channels fastest
        bias[:, : self.network.channels] = (first.to(self.shift) - self.shift) / self.scale


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
