"""The smallest method: a linear map learns to undo a fixed one. For tests of the engine, where no text is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.engine.method import Batch, Context, Method, Phase

WIDTH = 6


@dataclass
class ToyConfig:
    first: int = 0
    """Steps of a first phase in which the bias does not learn."""
    noise: float = 0.1
    """Drawn through ctx.rng."""
    dropout: float = 0.0
    """Of the input."""


class ToyRows:
    """256 rows of numbers."""

    def __init__(self) -> None:
        self.x = np.random.default_rng(0).normal(size=(256, WIDTH)).astype(np.float32)
        self.length = WIDTH
        self.n_tokens = self.x.size

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        return {"x": self.x[rows]}


class Toy(Method):
    Config = ToyConfig

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__()
        self.config = config or ToyConfig()
        self.map = nn.Linear(WIDTH, WIDTH)
        self.fixed = nn.Buffer(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)))
        self.started: list[str] = []

    def phases(self, total_steps: int) -> list[Phase]:
        if not self.config.first:
            return [Phase("train")]
        begin = Phase("frozen", self.config.first, trainable=lambda name: not name.endswith("bias"))
        return [begin, Phase("train", on_start=lambda: self.started.append("train"), fresh_optimizer=True)]

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        x = nn.functional.dropout(batch["x"], self.config.dropout, self.training)
        noise = ctx.rng.normal("noise", WIDTH) * self.config.noise
        kept = ctx.rng.uniform("kept", WIDTH) < 0.7  # rows keep different numbers of targets
        error = (self.map(x @ self.fixed + noise) - batch["x"]).square()
        loss = (error * kept).sum() / kept.sum()
        return {"loss": loss, "kept": kept.float().mean(), "weight": kept.sum().float()}

    def backbone(self) -> nn.Module:
        return self.map

    def embed(self, batch: Batch) -> Tensor:
        return self.map(batch["x"] @ self.fixed)

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file(dict(self.map.state_dict()), folder / "map.safetensors")

    def reload(self, folder: Path) -> Toy:
        again = Toy(self.config)
        again.map.load_state_dict(load_file(folder / "map.safetensors"))
        return again
