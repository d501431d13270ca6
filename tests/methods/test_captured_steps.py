"""A step of every method, in every phase, is the same when it is captured as a CUDA graph: nothing in it is decided anew by the host."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart import methods
from headstart.backbones.kernels import use_fast_kernels
from headstart.core.config import replace_nested
from headstart.engine.config import OptimizerConfig
from headstart.engine.guard import Guard
from headstart.engine.method import Batch, Method, Phase
from headstart.engine.optim import build_optimizer, set_learning_rate
from headstart.engine.update import GRAPH_AFTER, Update
from headstart.verbs.config import preset_config
from tests.cuda_graphs import CudaGraph, cuda_graphs
from tests.golden.record import OF_METHOD, corpus

__all__ = ["cuda_graphs"]
ROWS, STEPS = 4, GRAPH_AFTER + 4


def of_group(slug: str, group: str) -> dict[str, Any]:
    return {name.removeprefix(f"{group}."): value for name, value in OF_METHOD[slug].items() if name.startswith(f"{group}.")}


def built(slug: str, folder: Path, **changed: Any) -> tuple[Method, list[Batch]]:
    """The method of the golden traces, and batches of one shape."""
    method_class = methods.load(slug)
    data = method_class.DataConfig(**of_group(slug, method_class.data_group))
    store = method_class.prepare(corpus(slug, folder), folder / "store", data)
    config = replace_nested(preset_config(method_class, "tiny")[1].method, {**of_group(slug, "method"), **changed})
    torch.manual_seed(0)
    method = method_class(config, store)
    use_fast_kernels(method)
    (rows,) = method.training_rows([method_class.rows(store, method.config)])
    batches = [rows.batch(np.arange(ROWS * step, ROWS * (step + 1)) % len(rows)) for step in range(STEPS)]
    tensors = [{name: torch.as_tensor(value) for name, value in batch.items()} for batch in batches]
    if any("attention_mask" in batch for batch in tensors):
        tensors = [{"attention_mask": torch.ones_like(batch["input_ids"], dtype=torch.bool), **batch} for batch in tensors]
    return method, tensors


def train(method: Method, phase: Phase, batches: list[Batch], *, graph: bool) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Scalars of each step, and what the method holds after the last."""
    device = torch.device("cpu")
    for name, parameter in method.named_parameters():
        parameter.requires_grad_(phase.trainable is None or phase.trainable(name))
    optimizer = build_optimizer(method, OptimizerConfig(learning_rate=1e-3), cuda_graph=graph)
    update = Update(
        method, optimizer, clip_norm=1.0, precision="fp32", device=device, seed=0, total_steps=90, guard=Guard(device, "stop", 10), graph=graph
    )
    found = []
    for step, batch in enumerate(batches):
        set_learning_rate(optimizer, 1e-3 * (step + 1) / len(batches))
        scalars = update([batch], [torch.arange(ROWS)], step, phase.name)
        found.append({name: float(value) for name, value in scalars.items()})
    return found, {name: value.detach().clone() for name, value in method.state_dict().items()}


@pytest.mark.parametrize("slug", OF_METHOD)
def test_a_captured_step_is_the_plain_one(slug: str, cuda_graphs: list[CudaGraph], tmp_path: Path) -> None:
    method, batches = built(slug, tmp_path)
    method.train()
    for number, phase in enumerate(method.phases(90)):
        plain, weights = train(copy.deepcopy(method), phase, batches, graph=False)
        captured, own = train(copy.deepcopy(method), phase, batches, graph=True)
        assert len(cuda_graphs) == number + 1
        assert cuda_graphs[number].replays == STEPS - GRAPH_AFTER
        assert captured == [pytest.approx(scalars, rel=1e-5, abs=1e-7, nan_ok=True) for scalars in plain]
        for name, value in weights.items():
            torch.testing.assert_close(own[name], value, rtol=1e-5, atol=1e-6, equal_nan=True)
