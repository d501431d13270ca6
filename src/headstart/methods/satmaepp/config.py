"""Settings and presets of SatMAE++: the paper's two forms and recipes, and what a CPU can do with small tiles."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from headstart import catalog
from headstart.core.bounds import COUNT_FROM_0, refuse_outside
from headstart.core.errors import UsageError
from headstart.data.image.config import ImageConfig
from headstart.engine.config import Preset, Settings, Sizing
from headstart.engine.image_settings import check_images, patches_of
from headstart.objectives.seen import kept_count, refuse_unseen

logger = logging.getLogger(__name__)

Scaling = Literal["auto", "clip", "standard", "reflectance", "byte"]
Groups = tuple[tuple[int, ...], ...]
"""Bands of each group, counted from 0; empty: the optical form, all bands in one token."""

SENTINEL_BANDS = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
"""The ten bands of Sentinel-2 that the paper keeps: of all 13, without the three of 60 m."""
SENTINEL_GROUPS = ("B2,B3,B4,B8", "B5,B6,B7,B8A", "B11,B12")
"""10 m, 20 m near infrared, 20 m short-wave (models_mae_group_channels.py: 0,1,2,6 3,4,5,7 8,9)."""
OPTICAL_BANDS = 3
"""Images of so many bands, or fewer, are taken for optical ones."""
WIDEST_GROUP = 4
"""Bands of a group at most, where nobody says which belong together."""

OF_GROUPS = dict.fromkeys(("group_width", "decoder_group_width"), COUNT_FROM_0)


@dataclass
class SatMAEPPConfig:
    """Networks, bands, masking and scales."""

    image_size: int = 16
    """Height and width that the encoder sees, in pixels; a multiple of the patch. The paper: 96, RGB 224."""
    patch_size: int = 4
    """Side of a patch in pixels. The paper: 8, RGB 16."""
    hidden_size: int = 96
    """Width of the encoder. Large: 1024."""
    num_layers: int = 4
    """Blocks of the encoder. Large: 24."""
    num_heads: int = 3
    """Attention heads of the encoder. Large: 16."""
    group_width: int | None = None
    """Part of the encoder's width that says the group instead of the place; 0: none. None: a quarter. The paper: 256. Not in the optical form."""
    decoder_hidden_size: int = 64
    """Width of the decoder. The paper: 512."""
    decoder_layers: int = 2
    """Blocks of the decoder. The paper: 8."""
    decoder_heads: int = 4
    """Attention heads of the decoder. The paper: 16."""
    decoder_group_width: int | None = None
    """Likewise of the decoder's width. The paper: 128."""
    band_names: tuple[str, ...] = ()
    """Names of the images' bands, in their order; they are checked, and kept with the export. None: bands are counted from 1."""
    groups: tuple[str, ...] = ()
    """Bands whose patches become one token, by name or number: 1,2,3 4,5. None: up to three bands are one image in colour, ten are
    Sentinel-2's, others are cut in order into groups of at most four."""
    scaling: Scaling = "auto"
    """How values become pixels. clip: mean +- 2 deviations of each band become 0..1 in steps of 1/255, the rest is cut (the paper, bands). standard:
    less the mean, over the deviation (the paper, RGB). reflectance: over 10,000, which keeps ratios of bands. byte: over 255, for images
    that were clipped before. auto: the paper's."""
    mask_ratio: float = 0.75
    """Share of the tokens that are hidden. The paper: 0.75."""
    spatial_mask: bool = False
    """Hide whole places, all groups of them, instead of single tokens. The paper: no."""
    scales: int = 3
    """Resolutions that are reconstructed: 1 (SatMAE), 2 (the paper's RGB form), 3 (its multi-spectral form)."""
    crop_factor: int | None = None
    """Side of the crop, in sides of the input; the input is its block mean. None: that of the largest scale (1, 2, 4)."""
    upsampler: Literal["conv", "bilinear"] = "conv"
    """What enlarges the reconstruction: the paper's blocks, or plain interpolation, which has no weights."""
    proj_ratio: int = 4
    """Channels of the enlarging blocks, in bands. The paper: 4. On small images they cost more than the rest of the network: 1 there."""
    scale_loss: Literal["l1", "mse"] = "l1"
    """Distance at the larger scales. The paper: l1."""
    pixel_weight: float = 0.6
    """Weight of the loss at the input's own resolution; with one scale it is 1. The code: 0.6."""
    scale_weight: float = 0.4
    """Weight of the mean loss of the larger scales. The code: 0.4."""
    normalise_targets: bool = False
    """Predict each place less its mean over all bands, over its deviation (norm_pix_loss); only with one scale. The code: off."""
    crop_smallest: float = 0.6
    """Smallest share of an image's area that a random crop keeps. The paper: 0.6, RGB 0.2."""
    flip: float = 0.5
    """Probability of mirroring an image left to right. The paper: 0.5."""
    official_quirks: bool = False
    """Leave predicted bands in the order of the groups, as the released code does: with its groups bands 4 and 7 of ten change places. For the
    published decoders only."""

    def check(self, data: ImageConfig | None = None) -> None:
        """Refuses what no run can have, before an image is read. Raises UsageError."""
        check_images(self, data)
        check(self)
        if (groups := _known_groups(self, data)) is not None:
            seen_tokens(self, patches_of(self), groups)

    @property
    def factor(self) -> int:
        """Side of the crop in sides of the input."""
        return 2 ** (self.scales - 1) if self.crop_factor is None else self.crop_factor


