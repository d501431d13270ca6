"""Settings and presets of CroCo: the sizes and recipes of both papers, and what a CPU can do with small pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.data.image.pair_config import PairConfig
from headstart.engine.config import Preset, Settings, Sizing
from headstart.engine.image_settings import check_images, patches_of
from headstart.objectives.seen import refuse_unseen

FIRST_VIEW = "patches of the first view"


@dataclass
class CroCoConfig:
    """Networks, masking, target and views."""

    image_size: int = 64
    """Height and width that the network sees, in pixels; a multiple of the patch. Stored images may be larger: each view is cut from its image at a
    place of its own. The paper: 224 of 256."""
    patch_size: int = 8
    """Side of a patch in pixels. The paper: 16."""
    hidden_size: int = 96
    """Width of the encoder. Base: 768."""
    num_layers: int = 3
    """Blocks of the encoder. Base: 12."""
    num_heads: int = 3
    """Attention heads of the encoder. Base: 12."""
    decoder_hidden_size: int = 96
    """Width of the decoder. Small decoder: 512; base: 768."""
    decoder_layers: int = 3
    """Blocks of the decoder. Small decoder: 8; base: 12."""
    decoder_heads: int = 3
    """Attention heads of the decoder. Small decoder: 16; base: 12."""
    positions: Literal["rope", "cosine"] = "rope"
    """rope: queries and keys are turned by row and column (the second paper); cosine: fixed tables, added (the first)."""
    mask_ratio: float = 0.9
    """Share of the first view's patches that are hidden. The paper: 0.9; it tried 0.75 to 0.95."""
    normalise_memory: bool = True
    """Every decoder block normalises the second view anew (norm_im2_in_dec)."""
    normalise_targets: bool = True
    """Predict each patch less its mean, over its deviation (norm_pix_loss)."""
    score: Literal["masked", "all"] = "masked"
    """Patches that the loss counts: the hidden ones, or all."""
    second_view: Literal["paired", "other", "none"] = "paired"
    """paired: the method. other: the second view of another pair, a control. none: no second view and no cross-attention, which is MAE with this
    network."""
    colour_jitter: float = 0.4
    """Brightness, contrast and saturation of each view are multiplied by 1 - x to 1 + x, drawn for each view alone. The paper: 0.4; 0: none."""

    def check(self, data: PairConfig | None = None) -> None:
        """Refuses what no run can have, before an image is read. Raises UsageError."""
        check_images(self, data)
        if not 0 < self.mask_ratio < 1:
            raise UsageError(f"--method.mask-ratio is {self.mask_ratio}.", "Give a share between 0 and 1; the paper: 0.9.")
        if not 0 <= self.colour_jitter <= 1:
            raise UsageError(f"--method.colour-jitter is {self.colour_jitter}.", "Give a number from 0 to 1; the paper: 0.4.")
        places = patches_of(self)
        refuse_unseen(kept_patches(places, self.mask_ratio), places, self.mask_ratio, FIRST_VIEW)


def kept_patches(total: int, ratio: float) -> int:
    """How many patches are seen: all but int(ratio * total), as models/masking.py counts (196 at .9: 20)."""
    return total - int(ratio * total)


V1_EPOCH = 1_800_000 // 256
"""Updates of 256 pairs in one epoch of the first paper's 1.8 million rendered pairs."""
V2_PAIRS = 7_100_000
"""Rendered and real pairs of the second paper (the number of real ones is from memory)."""


def _adamw(learning_rate: float) -> dict[str, Any]:
    return {"learning_rate": learning_rate, "beta2": 0.95, "weight_decay": 0.05, "clip_norm": None}


def _v2(batch: int, **sizes: Any) -> Preset:
    """The release: a cosine for 250 epochs, stopped after 125, 12 of them warm-up; blr 1.5e-4 (times batch / 256)."""
    return Preset(
        CroCoConfig(image_size=224, patch_size=16, positions="rope", **sizes),
        batch=batch,
        optimizer=_adamw(1.5e-4 * batch / 256),
        schedule={"name": "cosine", "warmup_share": 12 / 125, "run_share": 125 / 250},
        data={"size": 256},
        steps=125 * (V2_PAIRS // batch),
    )


_BASE: dict[str, Any] = {"hidden_size": 768, "num_layers": 12, "num_heads": 12}
_LARGE: dict[str, Any] = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16}
_SMALL_DECODER: dict[str, Any] = {"decoder_hidden_size": 512, "decoder_layers": 8, "decoder_heads": 16}
_BASE_DECODER: dict[str, Any] = {"decoder_hidden_size": 768, "decoder_layers": 12, "decoder_heads": 12}

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        CroCoConfig(),
        batch=64,
        optimizer=_adamw(1e-3),
        schedule={"name": "cosine", "warmup_share": 0.1},
        data={"size": 72},
    ),
    "v1-base": Preset(
        CroCoConfig(image_size=224, patch_size=16, positions="cosine", **_BASE, **_SMALL_DECODER),
        batch=256,
        optimizer=_adamw(1.5e-4),
        schedule={"name": "cosine", "warmup_share": 40 / 400, "run_share": 400 / 800},
        data={"size": 256},
        steps=400 * V1_EPOCH,
    ),
    "v2-base-small": _v2(256, **_BASE, **_SMALL_DECODER),
    "v2-base": _v2(256, **_BASE, **_BASE_DECODER),
    "v2-large": _v2(512, **_LARGE, **_BASE_DECODER),
}

SETTINGS = Settings(catalog.card("croco"), CroCoConfig, PRESETS, PairConfig, "image", Sizing())
