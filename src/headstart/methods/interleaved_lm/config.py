"""Settings and presets of interleaved-lm: InfiMM-WebMath's three stages (arXiv 2409.12568, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from headstart import catalog
from headstart.core.bounds import COUNT, refuse_outside
from headstart.data.interleaved.config import InterleavedConfig
from headstart.engine.config import Preset, Settings
from headstart.engine.text_settings import check_network

BOUNDS = dict.fromkeys(("latents", "resampler_layers", "resampler_heads", "resampler_head_size", "max_images"), COUNT)
Stage: TypeAlias = Literal["alignment", "continued", "instruction"]


@dataclass
class InterleavedLMConfig:
    """What is trained in which stage, and how images become tokens. The language model comes with --init; otherwise the last four settings shape
    one."""

    stage: Stage = "continued"
    """alignment: the resampler and its projection learn, the language model is frozen. continued: both learn. instruction: both learn, from answers
    alone. The vision tower is frozen in all."""
    vision_tower: str | None = None
    """A folder of transformers with a network that sees pictures (SigLIP, CLIP, ViT, DINOv2, ConvNeXt ...). None: that of the model in --init."""
    latents: int = 64
    """Tokens that an image becomes. The paper: 64."""
    resampler_layers: int = 3
    """Blocks of the resampler. The paper: 3."""
    resampler_heads: int = 16
    """Its attention heads."""
    resampler_head_size: int = 72
    """Width of each."""
    max_images: int = 32
    """Images of a row; those beyond it are left out with their markers. The paper: 32."""
    sequence_length: int = 4096
    """Places of a row, those of images among them. The paper: 4,096."""
    pack: bool = True
    """Documents are concatenated to rows, with their end token between them. Off: each begins a row of its own."""
    cache_features: Literal["auto", "on", "off"] = "auto"
    """Keep the frozen tower's features of every image beside the store (half precision), computed once. auto: where they take at most 16 GiB and half
    of the free disk."""
    hidden_size: int = 128
    """Without --init: width of the language model."""
    num_layers: int = 2
    """Without --init: its blocks."""
    num_heads: int = 2
    """Without --init: its attention heads."""
    intermediate_size: int = 384
    """Without --init: width of each of the two gates of its MLP."""

    def check(self, data: InterleavedConfig | None = None) -> None:
        """Refuses what no run can have, before a document is read. Raises UsageError."""
        self.check_own()
        check_network(self.hidden_size, self.num_layers, self.num_heads, self.intermediate_size, 0.0, self.sequence_length)

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        refuse_outside({name: getattr(self, name) for name in BOUNDS}, BOUNDS, "method.")


ADAMW: dict[str, Any] = {"weight_decay": 0.1, "beta1": 0.9, "beta2": 0.95}
"""Of all stages (the paper's table)."""

PRESETS: dict[str, Preset] = {
    "tiny": Preset(  # ours: what learns on a CPU within minutes
        InterleavedLMConfig(latents=4, resampler_layers=2, resampler_heads=4, resampler_head_size=16, max_images=8, sequence_length=128),
        batch=32,
        optimizer={"learning_rate": 2e-3, **ADAMW},
        schedule={"name": "cosine", "warmup_share": 0.05},
        data={"vocab_size": 2048, "image_size": 32},
    ),
    "paper-alignment": Preset(
        InterleavedLMConfig("alignment"),
        batch=256,
        optimizer={"learning_rate": 1e-4, **ADAMW},
        schedule={"name": "cosine", "warmup_share": 0.03},
        data={"image_size": 384},
    ),
    "paper-continued": Preset(
        InterleavedLMConfig("continued"),
        batch=128,
        optimizer={"learning_rate": 5e-5, **ADAMW},
        schedule={"name": "cosine", "warmup_share": 0.03},
        data={"image_size": 384},
    ),
    "paper-instruction": Preset(
        InterleavedLMConfig("instruction"),
        batch=32,  # one a GPU on 32
        optimizer={"learning_rate": 5e-6, **ADAMW},
        schedule={"name": "cosine", "warmup_steps": 2000, "minimum_share": 0.1},
        data={"image_size": 384},
    ),
}

SETTINGS = Settings(catalog.card("interleaved-lm"), InterleavedLMConfig, PRESETS, InterleavedConfig, "interleaved")
