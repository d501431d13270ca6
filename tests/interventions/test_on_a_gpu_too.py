"""Every intervention around a method trains on a GPU: no tensor of the CPU meets one of the device, and no step waits (tests/pretended_gpu.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart import methods
from headstart.core.config import replace_nested
from headstart.interventions.base import wrap
from headstart.verbs.config import preset_config
from tests.interventions.test_captured import BY_SLUG, ONLINE
from tests.methods.test_captured_steps import built
from tests.methods.test_on_a_gpu import trained_and_evaluated
from tests.pretended_gpu import PretendedGpu, pretended_gpu, to_gpu

__all__ = ["pretended_gpu"]


@pytest.mark.parametrize("intervention", sorted(BY_SLUG))
def test_an_intervention_on_a_gpu(intervention: str, pretended_gpu: PretendedGpu, tmp_path: Path) -> None:
    inner, batches = built("causal-lm", tmp_path)
    entry = BY_SLUG[intervention]
    switched = {f"{entry.group}.{name}": value for name, value in {**entry.example, **ONLINE.get(intervention, {})}.items()}
    config = replace_nested(preset_config(methods.load("causal-lm"), "tiny")[1], {"init": tmp_path, **switched})
    method = to_gpu(wrap(inner, config)).train()
    with pretended_gpu:
        trained_and_evaluated(method, batches, pretended_gpu)
        for probe in method.probes().values():
            probe(method)
