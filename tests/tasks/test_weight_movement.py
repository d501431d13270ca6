"""How far a weight moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import save_model_folder
from headstart.tasks.weight_movement import ends_movement, movement, weight_movement


def test_by_hand() -> None:
    """The specification of stability_gap, check 2: entries that were zero are left out of the relative form, not of the norms."""
    found = movement("w", torch.tensor([0.5, -0.2, 0, 1]), torch.tensor([0.55, -0.1, 0.01, 0.8]))
    assert found.relative == pytest.approx(0.266667, abs=1e-6)
    assert found.norm == pytest.approx(0.201929, abs=1e-6)
    assert (found.zeros, found.revived) == (1, 1.0)
    same = movement("w", torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert (same.cosine, same.revived) == (1.0, 0.0)


def test_of_two_folders(tmp_path: Path) -> None:
    """Doubled in the top layer alone: nothing else moved, and that by as much as it was."""
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    sizes = {"vocab_size": 3, "n_positions": 8, "n_embd": 8, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, n_layer=2))
    save_model_folder(model, tokenizer, tmp_path / "before")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight.mul_(2.0)
    save_model_folder(model, tokenizer, tmp_path / "after")
    moved = {found.name: found.norm for found in weight_movement(tmp_path / "before", tmp_path / "after")}
    assert moved.pop("transformer.h.1.mlp.c_fc.weight") == pytest.approx(1.0)
    assert set(moved.values()) == {0.0}
    found = ends_movement(tmp_path / "before", tmp_path / "after", layers=1)
    assert (found.bottom.norm, found.ratio) == (0.0, 0.0)
    assert found.top.norm > 0
    save_model_folder(GPT2LMHeadModel(GPT2Config(**sizes, n_layer=1)), tokenizer, tmp_path / "other")
    with pytest.raises(BadInput, match="is another network than"):
        weight_movement(tmp_path / "before", tmp_path / "other")
