"""Encoders: right network for each name, no leak from the future, no mask that changes a result."""

from __future__ import annotations

import pytest
import torch
from transformers import ModernBertConfig, ModernBertModel

from headstart.backbones.text import build_encoder, build_masked_lm, encode, mlm_logits, word_embeddings
from headstart.core.errors import BadInput

ARCHITECTURES = ["bert", "electra", "modernbert", "roberta"]
SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
SETTINGS = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 64,
    "max_length": 24,
    "dropout": 0.1,
    "special_ids": SPECIAL,
}


def ids(rows: int = 3, length: int = 16) -> torch.Tensor:
    return torch.randint(5, 90, (rows, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_causal_hides_the_future(architecture: str) -> None:
    model = build_encoder(architecture, **SETTINGS).eval()
    before = ids()
    after = before.clone()
    after[:, 9:] = 7
    causal_before, causal_after = (encode(model, {"input_ids": x}, causal=True) for x in (before, after))
    torch.testing.assert_close(causal_before[:, :9], causal_after[:, :9], rtol=0, atol=0)
    assert (causal_before[:, 9:] - causal_after[:, 9:]).abs().max() > 0.01
    full_before, full_after = (encode(model, {"input_ids": x}) for x in (before, after))
    assert (full_before[:, :9] - full_after[:, :9]).abs().max() > 1e-3  # without it the past does see the future


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padding_changes_nothing_and_equals_the_library(architecture: str) -> None:
    model = build_encoder(architecture, **SETTINGS).eval()
    tokens = ids()
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1:, 11:] = False
    padded = tokens.masked_fill(~mask, SPECIAL["pad"])
    ours = encode(model, {"input_ids": padded, "attention_mask": mask})
    short = encode(model, {"input_ids": tokens[1:, :11]})
    torch.testing.assert_close(ours[1:, :11], short, rtol=0, atol=2e-6)
    theirs = model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(ours[mask], theirs[mask], rtol=0, atol=2e-6)
    causal = encode(model, {"input_ids": padded, "attention_mask": mask}, causal=True)
    torch.testing.assert_close(causal[1:, :11], encode(model, {"input_ids": tokens[1:, :11]}, causal=True), rtol=0, atol=2e-6)


def test_token_types_reach_those_that_have_them() -> None:
    types = torch.zeros(3, 16, dtype=torch.int64)
    types[:, 8:] = 1
    for architecture, differs in [("bert", True), ("electra", True), ("modernbert", False), ("roberta", False)]:
        model = build_encoder(architecture, **SETTINGS).eval()
        plain = encode(model, {"input_ids": ids()})
        typed = encode(model, {"input_ids": ids(), "token_type_ids": types})
        assert bool((plain - typed).abs().max() > 1e-3) is differs, architecture


def test_local_layers_of_modernbert_keep_their_window() -> None:
    config = ModernBertConfig(
        vocab_size=90, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=48, local_attention=6,
        pad_token_id=0, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, attn_implementation="sdpa",
    )  # fmt: skip
    model = ModernBertModel(config).eval()
    assert "sliding_attention" in config.layer_types
    tokens = ids()
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1:, 13:] = False
    theirs = model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(encode(model, {"input_ids": tokens, "attention_mask": mask})[mask], theirs[mask], rtol=0, atol=2e-6)
    theirs = model(input_ids=tokens).last_hidden_state
    torch.testing.assert_close(encode(model, {"input_ids": tokens}), theirs, rtol=0, atol=2e-6)
    after = tokens.clone()
    after[:, 9:] = 7
    torch.testing.assert_close(
        encode(model, {"input_ids": tokens}, causal=True)[:, :9], encode(model, {"input_ids": after}, causal=True)[:, :9], rtol=0, atol=0
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_head_at_gathered_positions_equals_the_whole_model(architecture: str) -> None:
    model = build_masked_lm(architecture, **SETTINGS).eval()
    whole = model(input_ids=ids()).logits
    hidden = encode(model.base_model, {"input_ids": ids()})
    torch.testing.assert_close(mlm_logits(model, hidden[:, 3:7]), whole[:, 3:7], rtol=0, atol=2e-6)
    assert word_embeddings(model).weight is model.get_output_embeddings().weight


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(BadInput, match="32 cannot be split over 3 heads"):
        build_encoder("bert", **{**SETTINGS, "num_heads": 3})
