"""The mean loss of a fine-tuning's epoch, and an end that is no number."""

from __future__ import annotations

import pytest
import torch

from headstart.core.errors import Diverged
from headstart.tasks.epoch_loss import EpochLoss


def losses() -> EpochLoss:
    return EpochLoss(8, 1e-3, torch.device("cpu"), lambda line: None)


def test_the_mean_is_over_the_examples_of_the_last_epoch() -> None:
    of = losses()
    of.begin_epoch()
    of.add(torch.tensor(100.0))
    of.end_step(0, 4)
    of.begin_epoch()
    for step, (parts, count) in enumerate([((2.0, 4.0), 4), ((3.0,), 2)], 1):
        for part in parts:
            of.add(torch.tensor(part, requires_grad=True))
        of.end_step(step, count)
    assert of.mean() == pytest.approx((2 + 4 + 3) / 6)
    assert not of.sum.requires_grad, "no step's graph is kept"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused_with_its_rate(value: float) -> None:
    of = losses()
    of.add(torch.tensor(value))
    of.end_step(0)
    with pytest.raises(Diverged, match=r"learning rate 0\.001"):
        of.mean()
