"""The smallest method: a linear map learns to undo a fixed one; and a trainer of any method. For tests of the engine, where no text is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from headstart.core.run import RunFolder
from headstart.data.loader import Loader
from headstart.data.mixture import Mixture
from headstart.engine.config import OptimizerConfig
from headstart.engine.method import Batch, Context, Method, Phase
from headstart.engine.schedules import ScheduleConfig
from headstart.engine.trainer import Trainer, TrainerConfig
from headstart.engine.trial import Decisions
from tests.running import quiet

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


def trainer_of(
    method: Method,
    folder: Path,
    steps: int,
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig | None = None,
    *,
    parts: Sequence[Any] = (),
    seed: int = 0,
    say: Callable[[str], None] = quiet,
    **settings: Any,
) -> Trainer:
    """A run of batches of 8 on one process, with everything decided that a trial decides.

    Args:
        parts: rows to train on; none: `ToyRows`.
        settings: of `TrainerConfig`.
    """
    names = [phase.name for phase in method.phases(steps)]
    decisions = Decisions(
        total_steps=steps, precision="fp32", micro_batch=8, threads=1, compile=False, cuda_graph=False, why={}, peak_flops=1e9,
        flops_per_step=dict.fromkeys(names, 1), seconds_per_step=dict.fromkeys(names, 1e-3),
    )  # fmt: skip
    run = RunFolder(folder)
    run.update(status="running")
    return Trainer(
        method,
        run,
        Loader(Mixture(parts or [ToyRows()], None, seed, by="rows"), 8),
        held_out=None,
        optimizer=optimizer,
        schedule=schedule or ScheduleConfig(),
        config=TrainerConfig(**settings),
        decisions=decisions,
        device=torch.device("cpu"),
        seed=seed,
        say=say,
    )
