"""Tiny model folders with a word-piece vocabulary, made once a session."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from headstart.interop.transformers_io import Encoder, load_encoder, save_model_folder

WORDS = [
    "the", "a", "old", "mill", "was", "built", "in", "by", "and", "burnt", "down", "twice", "anna", "berg", "lives",
    "oslo", "is", "cold", "good", "bad", "film", "fine", "dull", "one", "two", "three", "when", "who", "it",
]  # fmt: skip
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ly", ".", ",", "?", "(", ")", "1843", "1901", "19", "##34"]


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def make(folder: Path, kind: str) -> Path:
    torch.manual_seed(29)
    size = {"vocab_size": len(PIECES), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "electra":
        config = transformers.ElectraConfig(**size, embedding_size=16, max_position_embeddings=64)
        model: Any = transformers.ElectraForPreTraining(config)
    else:
        config = transformers.GPT2Config(vocab_size=len(PIECES), n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3)
        model = transformers.GPT2LMHeadModel(config)
    save_model_folder(model, word_piece(), folder)
    return folder


@pytest.fixture(scope="session")
def electra(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "electra", "electra")


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")


@pytest.fixture
def encoder(electra: Path) -> Encoder:
    return load_encoder(electra, dropout=0.0)


@pytest.fixture
def causal(gpt2: Path) -> Encoder:
    return load_encoder(gpt2, dropout=0.0)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, records: list[dict]) -> Path:
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
        return path

    return write
