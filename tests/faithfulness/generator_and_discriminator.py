"""A small ELECTRA on random tokens, for the tests of the method."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from headstart.core.rng import Rng
from headstart.engine.method import Context
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.method import Electra

BERT_IDS = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}

SMALL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}

VOCAB = 60


def facts(vocab_size: int = VOCAB, special_ids: dict[str, int] | None = None) -> Any:
    """What a method reads of a store."""
    return SimpleNamespace(tokenizer=None, special_ids=special_ids or SMALL_IDS, vocab_size=vocab_size, unigram_entropy=math.log(vocab_size))


def small(**changes: Any) -> ElectraConfig:
    """Settings of two small networks, without dropout."""
    settings: dict[str, Any] = {
        "num_layers": 2, "hidden_size": 32, "num_heads": 2, "embedding_size": 16, "generator_hidden_size": 0.5,
        "max_positions": 24, "sequence_length": 24, "dropout": 0.0, "mask_ratio": 0.25,
    }  # fmt: skip
    return ElectraConfig(**settings | changes)


def method(seed: int = 0, **changes: Any) -> Electra:
    """New networks; their weights follow from `seed`."""
    torch.manual_seed(seed)
    return Electra(small(**changes), facts())


def batch_of(rows: int = 4, length: int = 24, vocab: int = VOCAB, seed: int = 0, padded: bool = False) -> dict[str, Tensor]:
    """Rows of random tokens between [CLS] and [SEP]; padded ones have different lengths."""
    ids = torch.randint(5, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = 2, 3
    if not padded:
        return {"input_ids": ids}
    mask = torch.ones(rows, length, dtype=torch.bool)
    for row in range(rows):
        mask[row, length - 3 * row :] = False
    mask[0] = True
    return {"input_ids": ids.masked_fill(~mask, 0), "attention_mask": mask}


def context(step: int = 0, rows: int = 4, phase: str = "joint") -> Context:
    """What a step is told."""
    return Context(step, 100, phase, Rng.at(0, step, torch.arange(rows)), torch.device("cpu"))
