"""Sound files to damage, made once by our own writers, copies of them to spoil; and a limit on memory meanwhile."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers

from headstart.data.text.rows import packed_rows
from headstart.data.text.store import TextStore, open_text_store
from headstart.interop.transformers_io import load_encoder, save_model_folder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.saved import save_finetuned
from headstart.tasks.text_classification import TextClassification
from headstart.tasks.training import FineTuned

MEMORY = 3 * 2**30
"""Bytes of address space that a test may take beyond what the process has when it begins."""


@pytest.fixture(autouse=True)
def memory_limit() -> Iterator[None]:
    """More than `MEMORY` is a MemoryError, or the end of the process: either fails the test."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="session")
def sound_store(store: Path, tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    """A store of 320 documents with training rows of 32 tokens."""
    folder = tmp_path_factory.mktemp("fuzz") / "store"
    shutil.copytree(store, folder, ignore=shutil.ignore_patterns("rows"))
    opened = open_text_store(folder)
    packed_rows(opened, 32, "train", [2], [3])
    return opened


@pytest.fixture(scope="session")
def sound_model(sound_store: TextStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of two layers as a transformers folder."""
    torch.manual_seed(0)
    config = transformers.ElectraConfig(
        vocab_size=sound_store.vocab_size, hidden_size=16, embedding_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("fuzz") / "model"
    save_model_folder(transformers.ElectraForPreTraining(config), sound_store.tokenizer, folder)
    return folder


@pytest.fixture(scope="session")
def sound_finetuned(sound_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of two classes."""
    folder = tmp_path_factory.mktemp("fuzz") / "finetuned"
    encoder = load_encoder(sound_model)
    task = TextClassification(FinetuneConfig(device="cpu"), classes=["harbour", "kitchen"])
    save_finetuned(folder, task, encoder, FineTuned(encoder, task.head(encoder)))
    return folder


@pytest.fixture
def theirs(sound_store: TextStore, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(sound_store.folder, tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def model(sound_model: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(sound_model, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Somebody's folder, which nothing may touch."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "letters.txt").write_text("dear diary")
    return folder
