"""An update with an intervention around the method, captured as a CUDA graph, is the plain one (tests/cuda_graphs.py)."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from headstart import interventions, methods
from headstart.core.config import replace_nested
from headstart.engine.update import GRAPH_AFTER
from headstart.interventions.base import wrap
from headstart.verbs.config import preset_config
from tests.cuda_graphs import CudaGraph, cuda_graphs
from tests.methods.test_captured_steps import STEPS, built, train

__all__ = ["cuda_graphs"]
BY_SLUG = {entry.card.slug: entry for entry in interventions.settings()}
ONLINE = {"self_distill": {"features": "online"}}
"""What keeps a batch as the store gives it."""


@pytest.mark.parametrize("intervention", sorted(BY_SLUG))
def test_a_captured_update_with_an_intervention_is_the_plain_one(intervention: str, cuda_graphs: list[CudaGraph], tmp_path: Path) -> None:
    inner, batches = built("causal-lm", tmp_path)
    entry = BY_SLUG[intervention]
    switched = {f"{entry.group}.{name}": value for name, value in {**entry.example, **ONLINE.get(intervention, {})}.items()}
    config = replace_nested(preset_config(methods.load("causal-lm"), "tiny")[1], {"init": tmp_path, **switched})
    method = wrap(inner, config).train()
    for number, phase in enumerate(method.phases(90)):
        if phase.on_start is not None:
            with torch.no_grad():  # as if the phase before it had learned something
                for parameter in inner.parameters():
                    parameter.mul_(1.01)
            phase.on_start()
        plain, weights = train(copy.deepcopy(method), phase, batches, graph=False)
        captured, own = train(copy.deepcopy(method), phase, batches, graph=True)
        assert cuda_graphs[number].replays == STEPS - GRAPH_AFTER
        assert captured == [pytest.approx(scalars, rel=1e-5, abs=1e-7) for scalars in plain]
        for name, value in weights.items():
            torch.testing.assert_close(own[name], value, rtol=1e-5, atol=1e-6)