def group_width(width: int, given: int | None) -> int:
    """The part of a network's width that says the group: as given, or a quarter in steps of 4, which leaves the positions a multiple of 4."""
    return width // 16 * 4 if given is None else given


def resolve_groups(config: SatMAEPPConfig, channels: int) -> Groups:
    """The groups of a store's bands, counted from 0; empty for the optical form.

    Raises:
        UsageError: the names are not as many as the bands; a group names an unknown band; a band is in no group or in two.
    """
    names = config.band_names or tuple(str(number) for number in range(1, channels + 1))
    if len(names) != channels:
        raise UsageError(
            f"The images have {channels} bands, --method.band-names says {len(names)}: {', '.join(names)}.",
            "Name the bands of the images in their order; --image.bands chooses which bands of the files are kept.",
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"--method.band-names has {', '.join(twice)} twice.", "Give every band its own name.")
    if not config.groups:
        return _usual_groups(channels)
    groups = [[name.strip() for name in group.split(",")] for group in config.groups]
    named = Counter(name for group in groups for name in group)
    if unknown := [name for name in named if name not in names]:
        raise UsageError(f"--method.groups names {', '.join(map(repr, unknown))}.", f"The bands of these images are: {', '.join(names)}.")
    if twice := [name for name, count in named.items() if count > 1]:
        raise UsageError(f"--method.groups has {', '.join(twice)} twice.", "Put every band into exactly one group.")
    if left_out := [name for name in names if name not in named]:
        mend = "Put every band into exactly one group, or leave bands out of the store (--image.bands)."
        raise UsageError(f"--method.groups lacks {', '.join(left_out)}.", mend)
    return tuple(tuple(names.index(name) for name in group) for group in groups)


