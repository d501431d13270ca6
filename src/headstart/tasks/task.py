"""What a downstream task is: rows from data, a head on the hidden states, predictions and their score. The modules beside this one are its kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.metrics import Records
from headstart.tasks.rows import Rows


class Head(nn.Module, ABC):
    """The part that is trained from nothing: Glorot-uniform kernels, biases 0 (TensorFlow's default, which the official heads use)."""

    @abstractmethod
    def loss(self, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Hidden states [batch, length, hidden] -> the loss summed over the examples, a scalar."""

    @abstractmethod
    def outputs(self, hidden: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What predictions are made of, [batch, ...] each."""


class Task(ABC):
    """One downstream task, fixed by its settings and its training data (classes, tags, range)."""

    name: ClassVar[str]
    metric: str  # what arms are compared by; higher is better
    default_length = 128

    train: Any  # the training data; not there for a saved model

    def __init__(self, config: FinetuneConfig, train: Any = None) -> None:
        self.config = config

    @abstractmethod
    def read(self, path: Any) -> Any:
        """A further labelled file, held to the classes of the training data."""

    @abstractmethod
    def rows(self, data: Any, encoder: Encoder, training: bool) -> Rows:
        """Token rows of the data; `training` adds what only training uses."""

    @abstractmethod
    def head(self, encoder: Encoder) -> Head:
        """A new head; draws from torch's global generator."""

    @abstractmethod
    def predictions(self, outputs: dict[str, np.ndarray], rows: Rows, data: Any) -> list[Any]:
        """One prediction a record, in the task's own words."""

    @abstractmethod
    def score(self, predictions: list[Any], data: Any) -> dict[str, float]:
        """The metrics."""

    @abstractmethod
    def records(self, predictions: list[Any], data: Any) -> Records | None:
        """What each record adds to `metric`; None where that cannot be said."""

    @abstractmethod
    def stuck(self, predictions: list[Any]) -> str | None:
        """A sentence if the predictions are all the same, as of a run that never left its start."""

    def unseen(self, data: Any) -> str | None:
        """A sentence if the test data has labels that cannot be predicted."""
        return None

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """What was learned from the training data besides weights."""

    def length(self, encoder: Encoder) -> int:
        """Pieces a row."""
        wanted = self.config.max_length if self.config.max_length is not None else self.default_length
        if self.config.max_length is not None and encoder.max_length is not None and wanted > encoder.max_length:
            raise UsageError(f"max_length is {wanted}, but the network has {encoder.max_length} positions.", f"Give at most {encoder.max_length}.")
        length = wanted if encoder.max_length is None else min(wanted, encoder.max_length)
        if length < 8:
            raise UsageError(f"max_length is {length}.", "Give at least 8.")
        return length


def linear(n_in: int, n_out: int) -> nn.Linear:
    """A head layer: Glorot uniform, bias 0."""
    layer = nn.Linear(n_in, n_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def plain_tokenizer(encoder: Encoder) -> Tokenizer:
    """The fast tokenizer itself, without truncation and padding, for character offsets."""
    tokenizer = Tokenizer.from_str(encoder.tokenizer.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def frame(encoder: Encoder) -> tuple[list[int], list[int], list[int]]:
    """Special ids before the first text, between two texts, and after the last: [CLS], [SEP], [SEP] for BERT. Read from the tokenizer's template."""
    tokenizer = plain_tokenizer(encoder)
    word = next((text for text in ("a", "the", "1", "x") if tokenizer.encode(text, add_special_tokens=False).ids), None)
    if word is None:
        return [], [], []
    piece = tokenizer.encode(word, add_special_tokens=False).ids
    pair = tokenizer.encode(word, word).ids
    first = _find(pair, piece, 0)
    second = _find(pair, piece, first + len(piece))
    return pair[:first], pair[first + len(piece) : second], pair[second + len(piece) :]


def _find(row: list[int], part: list[int], start: int) -> int:
    return next(i for i in range(start, len(row) - len(part) + 1) if row[i : i + len(part)] == part)


def real_positions(batch: dict[str, Tensor]) -> Tensor:
    """bool [batch, length], true where a token stands, also where no row is padded."""
    return batch["attention_mask"] if "attention_mask" in batch else torch.ones_like(batch["input_ids"], dtype=torch.bool)
