"""A step of no method, in no phase, reads anything back from the device (docs/guides/add-a-method.md); on the methods of the golden traces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart import methods
from headstart.backbones.kernels import use_fast_kernels
from headstart.core.config import replace_nested
from headstart.core.rng import Rng
from headstart.engine.method import Context
from headstart.verbs.config import preset_config
from tests.golden.record import OF_METHOD, corpus
from tests.no_waiting import NoWaiting

ROWS = 4


def of_group(slug: str, group: str) -> dict[str, Any]:
    return {name.removeprefix(f"{group}."): value for name, value in OF_METHOD[slug].items() if name.startswith(f"{group}.")}


@pytest.mark.parametrize("slug", OF_METHOD)
def test_no_step_waits_for_the_device(slug: str, tmp_path: Path) -> None:
    method_class = methods.load(slug)
    data = method_class.DataConfig(**of_group(slug, method_class.data_group))
    store = method_class.prepare(corpus(slug, tmp_path), tmp_path / "store", data)
    method = method_class(replace_nested(preset_config(method_class, "tiny")[1].method, of_group(slug, "method")), store)
    use_fast_kernels(method)
    (rows,) = method.training_rows([method_class.rows(store, method.config)])
    batch = {name: torch.as_tensor(value) for name, value in rows.batch(np.arange(ROWS)).items()}
    for phase in method.phases(90):
        context = Context(0, 90, phase.name, Rng.at(0, 0, torch.arange(ROWS)), torch.device("cpu"), at=torch.tensor(0))
        method.loss(batch, context)  # makes what is made once
        with NoWaiting():
            scalars = method.loss(batch, context)
            scalars["loss"].backward()
            method.observe({name: value.detach() for name, value in scalars.items()})