def _usual_groups(channels: int) -> Groups:
    if channels <= OPTICAL_BANDS:
        return ()
    if channels == len(SENTINEL_BANDS):
        logger.info("ten bands are taken for Sentinel-2's %s, in the paper's groups; --method.groups says otherwise", " ".join(SENTINEL_BANDS))
        return tuple(tuple(SENTINEL_BANDS.index(name) for name in group.split(",")) for group in SENTINEL_GROUPS)
    count = _usual_count(channels)
    edges = [channels * i // count for i in range(count + 1)]
    groups = tuple(tuple(range(low, high)) for low, high in pairwise(edges))
    logger.warning(
        "nobody said which bands belong together: groups are %s. Bands of one resolution and part of the spectrum should share one (--method.groups)",
        " ".join(",".join(str(band + 1) for band in group) for group in groups),
    )
    return groups


def _usual_count(channels: int) -> int:
    """Groups that so many bands are cut into where nobody says which; 1 in the optical form."""
    if channels <= OPTICAL_BANDS:
        return 1
    return len(SENTINEL_GROUPS) if channels == len(SENTINEL_BANDS) else -(-channels // WIDEST_GROUP)


def _known_groups(config: SatMAEPPConfig, data: ImageConfig | None) -> int | None:
    """How many groups there will be, as far as the settings tell; None: the first image does."""
    if config.groups:
        return len(config.groups)
    bands = len(config.band_names)
    if not bands and data is not None:
        bands = len(data.bands or data.band_files) or {"grey": 1, "rgb": 3}.get(data.mode, 0)
    if bands:
        return _usual_count(bands)
    return 1 if config.spatial_mask else None  # places are hidden whole, however many groups they have


def seen_tokens(config: SatMAEPPConfig, cells: int, groups: int) -> int:
    """How many tokens of an image are seen.

    Raises:
        UsageError: none, or all.
    """
    ratio = config.mask_ratio
    seen = kept_count(cells, ratio) * groups if config.spatial_mask else kept_count(cells * groups, ratio)
    refuse_unseen(seen, cells * groups, ratio, "tokens")
    return seen


def check(config: SatMAEPPConfig) -> None:
    """Refuses settings that no run can have.

    Raises:
        UsageError: see the messages.
    """
    if config.scales not in (1, 2, 3):
        raise UsageError(f"--method.scales is {config.scales}.", "Give 1 (SatMAE), 2 or 3.")
    if config.factor < 2 ** (config.scales - 1) or config.factor & (config.factor - 1):
        what = f"A crop of {config.factor} times the input does not hold {config.scales} scales, each half of the next."
        raise UsageError(what, f"Give --method.crop-factor {2 ** (config.scales - 1)}, or twice or four times that.")
    if config.normalise_targets and config.scales > 1:
        raise UsageError(
            "Normalised targets and larger scales exclude each other: the larger scales would be drawn from normalised pixels.",
            "Leave out --method.normalise-targets, or give --method.scales 1.",
        )
    if not 0 < config.mask_ratio < 1:
        raise UsageError(f"--method.mask-ratio is {config.mask_ratio}.", "Give a share between 0 and 1; the paper: 0.75.")
    refuse_outside({name: getattr(config, name) for name in OF_GROUPS}, OF_GROUPS, "method.")
    if config.proj_ratio < 1:
        raise UsageError(f"--method.proj-ratio is {config.proj_ratio}.", "Give at least 1; the paper: 4.")
    if min(config.pixel_weight, config.scale_weight) < 0 or config.pixel_weight + config.scale_weight == 0:
        raise UsageError(
            f"The weights of the losses are {config.pixel_weight} and {config.scale_weight}.",
            "Give two that are not negative, not both 0; the code: 0.6 and 0.4.",
        )


SENTINEL_EPOCH = 348
"""Updates of 2,048 images in one epoch of fMoW-Sentinel's 712,874 training images."""
RGB_EPOCH = 22
"""Updates of 16,384 images in one epoch of fMoW-RGB's 363,571 training images."""


def _sentinel(hidden_size: int, num_layers: int, num_heads: int) -> Preset:
    """README of the released code: 50 epochs of batch 2,048, 20 of them warm-up, blr 1e-4 (times batch / 256)."""
    config = SatMAEPPConfig(
        image_size=96,
        patch_size=8,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        group_width=256,
        decoder_hidden_size=512,
        decoder_layers=8,
        decoder_heads=16,
        decoder_group_width=128,
        band_names=SENTINEL_BANDS,
        groups=SENTINEL_GROUPS,
    )
    return Preset(
        config,
        batch=2048,
        optimizer={"learning_rate": 8e-4, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": 20 / 50},
        data={"size": 96, "mode": "bands"},
        steps=50 * SENTINEL_EPOCH,
    )


def _optical(hidden_size: int, num_layers: int, num_heads: int) -> Preset:
    """README of the released code: 800 epochs of batch 16,384, 20 of them warm-up, learning rate 7e-4."""
    config = SatMAEPPConfig(
        image_size=224,
        patch_size=16,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        decoder_hidden_size=512,
        decoder_layers=8,
        decoder_heads=16,
        scales=2,
        crop_smallest=0.2,
    )
    return Preset(
        config,
        batch=16384,
        optimizer={"learning_rate": 7e-4, "beta2": 0.95, "weight_decay": 0.3, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": 20 / 800},
        data={"size": 512},
        steps=800 * RGB_EPOCH,
    )


def _tiny(config: SatMAEPPConfig) -> Preset:
    return Preset(
        config,
        batch=64,
        optimizer={"learning_rate": 1e-3, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": 0.1},
        data={"size": 64},
    )


PRESETS: dict[str, Preset] = {
    "tiny": _tiny(SatMAEPPConfig(proj_ratio=1)),
    "tiny-optical": _tiny(SatMAEPPConfig(image_size=32, scales=2, proj_ratio=1, crop_smallest=0.5)),
    "base": _sentinel(768, 12, 12),
    "large": _sentinel(1024, 24, 16),
    "base-optical": _optical(768, 12, 12),
    "large-optical": _optical(1024, 24, 16),
}

SETTINGS = Settings(catalog.card("satmaepp"), SatMAEPPConfig, PRESETS, ImageConfig, "image", Sizing("tiny-optical", bands="tiny"))
