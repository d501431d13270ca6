"""What all methods on text share: they read a `TextStore`, train on its rows, and give one vector a row by mean pooling."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.config import TextConfig
from headstart.data.text.head import write_first_documents
from headstart.data.text.prepare import input_differences, preparation_changes
from headstart.data.text.rows import Rows, packed_rows
from headstart.data.text.sources import find_inputs
from headstart.data.text.store import TextStore, open_text_store, prepare_text
from headstart.data.text.tokenizer import FAILS, described, library_errors, load_tokenizer, refuse_more_entries
from headstart.engine.method import Batch, Context, Method
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import learned_positions


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
        self.store = store
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

    @classmethod
    def smoke_source(cls, sources: Sequence[str | Path], folder: Path, data: TextConfig, records: int) -> tuple[list[str], TextConfig]:
        write_first_documents(sources, folder / "documents.jsonl", data, records)
        return [str(folder / "documents.jsonl")], dataclasses.replace(
            data, text_field="text", vocab_size=min(data.vocab_size, 512), held_out_share=0.1
        )

    @classmethod
    def open_store(cls, folder: Path) -> TextStore:
        return open_text_store(folder)

    @classmethod
    def source_changes(cls, store: TextStore, sources: Sequence[str | Path]) -> list[str]:
        try:
            return input_differences(store, find_inputs(sources))
        except BadInput as error:  # they are gone
            return [str(error).splitlines()[0]]

    @classmethod
    def preparation_changes(cls, store: TextStore, data: TextConfig) -> dict[str, tuple[Any, Any]]:
        return preparation_changes(store, data.preparation(), data)

    @classmethod
    def data_config_for(cls, data: TextConfig, init: Path) -> TextConfig:
        return data if data.tokenizer is not None else dataclasses.replace(data, tokenizer=str(model_folder(init)))

    @classmethod
    def data_settings_of(cls, init: Path, data: TextConfig) -> dict[str, Any]:
        refuse_larger_tokenizer(model_folder(init))  # before a corpus is tokenised with it
        if data.tokenizer is not None:
            return {}
        tokenizer, _ = load_tokenizer(str(model_folder(init)), TextConfig())
        return described(tokenizer)

    @classmethod
    def share_preparation(cls, store: TextStore, data: TextConfig) -> TextConfig:
        return dataclasses.replace(data, tokenizer=str(store.folder / "tokenizer.json"))

    @classmethod
    def refuse_init(cls, store: TextStore, init: Path) -> None:
        folder = model_folder(init)
        theirs = refuse_larger_tokenizer(folder)
        if theirs.get_vocab() != store.tokenizer.get_vocab():
            raise UsageError(
                f"The tokenizer of the data is not the one of the model in {folder}.",
                f"Give the raw texts as --data, or prepare them with --text.tokenizer {folder}.",
            )

    def plan_lines(self) -> list[str]:
        unknown = self.store.unknown()
        return [] if unknown is None else [f"  WARNING    {unknown}."]

    def reload(self, folder: Path) -> TextMethod:
        return type(self)(self.config, self.store, init=folder)

    def encode(self, texts: Sequence[str]) -> Batch:
        """Texts as a batch of [CLS] text [SEP], cut at `sequence_length` and right-padded: for probes and embeddings."""
        begin, end = special(self.store, "cls"), special(self.store, "sep")
        room = self.config.sequence_length - len(begin) - len(end)
        with library_errors(FAILS, None, any_error=False):
            encodings = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        rows = [begin + encoding.ids[:room] + end for encoding in encodings]
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.special_ids.get("pad", 0))
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = True
        return {"input_ids": ids} if bool(mask.all()) else {"input_ids": ids, "attention_mask": mask}

    def hidden_states(self, batch: Batch) -> Tensor:
        """[batch, length, hidden]: the backbone's last layer."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> Tensor:
        return mean_pool(self.hidden_states(batch), batch.get("attention_mask"))

    def feature(self, batch: Batch, ctx: Context, pooling: Literal["class", "mean"] = "class") -> Tensor:
        hidden = self.hidden_states(batch)
        return mean_pool(hidden, batch.get("attention_mask")) if pooling == "mean" else hidden[:, 0]


def sizes_of(found: Any) -> dict[str, Any]:
    """The sizes of a network as our Configs name them, from its transformers configuration."""
    inner = getattr(found, "intermediate_size", None) or getattr(found, "n_inner", None) or 4 * found.hidden_size  # GPT-2 may leave it out
    return {
        "hidden_size": found.hidden_size,
        "num_layers": found.num_hidden_layers,
        "num_heads": found.num_attention_heads,
        "intermediate_size": inner,
    }


def mean_pool(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """[batch, length, dim] -> [batch, dim]: the mean over the positions that are not padding."""
    if attention_mask is None:
        return hidden.mean(1)
    weights = attention_mask.to(hidden.dtype)[..., None]
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def model_folder(export: Path) -> Path:
    """Where in an export the backbone lies: a method that trains two networks exports each into a folder of its own."""
    return export / "discriminator" if (export / "discriminator").is_dir() else export


def refuse_larger_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder. Raises BadInput where it has more entries than the network has rows of embeddings."""
    tokenizer, _ = load_tokenizer(str(folder), TextConfig())
    rows = getattr(read_config(folder), "vocab_size", None)
    if isinstance(rows, int):
        refuse_more_entries(tokenizer, rows, folder)
    return tokenizer


def suggested_length(init: Path, config: Any) -> dict[str, Any]:
    """{"sequence_length": n} where the model in `init` has fewer learned positions than the rows of `config` have tokens; otherwise nothing."""
    found = read_config(model_folder(init))
    positions = getattr(found, "max_position_embeddings", None)
    if found.model_type not in ("bert", "electra", "roberta", "roberta-prelayernorm") or not isinstance(positions, int):
        return {}
    if found.model_type.startswith("roberta"):
        positions -= (found.pad_token_id or 0) + 1  # they are counted from there
    return {"sequence_length": positions} if 0 < positions < config.sequence_length else {}


def refuse_long_rows(model: nn.Module, length: int) -> None:
    """Raises UsageError when rows of `length` tokens are longer than the model's table of positions."""
    limit = learned_positions(model)
    if limit is not None and length > limit:
        raise UsageError(f"Rows of {length} tokens do not fit the {limit} positions of the model.", f"Give --method.sequence-length {limit} or less.")


def special(store: TextStore, name: str) -> list[int]:
    """The id of a special token as a list, empty when the tokenizer has none: what a row begins or ends with."""
    return [store.special_ids[name]] if name in store.special_ids else []
