"""A small DropPos on images of noise, for the tests of the method."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.engine.method import Context
from headstart.methods.droppos.config import DropPosConfig
from headstart.methods.droppos.method import DropPos


def facts(channels: int = 3, size: int = 28) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(channels=channels, height=size, width=size, mean=[120.0] * channels, std=[60.0] * channels, dtype=np.dtype(np.uint8))


def small(**changes: Any) -> DropPosConfig:
    """Settings of a network of 49 places."""
    settings: dict[str, Any] = {"image_size": 28, "hidden_size": 48, "num_layers": 2, "num_heads": 3, "decoder_hidden_size": 64, "decoder_layers": 1}
    return DropPosConfig(**settings | changes)


def method(seed: int = 0, channels: int = 3, **changes: Any) -> DropPos:
    """A new network; its weights follow from `seed`."""
    torch.manual_seed(seed)
    return DropPos(small(**changes), facts(channels))


def pixels(rows: int = 6, channels: int = 3, size: int = 28, seed: int = 0) -> dict[str, Tensor]:
    """A batch of images of noise."""
    return {"images": torch.randint(0, 256, (rows, channels, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)}


def context(step: int = 0, rows: int = 6, total: int = 100) -> Context:
    """What a step is told."""
    return Context(step, total, "train", Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))
