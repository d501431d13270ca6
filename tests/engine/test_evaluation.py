"""Held-out metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headstart.engine.evaluation import evaluate
from tests.engine.toy import Toy, ToyRows


def test_the_held_out_loss_does_not_depend_on_how_the_rows_are_cut() -> None:
    """Rows have different numbers of targets: a mean of the batches' means would count those of the small batch more."""
    method = Toy()
    x = torch.from_numpy(ToyRows().batch(np.arange(40))["x"])
    losses = [
        evaluate(method, [{"x": part} for part in x.split(sizes)], "train", "fp32", torch.device("cpu"), 0, 10)["held_out/loss"]
        for sizes in ([40], [1, 39], [7, 23, 10])
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
