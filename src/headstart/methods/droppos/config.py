"""Settings and presets of DropPos: the paper's sizes and recipe, the released code's switches, and what a CPU can do with small images."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.data.image.config import ImageConfig
from headstart.engine.config import Preset, Settings, Sizing
from headstart.engine.image_settings import check_images, patches_of
from headstart.objectives.seen import kept_count


@dataclass
class DropPosConfig:
    """Networks, masking, dropping and target."""

    image_size: int = 32
    """Height and width that the network sees, in pixels; a multiple of the patch. The paper: 224."""
    patch_size: int = 4
    """Side of a patch in pixels. The paper: 16."""
    hidden_size: int = 96
    """Width of the encoder. Base: 768."""
    num_layers: int = 4
    """Blocks of the encoder. Base: 12."""
    num_heads: int = 3
    """Attention heads of the encoder. Base: 12."""
    decoder_hidden_size: int = 64
    """Width of the decoder. The paper: 512."""
    decoder_layers: int = 2
    """Blocks of the decoder. The paper: 2; the code also names variants with 8."""
    decoder_heads: int = 4
    """Attention heads of the decoder. The paper: 16."""
    mask_ratio: float = 0.75
    """Share of the patches that are hidden. The paper: 0.75; 0 shows all, which is too easy."""
    drop_ratio: float = 0.75
    """Share of the seen patches whose position is dropped. The paper: 0.75; 1 drops all."""
    mask_token_type: Literal["param", "zeros", "wrong_pos"] = "param"
    """What stands in place of a dropped position: a learnt token, nothing, or the position of another dropped patch of the image."""
    sigma: float = 1.0
    """Width of the smoothed target in grid cells: a neighbour's share falls by exp(-1 / sigma^2). The paper: 1; 0 is the hard target."""
    sigma_decay: bool = True
    """Let sigma fall to 0 over the run. The paper: yes."""
    sigma_epochs: int = 20
    """In how many stairs it falls. The paper: one an epoch (200 or 800)."""
    attentive: bool = True
    """Weigh patches by their affinity to the whole image. The paper: yes. Costs a pass over the whole image without gradient, more than the training
    part of the step."""
    temperature: float = 0.1
    """Of the softmax over affinities. The code: 0.1."""
    conf_ignore: bool = False
    """Leave out patches whose true place already has its target's probability. The code's default: off."""
    multi_task: bool = False
    """Reconstruct the hidden patches' pixels too, with a complete MAE decoder. The paper reports nothing for it."""
    pos_weight: float = 1.0
    """With multi_task: weight of the position loss beside the pixels'. The scripts: 0.05 (base), 0.1 (large)."""
    crop_smallest: float = 0.2
    """Smallest share of an image's area that a random crop keeps. The paper: 0.2."""
    flip: float = 0.5
    """Probability of mirroring an image left to right; 0 where left and right are not the same (organs, letters). The paper: 0.5."""
    official_quirks: bool = False
    """Repeat the released code's smoothing map, whose rows do not sum to 1 and whose grid has another width: for parity only."""

    def check(self, data: ImageConfig | None = None) -> None:
        """Refuses what no run can have, before an image is read. Raises UsageError."""
        check_images(self, data)
        if not 0 <= self.mask_ratio < 1 or not 0 <= self.drop_ratio <= 1:
            raise UsageError(
                f"--method.mask-ratio is {self.mask_ratio}, --method.drop-ratio is {self.drop_ratio}.",
                "Give shares: of the patches that are hidden (below 1), and of the seen ones whose position is dropped. The paper: 0.75 and 0.75.",
            )
        if self.sigma < 0 or self.sigma_epochs < 1 or self.temperature <= 0:
            raise UsageError(
                f"--method.sigma is {self.sigma}, --method.sigma-epochs {self.sigma_epochs}, --method.temperature {self.temperature}.",
                "Give a sigma of 0 or more, at least one epoch and a positive temperature; the paper: 1, one an epoch, 0.1.",
            )
        if self.pos_weight < 0:
            raise UsageError(f"--method.pos-weight is {self.pos_weight}.", "Give 0 or more; the scripts: 0.05 and 0.1.")
        seen_and_placed(self, patches_of(self))


def seen_and_placed(config: DropPosConfig, places: int) -> tuple[int, int]:
    """How many of the patches are seen, and how many of these keep their position.

    Raises:
        UsageError: nothing would be seen, or no position dropped; or, where pixels are drawn too, nothing hidden.
    """
    kept = kept_count(places, config.mask_ratio)
    placed = kept_count(kept, config.drop_ratio)
    if kept == 0 or kept == placed:
        raise UsageError(
            f"Of {places} patches {kept} are seen, {placed} of these with their position: there is none to name.",
            "Choose smaller patches, larger images, a lower --method.mask-ratio or a higher --method.drop-ratio.",
        )
    if config.multi_task and kept == places:
        raise UsageError("With multi_task some patches must be hidden: their pixels are its target.", "Give a --method.mask-ratio above 0.")
    return kept, placed


IMAGENET_EPOCH = 312
"""Updates of 4,096 images in one epoch of ImageNet-1k."""


def _paper(hidden_size: int, num_layers: int, num_heads: int, warmup_epochs: int) -> Preset:
    """800 epochs of batch 4,096, blr 1.5e-4 (times batch / 256); scripts/pretrain_*.sh."""
    config = DropPosConfig(224, 16, hidden_size, num_layers, num_heads, decoder_hidden_size=512, decoder_heads=16, sigma_epochs=800)
    return Preset(
        config,
        batch=4096,
        optimizer={"learning_rate": 2.4e-3, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": warmup_epochs / 800},
        data={"size": 256},
        steps=800 * IMAGENET_EPOCH,
    )


def _as_released(preset: Preset) -> Preset:
    """With the released code's smoothing map and its clipping of each tensor by its own norm."""
    clipping: dict[str, Any] = {"clip_norm": 5.0, "clip_each": True}
    return dataclasses.replace(
        preset, method=dataclasses.replace(preset.method, official_quirks=True), optimizer={**preset.optimizer, **clipping}
    )


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        DropPosConfig(crop_smallest=0.5),
        batch=128,
        optimizer={"learning_rate": 1e-3, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None},
        schedule={"name": "cosine", "warmup_share": 0.1},
        data={"size": 32},
    ),
    "small": _paper(384, 12, 6, warmup_epochs=10),
    "base": _paper(768, 12, 12, warmup_epochs=10),
    "base-released": _as_released(_paper(768, 12, 12, warmup_epochs=10)),
    "large": _paper(1024, 24, 16, warmup_epochs=40),
}

SETTINGS = Settings(catalog.card("droppos"), DropPosConfig, PRESETS, ImageConfig, "image", Sizing(large="small"))
