"""Weight averaging: the mean of each tensor, and what has no mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import headstart
from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.engine.export_hashes import verify_export
from headstart.interop.merge import merge_folders
from headstart.interop.transformers_io import save_model_folder
from headstart.verbs._merge_settings import checked_shares

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "the", "cat", "sat"]


def folder(place: Path, seed: int, words: list[str] = WORDS, **sizes: Any) -> Path:
    """A causal language model of some hundred weights."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 7}
    shape |= {"tie_word_embeddings": False, "max_position_embeddings": 16} | sizes
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    save_model_folder(LlamaForCausalLM(LlamaConfig(**shape)), tokenizer, place)
    return place


def changed(source: Path, place: Path, change: Callable[[torch.Tensor], torch.Tensor], name: str = "model.norm.weight") -> Path:
    """The model with one tensor changed: what continued training is, seen from here."""
    place.mkdir()
    for path in source.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors[name] = change(tensors[name])
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return place


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return folder(tmp_path / "old", 0)


def test_each_tensor_is_the_weighted_mean(old: Path, tmp_path: Path) -> None:
    new = folder(tmp_path / "new", 1)
    merged = merge_folders([old, new], [0.25, 0.75], tmp_path / "out")
    ours, theirs, mean = (load_file(place / "model.safetensors") for place in (old, new, tmp_path / "out"))
    assert mean.keys() == ours.keys()
    for name in ours:
        torch.testing.assert_close(mean[name], 0.25 * ours[name] + 0.75 * theirs[name], rtol=0, atol=1e-7)
    assert merged.parameters == sum(tensor.numel() for tensor in ours.values())
    assert merged.tensors == len(ours)


def test_a_share_of_one_gives_that_model_bit_for_bit_even_beside_one_that_overflows(old: Path, tmp_path: Path) -> None:
    new = changed(old, tmp_path / "new", lambda weight: weight * 3e38)
    merge_folders([old, new], [1.0, 0.0], tmp_path / "out")
    ours, mean = (load_file(place / "model.safetensors") for place in (old, tmp_path / "out"))
    assert all(torch.equal(mean[name], ours[name]) for name in ours)


def test_precision_and_shards_are_those_of_the_first(old: Path, tmp_path: Path) -> None:
    place = tmp_path / "sharded"
    AutoModelForCausalLM.from_pretrained(old, dtype=torch.bfloat16).save_pretrained(place, max_shard_size=600)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).write_bytes((old / name).read_bytes())
    merge_folders([place, old], [0.5, 0.5], tmp_path / "out")
    shards = sorted(path.name for path in place.glob("*.safetensors"))
    assert len(shards) > 1
    assert sorted(path.name for path in (tmp_path / "out").glob("*.safetensors")) == shards
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.lm_head.weight.dtype == torch.bfloat16


def test_kinship_is_near_one_for_a_continued_model_and_near_nothing_for_a_stranger(old: Path, tmp_path: Path) -> None:
    kin = changed(old, tmp_path / "kin", lambda weight: 1.5 * weight, "lm_head.weight")
    close, far = merge_folders([old, kin, folder(tmp_path / "stranger", 1)], [0.4, 0.3, 0.3], tmp_path / "out").kin
    assert close.farthest == ("lm_head.weight", pytest.approx(0.5))
    assert close.cosine > 0.9
    assert abs(far.cosine) < 0.3
    assert far.distance == pytest.approx(2**0.5, abs=0.2)


@pytest.mark.parametrize(
    ("shares", "n_models", "said"),
    [
        ((), 1, "1 model cannot"),
        ((0.5,), 2, "1 share for 2 models"),
        ((0.5, 0.6), 2, "sum to 1.1"),
        ((0.5, 0.4), 2, "sum to 0.9"),
        ((1.5, -0.5), 2, "holds 1.5"),
    ],
)
def test_shares_that_are_none(shares: tuple[float, ...], n_models: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        checked_shares(shares, n_models)
    if "sum to" in said:  # above 1 too
        assert caught.value.mend == "Give shares that sum to 1: --shares 0.3 0.7."
    assert checked_shares((), 4) == [0.25] * 4


@pytest.mark.parametrize("what", ["layers", "width", "words", "nan", "shape", "pickle", "cut"])
def test_what_has_no_mean_is_refused_by_name_and_leaves_nothing(what: str, old: Path, tmp_path: Path) -> None:
    said = {
        "layers": "num_hidden_layers = 2", "width": "config.json says head_dim = 8", "words": "its vocabulary differs",
        "nan": "model.norm.weight holds numbers that", "shape": "has the shape", "pickle": "no weights as safetensors", "cut": "cannot be read",
    }[what]  # fmt: skip
    if what in ("layers", "width"):
        new = folder(tmp_path / "new", 1, **({"num_hidden_layers": 2} if what == "layers" else {"hidden_size": 16}))
    elif what == "words":
        new = folder(tmp_path / "new", 1, [*WORDS[:-2], WORDS[-1], WORDS[-2]])
    elif what == "nan":
        new = changed(old, tmp_path / "new", lambda weight: weight * torch.nan)
    elif what == "shape":
        new = changed(old, tmp_path / "new", lambda weight: weight[:4].clone())
    else:
        new = changed(old, tmp_path / "new", lambda weight: weight)
        weights = new / "model.safetensors"
        weights.rename(new / "pytorch_model.bin") if what == "pickle" else weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(BadInput, match=said):
        headstart.merge([old, new], out=tmp_path / "out", say=lambda line: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_the_verb_writes_a_model_its_card_and_what_it_was_made_of(old: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = folder(tmp_path / "new", 1)
    arguments = ["merge", str(old), str(new), "--shares", "0.3", "0.7", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    info = json.loads(printed.out)
    assert [part["share"] for part in info["models"]] == [0.3, 0.7]
    assert "hardly have a beginning in common" in printed.err
    verify_export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| new | 0.7 |" in card
    assert str(tmp_path) not in card + (tmp_path / "out" / "merge.json").read_text()
    assert main(arguments) == 2
    assert "is there already" in capsys.readouterr().err


def test_another_kind_of_model_is_called_so(tmp_path: Path) -> None:
    """Its first entry by the alphabet was named: the dropout of a classifier."""
    size = {"vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    for name, config in (("a", {"model_type": "llama"}), ("b", {"model_type": "bert", "classifier_dropout": 0.5})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(size | config))
    with pytest.raises(BadInput, match=r"config\.json says model_type = 'bert', that of .* 'llama'"):
        merge_folders([tmp_path / "a", tmp_path / "b"], [0.5, 0.5], tmp_path / "out")
