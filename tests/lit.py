"""Images of two classes that a tiny vision transformer can tell apart, and such a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from headstart.backbones.vit import ViT, ViTConfig
from headstart.interop.vit import save_vit
from headstart.tasks.image_data import ImageData


def lit(count: int, seed: int, by: int = 60) -> ImageData:
    """Grey images whose left or right half is brighter by so much."""
    images = np.random.default_rng(seed).integers(0, 120, (count, 1, 16, 16)).astype(np.uint8)
    labels = np.arange(count) % 2
    for image, label in zip(images, labels, strict=True):
        image[..., 8 * label : 8 * label + 8] += by
    return ImageData(images, labels, ["left", "right"])


def small_vit(folder: Path, seed: int = 0) -> Path:
    """A vision transformer of random weights, into `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ViT(ViTConfig(image_size=(16, 16), patch_size=4, channels=1, hidden_size=24, num_layers=2, num_heads=2))
    save_vit(network, folder)
    return folder
