"""What all methods share that make their data themselves: they read an `EnvironmentStore`, and let their own networks build objects in every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.data.environments.config import EnvironmentConfig
from headstart.data.environments.store import EnvironmentStore, TrajectoryRows, open_environment_store, prepare_environment
from headstart.engine.method import Batch, Context, Method


class EnvironmentMethod(Method):
    """A method whose batch is `trajectory` int64 [batch], numbers alone; what it trains on it collects itself.

    A step is `loss` = `score` of what `collect` made, so nothing else of the engine knows of it: the FLOPs of collecting are counted, a micro-batch
    collects its own rows, and a resumed run the same ones again, since all randomness comes from `ctx.rng` (docs/decisions/0016-data-made-online.md).

    Args:
        config: the method's own Config.
        store: the prepared environment.
        init: an export to continue from.
    """

    DataConfig = EnvironmentConfig
    data_group = "environment"

    def __init__(self, config: Any, store: EnvironmentStore, init: Path | None = None) -> None:
        super().__init__()
        self.config, self.store, self.environment = config, store, store.environment

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: EnvironmentConfig) -> EnvironmentStore:
        return prepare_environment(sources, out, data)

    @classmethod
    def open_store(cls, folder: Path) -> EnvironmentStore:
        return open_environment_store(folder)

    @classmethod
    def rows(cls, store: EnvironmentStore, config: Any, split: Literal["train", "held_out"] = "train") -> TrajectoryRows:
        return TrajectoryRows(split)

    @classmethod
    def smoke_source(
        cls, sources: Sequence[str | Path], folder: Path, data: EnvironmentConfig, records: int
    ) -> tuple[list[str], EnvironmentConfig]:
        return [str(source) for source in sources], data  # no records are read

    def collect(self, batch: Batch, ctx: Context) -> Batch:
        """The data of these rows, made by the networks as they are now. Called without gradients; draws from `ctx.rng` alone."""
        raise NotImplementedError

    def score(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """What `Method.loss` returns, of collected data."""
        raise NotImplementedError

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        with torch.no_grad():
            collected = self.collect(batch, ctx)
        return self.score(collected, ctx)

    def reload(self, folder: Path) -> Method:
        return type(self)(self.config, self.store, init=folder)

    def encode(self, records: Sequence[Any]) -> Batch:
        """Objects as a person writes them, as a batch for `embed` and `show`."""
        return {"outcome": self.environment.from_text([str(record) for record in records])}

    def targets(self, batch: Batch, rng: Rng) -> Tensor:
        """int64 [batch, state_size]: the objects that rows ask for; random ones unless a person named them."""
        if "outcome" in batch:
            return batch["outcome"]
        return self.environment.draw(rng.uniform("target", self.environment.state_size + 1))
