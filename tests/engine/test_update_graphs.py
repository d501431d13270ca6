"""An update as a CUDA graph is the plain update; on a CPU, with what a graph does to a program (tests/cuda_graphs.py)."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.engine.config import OptimizerConfig, OptimizerName
from headstart.engine.guard import Guard
from headstart.engine.method import Batch, Context
from headstart.engine.optim import build_optimizer, set_learning_rate
from headstart.engine.update import GRAPH_AFTER, MAX_GRAPHS, Update
from tests.cuda_graphs import CudaGraph, cuda_graphs
from tests.engine.toy import Toy, ToyConfig, ToyRows

__all__ = ["cuda_graphs"]
CPU = torch.device("cpu")
STEPS = 9
X = torch.from_numpy(ToyRows().x)


def update_of(method: Toy, config: OptimizerConfig, *, graph: bool, guard: Guard | None = None) -> Update:
    optimizer = build_optimizer(method, config, cuda_graph=graph)
    return Update(
        method, optimizer, clip_norm=config.clip_norm, clip_each=config.clip_each, precision="fp32", device=CPU, seed=3, total_steps=STEPS,
        guard=guard, graph=graph,
    )  # fmt: skip


def train(config: OptimizerConfig, *, graph: bool, micro_batch: int = 8, bad: int | None = None) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Scalars of each step, and the weights. Rates, rows, draws and dropout differ from step to step; a step `bad` has a row that is infinite."""
    torch.manual_seed(0)
    method = Toy(ToyConfig(dropout=0.3))
    update = update_of(method, config, graph=graph, guard=Guard(CPU, "skip", 10))
    found = []
    for step in range(STEPS):
        set_learning_rate(update.optimizer, config.learning_rate / (1 + step))
        rows = X[8 * step : 8 * step + 8].clone()
        if step == bad:
            rows[0] = float("inf")
        scalars = update([{"x": part} for part in rows.split(micro_batch)], list(torch.arange(8).split(micro_batch)), step, "train")
        found.append({name: float(value) for name, value in scalars.items()})
    return found, {name: value.clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize("name", OptimizerName.__args__)  # type: ignore[attr-defined]
def test_a_captured_update_is_the_plain_one(name: Any, cuda_graphs: list[CudaGraph]) -> None:
    config = OptimizerConfig(name=name, learning_rate=0.05, clip_norm=0.1)
    plain, weights = train(config, graph=False)
    captured, own = train(config, graph=True)
    assert [graph.replays for graph in cuda_graphs] == [STEPS - GRAPH_AFTER]
    assert captured == [pytest.approx(scalars, rel=1e-6) for scalars in plain]
    for key, value in weights.items():
        torch.testing.assert_close(own[key], value, rtol=1e-6, atol=1e-7)


def test_a_captured_update_leaves_out_a_step_that_is_not_finite(cuda_graphs: list[CudaGraph]) -> None:
    config = OptimizerConfig(learning_rate=0.05, clip_each=True, clip_norm=0.1)
    _, weights = train(config, graph=False, bad=GRAPH_AFTER + 2)
    _, own = train(config, graph=True, bad=GRAPH_AFTER + 2)
    assert all(torch.equal(own[key], value) and bool(value.isfinite().all()) for key, value in weights.items())


def test_micro_batches_are_captured_together(cuda_graphs: list[CudaGraph]) -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(learning_rate=0.05)
    update, cut = (update_of(Toy(), config, graph=True) for _ in range(2))
    cut.method.load_state_dict(update.method.state_dict())
    for step in range(STEPS):
        rows = X[8 * step : 8 * step + 8]
        whole = update([{"x": rows}], [torch.arange(8)], step, "train")
        parts = cut([{"x": part} for part in rows.split(2)], list(torch.arange(8).split(2)), step, "train")
        assert float(parts["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-5)
    assert [graph.replays for graph in cuda_graphs] == [STEPS - GRAPH_AFTER] * 2


class Staged(Toy):
    """Rows with and without a mask, in phases that each have a loss of their own."""

    def loss(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        found = super().loss(batch, ctx)
        return {**found, "loss": found["loss"] * (1 + int(ctx.phase))}


def test_every_phase_has_its_own_graphs(cuda_graphs: list[CudaGraph]) -> None:
    """However many shapes the phases before it had: the last one takes most of a run."""
    method = Staged()
    update = update_of(method, OptimizerConfig(), graph=True)
    step = 0
    for phase in range(3):
        for rows in (8, 4):
            for _ in range(GRAPH_AFTER + 2):
                update([{"x": X[:rows]}], [torch.arange(rows)], step, str(phase))
                step += 1
    assert [graph.replays for graph in cuda_graphs] == [2] * 6
    assert len(cuda_graphs) > MAX_GRAPHS
    assert len(update._graphs) == 2  # those of the earlier phases are gone, with their memory


def test_the_graphs_of_an_update_that_is_over_are_gone(cuda_graphs: list[CudaGraph]) -> None:
    """At once, not when Python next looks for cycles: a trial's graph holds the activations of a whole step, and the run wants that memory."""
    update = update_of(Toy(), OptimizerConfig(), graph=True)
    for step in range(GRAPH_AFTER + 1):
        update([{"x": X[:8]}], [torch.arange(8)], step, "train")
    (graph,) = (weakref.ref(entry) for entry in update._graphs.values())
    gc.disable()
    try:
        del update
        assert graph() is None
    finally:
        gc.enable()
