"""What all methods on text share: they read a `TextStore`, train on its rows, and give one vector a row by mean pooling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from headstart.data.text.config import TextConfig
from headstart.data.text.rows import Rows, packed_rows
from headstart.data.text.store import TextStore, prepare_text
from headstart.engine.method import Batch, Method


class TextMethod(Method):
    """A method whose batch is `input_ids` [batch, length], with `attention_mask` and `token_type_ids` only where they say something.

    Args:
        config: the method's own Config; has `sequence_length`.
        store: the prepared corpus: vocabulary size, special ids, `continues_word`, tokenizer.
        init: a transformers folder (or an export of ours) to continue from; its architecture then replaces the one of `config`.
    """

    predicts_tokens = True
    DataConfig = TextConfig
    data_group = "text"

    def __init__(self, config: Any, store: TextStore, init: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.init = init
        self.tokenizer = store.tokenizer
        self.special_ids = dict(store.special_ids)
        self.vocab_size = store.vocab_size
        self.unigram_entropy = store.unigram_entropy

    @classmethod
    def prepare(cls, sources: Sequence[str | Path], out: Path, data: TextConfig) -> TextStore:
        return prepare_text(list(sources), out, data)

    @classmethod
    def rows(cls, store: TextStore, config: Any, split: Literal["train", "held_out"] = "train") -> Rows:
        """Fixed-length rows; by default documents packed whole, [CLS] text [SEP]."""
        ids = store.special_ids
        return packed_rows(store, config.sequence_length, split, begin=[ids["cls"]], end=[ids["sep"]])

    def hidden_states(self, batch: Batch) -> Tensor:
        """[batch, length, hidden]: the backbone's last layer."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> Tensor:
        return mean_pool(self.hidden_states(batch), batch.get("attention_mask"))


def mean_pool(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """[batch, length, dim] -> [batch, dim]: the mean over the positions that are not padding."""
    if attention_mask is None:
        return hidden.mean(1)
    weights = attention_mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def sdpa_mask(batch: Batch) -> Tensor | None:
    """bool [batch, 1, 1, length] for scaled-dot-product attention, or None when no row is padded."""
    mask = batch.get("attention_mask")
    return None if mask is None else mask[:, None, None, :].to(torch.bool)
