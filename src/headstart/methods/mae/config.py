"""Settings and presets of MAE: the paper's sizes and recipe, and what a CPU can do with small images."""

from __future__ import annotations

from dataclasses import dataclass

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.data.image.config import ImageConfig
from headstart.engine.config import Preset, Settings, Sizing
from headstart.engine.image_settings import check_images, patches_of
from headstart.objectives.seen import kept_count, refuse_unseen


@dataclass
class MAEConfig:
    """Networks, masking and target."""

    image_size: int = 32
    """Height and width that the network sees, in pixels; a multiple of the patch. The paper: 224."""
    patch_size: int = 4
    """Side of a patch in pixels. The paper: 16, huge 14."""
    hidden_size: int = 96
    """Width of the encoder. Base: 768."""
    num_layers: int = 4
    """Blocks of the encoder. Base: 12."""
    num_heads: int = 3
    """Attention heads of the encoder. Base: 12."""
    decoder_hidden_size: int = 64
    """Width of the decoder. The paper: 512."""
    decoder_layers: int = 2
    """Blocks of the decoder. The paper: 8."""
    decoder_heads: int = 4
    """Attention heads of the decoder. The paper: 16."""
    mask_ratio: float = 0.75
    """Share of the patches that are hidden. The paper: 0.75."""
    normalise_targets: bool = True
    """Predict each patch less its mean, over its deviation (norm_pix_loss). The code's default is off; the published models have it on."""
    crop_smallest: float = 0.2
    """Smallest share of an image's area that a random crop keeps. The paper: 0.2."""
    flip: float = 0.5
    """Probability of mirroring an image left to right; 0 where left and right are not the same (organs, letters). The paper: 0.5."""

    def check(self, data: ImageConfig | None = None) -> None:
        """Refuses what no run can have, before an image is read. Raises UsageError."""
        check_images(self, data)
        if not 0 < self.mask_ratio < 1:
            raise UsageError(f"--method.mask-ratio is {self.mask_ratio}.", "Give a share between 0 and 1; the paper: 0.75.")
        places = patches_of(self)
        refuse_unseen(kept_count(places, self.mask_ratio), places, self.mask_ratio)


IMAGENET_EPOCH = 312
"""Updates of 4,096 images in one epoch of ImageNet-1k."""


def _paper(hidden_size: int, num_layers: int, num_heads: int, patch_size: int = 16) -> Preset:
    """PRETRAIN.md: 800 epochs of batch 4,096, 40 of them warm-up, blr 1.5e-4 (times batch / 256)."""
    config = MAEConfig(224, patch_size, hidden_size, num_layers, num_heads, decoder_hidden_size=512, decoder_layers=8, decoder_heads=16)
    return Preset(
        config,
        batch=4096,
        optimizer={"learning_rate": 2.4e-3, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": 40 / 800},
        data={"size": 256},
        steps=800 * IMAGENET_EPOCH,
    )


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        MAEConfig(crop_smallest=0.5),
        batch=128,
        optimizer={"learning_rate": 1e-3, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": 0.1},
        data={"size": 32},
    ),
    "small": _paper(384, 12, 6),
    "base": _paper(768, 12, 12),
    "large": _paper(1024, 24, 16),
    "huge": _paper(1280, 32, 16, patch_size=14),
}

SETTINGS = Settings(catalog.card("mae"), MAEConfig, PRESETS, ImageConfig, "image", Sizing(large="small"))
