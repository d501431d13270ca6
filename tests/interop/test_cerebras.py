"""Checkpoints of Cerebras: NaN in place, or masks beside, become zeros; names and layouts those of transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from headstart.core.errors import BadInput
from headstart.interop.cerebras import finalise, import_cerebras, to_gpt2
from headstart.interop.masks import read_masks
from tests.official import as_cerebras, gpt2


@pytest.fixture
def tokenizer(store: Path) -> Tokenizer:
    return Tokenizer.from_file(str(store / "tokenizer.json"))


@pytest.mark.parametrize("form", ["NaN in place", "masks beside"])
def test_pruned_weights_become_zeros_and_masks(form: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = gpt2()
    state = as_cerebras(model)
    pruned = {name: torch.rand(state[name].shape, generator=torch.Generator().manual_seed(i)) < 0.75
              for i, name in enumerate(name for name in state if "linear_layer.weight" in name or "proj_q_dense_layer.weight" in name)}  # fmt: skip
    for name, mask in pruned.items():
        if form == "NaN in place":
            state[name][mask] = float("nan")
        else:
            state[f"{name}_mask"] = ~mask
    torch.save({"model": state}, tmp_path / "checkpoint.mdl")
    shares = import_cerebras(tmp_path / "checkpoint.mdl", tmp_path / "model", num_heads=2, tokenizer=tokenizer)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    masks = read_masks(tmp_path / "model")
    assert set(masks) == set(shares)
    with torch.no_grad():
        for i in range(2):
            name = f"transformer_decoder.layers.{i}.ffn.ffn.0.linear_layer.weight"
            original = dict(model.named_parameters())[f"transformer.h.{i}.mlp.c_fc.weight"]
            original[pruned[name].T] = 0.0
            assert torch.equal(dict(loaded.named_parameters())[f"transformer.h.{i}.mlp.c_fc.weight"], original)
            assert torch.equal(masks[f"transformer.h.{i}.mlp.c_fc.weight"], ~pruned[name].T)
            fused = masks[f"transformer.h.{i}.attn.c_attn.weight"]
            assert torch.equal(fused[:, :8], ~pruned[f"transformer_decoder.layers.{i}.self_attn.proj_q_dense_layer.weight"].T)
            assert bool(fused[:, 8:].all()), "k and v are dense"
    assert torch.isfinite(loaded(torch.arange(12)[None]).logits).all()


def test_a_dense_checkpoint_is_the_same_network(tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = gpt2()
    torch.save(as_cerebras(model), tmp_path / "dense.pt")
    assert import_cerebras(tmp_path / "dense.pt", tmp_path / "model", num_heads=2, tokenizer=tokenizer) == {}
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "model")(ids).logits, model(ids).logits)
    assert not (tmp_path / "model" / "masks.safetensors").exists()


def test_what_is_no_such_checkpoint_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "x.mdl").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(BadInput, match=r"is no file of torch\.save.*\n.*HDF5"):
        import_cerebras(tmp_path / "x.mdl", tmp_path / "model", num_heads=2, tokenizer=tokenizer)
    with pytest.raises(BadInput, match="which no GPT-2 has"):
        to_gpt2({"transformer_decoder.layers.0.moe.gate.weight": torch.zeros(2, 2)})
    state = as_cerebras(gpt2())
    del state["transformer_decoder.layers.1.self_attn.proj_v_dense_layer.weight"]
    with pytest.raises(BadInput, match="2 of q, k and v"):
        to_gpt2(state)
    del state["transformer_decoder.layers.0.norm1.weight"], state["transformer_decoder.layers.1.self_attn.proj_k_dense_layer.weight"]
    del state["transformer_decoder.layers.1.self_attn.proj_q_dense_layer.weight"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(BadInput, match="they would start random"):
        import_cerebras(tmp_path / "part.pt", tmp_path / "model", num_heads=2, tokenizer=tokenizer)


def test_infinite_weights_are_not_taken_for_pruned_ones(tokenizer: Tokenizer, tmp_path: Path) -> None:
    state = as_cerebras(gpt2())
    state["transformer_decoder.layers.1.norm1.weight"][0] = float("inf")
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(BadInput, match=r"transformer\.h\.1\.ln_1\.weight holds numbers that are not finite"):
        import_cerebras(tmp_path / "x.pt", tmp_path / "model", num_heads=2, tokenizer=tokenizer)


def test_whole_numbers_and_dense_weights_are_left_alone() -> None:
    weights, masks = finalise({"step": torch.tensor(3), "w": torch.ones(2)})
    assert masks == {}
    assert int(weights["step"]) == 3
