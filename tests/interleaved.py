"""What tests of interleaved-lm share: documents with images, and a small vision tower in the form of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import SiglipVisionConfig, SiglipVisionModel

from headstart.core.files import write_json
from headstart.interop.vision_tower import PREPROCESSOR, preprocessor
from tests.data.interleaved.conftest import page, write_images, write_lines

TINY: dict[str, Any] = {
    "batch": 8,
    "device": "cpu",
    "precision": "fp32",
    "trainer.micro_batch": 8,
    "method.hidden_size": 32,
    "method.num_layers": 1,
    "method.num_heads": 2,
    "method.intermediate_size": 48,
    "method.sequence_length": 64,
    "method.latents": 4,
    "method.resampler_layers": 1,
    "interleaved.vocab_size": 300,
    "interleaved.image_size": 8,
    "interleaved.held_out_share": 0.2,
}


def write_tower(folder: Path, size: int = 8) -> Path:
    """A SigLIP tower of four patches with random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": size}
        model = SiglipVisionModel(SiglipVisionConfig(**sizes, patch_size=4, vision_use_head=False))
    model.save_pretrained(folder)
    write_json(folder / PREPROCESSOR, preprocessor(size, [0.5] * 3, [0.5] * 3))
    return folder


def write_pages(folder: Path, count: int = 40) -> Path:
    """Documents, every fourth without an image."""
    names = write_images(folder, 12)
    return write_lines(folder / "pages.jsonl", [page(n, None if n % 4 == 3 else names[n % 12]) for n in range(count)])
