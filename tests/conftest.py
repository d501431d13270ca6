"""What several rooms of the tests share: a small corpus, its store, and one finished run."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: more threads only wait for each other, and a trial that may choose is not the same twice

import torch
from hypothesis import settings

from tests.corpus import write_corpus

settings.register_profile("the same examples every time", derandomize=True, deadline=None, database=None)
settings.load_profile("the same examples every time")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The processes of pytest-xdist must collect the same names: one with an object's address differs from process to process."""
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: give its parameters names (ids=...) that are the same in every process.")


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Draws without a seed of their own are the same in every run and in every order of the tests: none passes today and fails tomorrow."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text files."""
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture(scope="session")
def store(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus prepared with a small vocabulary."""
    from headstart.data.text.config import TextConfig
    from headstart.data.text.store import prepare_text
    from tests.running import TINY

    config = TextConfig(vocab_size=TINY["text.vocab_size"], held_out_share=0.1)
    return prepare_text([corpus], tmp_path_factory.mktemp("stores") / "tiny", config).folder


@pytest.fixture(scope="session")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of causal-lm, 24 steps. Read it, do not write into it."""
    from headstart.verbs.pretrain import pretrain
    from tests.running import TINY

    out = tmp_path_factory.mktemp("runs") / "causal"
    return pretrain("causal-lm", store, say=lambda line: None, out=out, **TINY, **{"budget.steps": 24}).folder
