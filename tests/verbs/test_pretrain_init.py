"""`pretrain --init`: what comes with the weights of a run or of a model, and what does not fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.config import TextConfig
from headstart.data.text.store import open_text_store, prepare_text
from headstart.interop.transformers_io import save_model_folder
from tests.running import METHODS, records, weight_files
from tests.verbs.pretraining import pretrain


@pytest.mark.slow
@pytest.mark.parametrize("slug", METHODS)
def test_init_continues_from_the_weights_of_a_run(slug: str, store: Path, tmp_path: Path) -> None:
    """With a rate of nearly zero, what comes out is what went in."""
    first = pretrain(slug, store, tmp_path / "first")
    second = pretrain(slug, store, tmp_path / "second", init=first.folder, seed=9, **{"optimizer.learning_rate": 1e-12})
    other = pretrain(slug, store, tmp_path / "other", seed=9, **{"optimizer.learning_rate": 1e-12})
    for name, raw in weight_files(first.folder).items():
        mine = load(weight_files(second.folder)[name])
        fresh = load(weight_files(other.folder)[name])
        largest = 0.0
        for key, value in load(raw).items():
            torch.testing.assert_close(mine[key], value, atol=1e-6, rtol=0, msg=f"{name} {key}")
            largest = max(largest, float((fresh[key] - value).abs().max()))
        assert largest > 1e-2, "another seed alone begins elsewhere"


@pytest.mark.slow
def test_init_of_a_masked_model_does_not_start_causally_again(store: Path, tmp_path: Path) -> None:
    first = pretrain("mlm", store, tmp_path / "first")
    second = pretrain("mlm", store, tmp_path / "second", init=first.folder)
    assert {line["phase"] for line in records(first.folder, "metrics")} == {"causal", "masked"}
    assert {line["phase"] for line in records(second.folder, "metrics")} == {"masked"}


def test_init_brings_its_tokenizer_to_raw_data(corpus: Path, trained: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", corpus, tmp_path / "run", init=trained, dry_run=True)
    mine = json.loads((Path(run.info["data"][0]["store"]) / "tokenizer.json").read_text())
    assert mine["model"]["vocab"] == json.loads((trained / "export" / "tokenizer.json").read_text())["model"]["vocab"]


def test_init_brings_its_tokenizer_to_a_smoke_run(corpus: Path, trained: Path, tmp_path: Path) -> None:
    run = pretrain("causal-lm", corpus, tmp_path / "run", init=trained, dry_run=True, smoke=True)
    mine = json.loads((Path(run.info["data"][0]["store"]) / "tokenizer.json").read_text())
    assert mine["model"]["vocab"] == json.loads((trained / "export" / "tokenizer.json").read_text())["model"]["vocab"]


def test_a_store_of_another_vocabulary_than_the_model_is_refused(corpus: Path, trained: Path, tmp_path: Path) -> None:
    other = prepare_text([corpus], tmp_path / "store", TextConfig(vocab_size=200)).folder
    with pytest.raises(UsageError, match="tokenizer"):
        pretrain("causal-lm", other, tmp_path / "run", init=trained)


@pytest.mark.parametrize(("slug", "kind", "limit"), [("mlm", "bert", 16), ("mlm", "roberta", 31), ("causal-lm", "gpt2", 16)])
def test_rows_longer_than_the_positions_of_the_model_are_refused(slug: str, kind: str, limit: int, store: Path, tmp_path: Path) -> None:
    """RoBERTa's first position is its padding id + 1, so two rows of its table are never used."""
    opened = open_text_store(store)
    size: dict[str, Any] = {"vocab_size": opened.vocab_size, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    wide: dict[str, Any] = {**size, "intermediate_size": 48}
    model: Any = {
        "bert": lambda: BertForMaskedLM(BertConfig(**wide, max_position_embeddings=16)),
        "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**wide, max_position_embeddings=33, pad_token_id=1)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**size, n_inner=48, n_positions=16)),
    }[kind]()
    save_model_folder(model, opened.tokenizer, tmp_path / "model")
    settings = {"init": tmp_path / "model", "text.vocab_size": opened.vocab_size}
    with pytest.raises(UsageError, match=f"Rows of 32 tokens do not fit the {limit} positions"):
        pretrain(slug, store, tmp_path / "run", **settings)
    run = pretrain(slug, store, tmp_path / "short", **settings, **{"method.sequence_length": limit, "budget.steps": 1})
    assert run.info["status"] == "done"


def test_init_of_something_else_is_refused(store: Path, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        pretrain("causal-lm", store, tmp_path / "run", init=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"empty: config\.json is missing"):
        pretrain("causal-lm", store, tmp_path / "run2", init=tmp_path / "empty")
