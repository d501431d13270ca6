"""The attention that a CPU takes for short rows in bf16 gives what SDPA gives, to the rounding of bf16; everywhere else it is SDPA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    ElectraConfig,
    ElectraModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ModernBertConfig,
    ModernBertModel,
    T5Config,
    T5EncoderModel,
)

from headstart.backbones import attention
from headstart.backbones.attention import LONGEST_ROW, NAME, use_fast_attention

SIZES: Any = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaModel(LlamaConfig(**SIZES, num_key_value_heads=2)),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=99, n_embd=64, n_layer=2, n_head=4, attn_pdrop=0, resid_pdrop=0, embd_pdrop=0)),
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=64)),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SIZES, pad_token_id=0, local_attention=8)),
    "t5": lambda: T5EncoderModel(T5Config(vocab_size=99, d_model=64, d_ff=96, num_layers=2, num_heads=4, d_kv=16)),  # with a position bias
}


def run(model: Any, padded: bool, precision: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Hidden states of the real tokens, and the gradients of their sum of squares."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 99, (3, 21), generator=generator)
    mask = torch.ones(3, 21, dtype=torch.long)
    if padded:
        mask[1, 12:] = 0
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        hidden = model(input_ids=ids, attention_mask=mask if padded else None).last_hidden_state.float()[mask.bool()]
    hidden.square().sum().backward()
    return hidden.detach(), [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def distance(mine: list[Tensor], theirs: list[Tensor]) -> float:
    """Of all values together, relative."""
    a, b = torch.cat([t.flatten() for t in mine]), torch.cat([t.flatten() for t in theirs])
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", list(MODELS))
def test_outputs_and_gradients_are_those_of_sdpa(name: str, padded: bool) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    exact, exact_gradients = run(model, padded, torch.float32)
    sdpa, sdpa_gradients = run(model, padded, torch.bfloat16)
    use_fast_attention(model)
    assert model.config._attn_implementation == NAME
    again, again_gradients = run(model, padded, torch.float32)
    assert torch.equal(again, exact)
    assert all(torch.equal(a, b) for a, b in zip(again_gradients, exact_gradients, strict=True))
    mine, my_gradients = run(model, padded, torch.bfloat16)
    assert distance([mine], [exact]) < 1.3 * distance([sdpa], [exact]) + 1e-4  # no further from fp32 than SDPA in bf16
    assert distance(my_gradients, exact_gradients) < 1.3 * distance(sdpa_gradients, exact_gradients) + 1e-4


def test_the_matrix_products_are_taken_where_they_win_and_nowhere_else() -> None:
    short, long = (torch.zeros(1, 1, length, 4, dtype=torch.bfloat16) for length in (LONGEST_ROW, LONGEST_ROW + 1))
    assert attention._wins(short, short, 0.0)
    assert not attention._wins(long, long, 0.0)
    assert not attention._wins(short.float(), short.float(), 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert attention._wins(short.float(), short.float(), 0.0)
    assert attention._wins(long.float(), long.float(), 0.1)  # where SDPA could not be fused


def test_no_export_names_it(tmp_path: Path) -> None:
    model = MODELS["electra"]()
    use_fast_attention(model)
    model.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert ElectraModel.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_dropout_falls_on_the_weights() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 16, 8).unbind(0)
    module = torch.nn.Module()
    kept, _ = attention.attention(module, query, key, value, None, dropout=0.0, is_causal=False)
    mean = torch.stack([attention.attention(module, query, key, value, None, dropout=0.5, is_causal=False)[0].float() for _ in range(400)]).mean(0)
    assert (mean - kept.float()).abs().max() < 0.25
    assert not torch.equal(attention.attention(module, query, key, value, None, dropout=0.5, is_causal=False)[0], kept)
