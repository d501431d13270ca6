"""What a run compiles: its training step, and nothing that only looks at the network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart.engine.config import OptimizerConfig
from tests.engine.toy import Toy, ToyRows, trainer_of


class Map(nn.Module):
    """A linear map; torch compiles none of its own modules by themselves."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


@pytest.mark.parametrize("ema_decay", [None, 0.9], ids=["own weights", "averaged weights"])
def test_evaluations_and_exports_compile_nothing(tmp_path: Path, ema_decay: float | None) -> None:
    """They come in other shapes and modes than the training step, and each of those would be compiled for a minute."""
    torch.compiler.reset()
    compiled: list[list[tuple[int, ...]]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        compiled.append([tuple(tensor.shape) for tensor in inputs if isinstance(tensor, torch.Tensor)])
        return graph.forward

    method = Toy()
    method.map = Map(method.map)  # type: ignore[assignment]
    method.map.compile(backend=backend)
    trainer = trainer_of(method, tmp_path / "run", 6, OptimizerConfig(), evaluate_every=2, checkpoint_every=2, ema_decay=ema_decay)
    trainer.decisions = dataclasses.replace(trainer.decisions, compile=True)
    x = torch.from_numpy(ToyRows().x)
    trainer.held_out = [{"x": x[:16]}, {"x": x[16:21]}]
    trainer.probes = {"norm": lambda method: float(method.embed({"x": x[:3]}).norm())}
    trainer.fit()
    assert len((tmp_path / "run" / "probes.jsonl").read_text().splitlines()) >= 6
    assert len(compiled) == 1  # not one for evaluations, for their last batch, for the probe
    torch.compiler.reset()
