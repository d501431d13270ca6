"""Decoders of transformers, run without a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2Model, GPTNeoXConfig, GPTNeoXModel, LlamaConfig, LlamaModel, OPTConfig, OPTModel

from headstart.backbones.kernels import use_fast_kernels
from headstart.backbones.text import decode
from tests.no_waiting import NoWaiting

SIZES: dict[str, Any] = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}


def tiny(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2Model(GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16)).eval()
    if kind == "gpt_neox":
        return GPTNeoXModel(GPTNeoXConfig(**SIZES, intermediate_size=32)).eval()
    if kind == "opt":  # counts its positions by the mask: it is run as it is
        return OPTModel(OPTConfig(**SIZES, ffn_dim=32, word_embed_proj_dim=16)).eval()
    return LlamaModel(LlamaConfig(**SIZES, intermediate_size=32)).eval()


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama", "opt"])
def test_it_is_what_the_library_computes(kind: str) -> None:
    model, ids = tiny(kind), torch.arange(24).view(2, 12) % 20
    with torch.no_grad():
        wanted = model(input_ids=ids, use_cache=False).last_hidden_state
        assert torch.equal(decode(model, input_ids=ids), wanted), "with the library's own attention"
        use_fast_kernels(model)
        assert torch.equal(decode(model, input_ids=ids), wanted)
        assert torch.equal(decode(model, inputs_embeds=model.get_input_embeddings()(ids)), wanted)
        changed = ids.clone()
        changed[:, -1] += 1
        assert torch.equal(decode(model, input_ids=changed)[:, :-1], wanted[:, :-1]), "no position looks ahead"


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "llama"])
def test_nothing_waits_for_the_device(kind: str) -> None:
    model, ids = tiny(kind), torch.arange(24).view(2, 12) % 20
    use_fast_kernels(model)
    with NoWaiting():
        decode(model, input_ids=ids)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoWaiting():
        model(input_ids=ids, use_cache=False)  # the library's own way: should it stop asking, `decode` is needless


def test_the_compiler_takes_it_whole() -> None:
    """Nothing of ours cuts its graph: a cut at every dense layer would leave it nothing to fuse."""
    model, ids = tiny("llama"), torch.arange(24).view(2, 12) % 20
    use_fast_kernels(model)
    wanted = decode(model, input_ids=ids)
    model.compile(backend="eager", fullgraph=True)
    assert torch.equal(decode(model, input_ids=ids), wanted)
