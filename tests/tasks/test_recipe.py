"""Fine-tuning settings by the size of the network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.recipe import LARGE_NETWORK, MIDDLE_NETWORK, chosen, epochs, network_size, settings


@pytest.mark.parametrize(
    ("parameters", "recipe", "rate"),
    [
        (600_000, "small", 1e-3),
        (MIDDLE_NETWORK - 1, "small", 1e-3),
        (MIDDLE_NETWORK, "small", 3e-4),
        (LARGE_NETWORK - 1, "small", 3e-4),
        (LARGE_NETWORK, "electra", 1e-4),
        (110_000_000, "electra", 1e-4),
    ],
)
def test_the_size_of_the_network_decides(parameters: int, recipe: str, rate: float) -> None:
    name = chosen("auto", parameters)
    assert name == recipe
    assert dataclasses.replace(FinetuneConfig(), **settings(name, parameters)).learning_rate == rate


def test_a_recipe_that_is_named_is_taken_for_every_size() -> None:
    assert settings(chosen("electra", 1), 1) == {}, "the official settings are the defaults of FinetuneConfig"
    assert chosen("small", 10**9) == "small"


def test_few_labels_are_passed_over_until_there_are_a_hundred_steps() -> None:
    config = FinetuneConfig(epochs=3, batch=32)
    assert epochs(config, 64) == 50
    assert epochs(config, 8) == 100, "a batch of eight"
    assert epochs(config, 32_000) == 3


def test_the_size_of_a_network_is_counted(electra: Path) -> None:
    assert network_size(electra) == sum(p.numel() for p in load_encoder(electra).module.parameters())
