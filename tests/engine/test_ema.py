"""The weight average by hand, and its round trips."""

import io

import pytest
import torch
from torch import nn

from headstart.core.errors import UsageError
from headstart.engine.ema import Ema


def line(value: float) -> nn.Linear:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, value)
    nn.init.constant_(model.bias, 0.0)
    return model


def test_the_average_follows_by_one_minus_decay() -> None:
    model = line(1.0)
    ema = Ema(model, decay=0.9)
    for value in (2.0, 3.0):
        nn.init.constant_(model.weight, value)
        ema.update()
    with ema.swapped():
        assert model.weight.item() == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3)
    assert model.weight.item() == 3.0


def test_the_models_own_weights_come_back_after_an_error_at_the_same_address() -> None:
    model = line(1.0)
    ema = Ema(model, decay=0.5)
    nn.init.constant_(model.weight, 5.0)
    address = model.weight.data_ptr()
    with pytest.raises(ZeroDivisionError), ema.swapped():
        1 / (model.weight.item() - 1.0)  # the average is 1
    assert model.weight.item() == 5.0
    assert model.weight.data_ptr() == address


def test_shared_weights_are_averaged_once() -> None:
    model = nn.Sequential(line(1.0), line(1.0))
    model[1].weight = model[0].weight
    ema = Ema(model, decay=0.5)
    nn.init.constant_(model[0].weight, 3.0)
    ema.update()
    with ema.swapped():
        assert model[1].weight.item() == 2.0


def test_the_saved_average_goes_on_exactly() -> None:
    model = nn.Linear(3, 3)
    ema = Ema(model, decay=0.9)
    nn.init.normal_(model.weight)
    ema.update()
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    again = Ema(nn.Linear(3, 3), decay=0.9)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(ema.average, again.average, strict=True))


def test_a_foreign_average_and_an_impossible_decay_are_refused() -> None:
    with pytest.raises(UsageError, match="another model"):
        Ema(nn.Linear(2, 2), 0.9).load_state_dict(Ema(nn.Sequential(nn.Linear(2, 2)), 0.9).state_dict())
    with pytest.raises(UsageError, match=r"1\.0"):
        Ema(nn.Linear(2, 2), 1.0)
