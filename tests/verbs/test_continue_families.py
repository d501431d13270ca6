"""Causal language models of every common family, as transformers saves them, go on with new text beside old: what they compute before the first
update and after the last is what transformers computes with the folder that was given and with the one that came out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from tokenizers import ByteLevelBPETokenizer

from headstart.data.text.store import open_text_store
from headstart.data.text.windows import windows
from headstart.verbs.pretrain import pretrain
from tests.corpus import documents, write_old_and_new
from tests.running import records

END = "<|endoftext|>"
LENGTH = 16
SIZE = {
    "vocab_size": 300, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 32,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
GROUPED = {**SIZE, "num_key_value_heads": 1}
FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: t.GPT2LMHeadModel(t.GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=0, eos_token_id=0)),
    "gpt_neox": lambda: t.GPTNeoXForCausalLM(t.GPTNeoXConfig(**SIZE)),
    "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**GROUPED)),
    "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**GROUPED, sliding_window=4)),
    "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**GROUPED, tie_word_embeddings=True)),
    "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**GROUPED, head_dim=8)),
    "olmo": lambda: t.OlmoForCausalLM(t.OlmoConfig(**SIZE)),
    "olmo2": lambda: t.Olmo2ForCausalLM(t.Olmo2Config(**SIZE)),
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_old_and_new(tmp_path_factory.mktemp("families"), count=20)


def their_loss(folder: Path, store: Path) -> float:
    """Nats a token of the held-out text of a store, by the network that transformers makes of a folder."""
    network = t.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    opened = open_text_store(store)
    rows = windows(opened, LENGTH, "held_out", [opened.special_ids["eos"]])
    batch = {name: torch.as_tensor(value) for name, value in rows.batch(np.arange(len(rows))).items()}
    with torch.no_grad():
        logits = network(input_ids=batch["input_ids"]).logits
    of_each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["next_ids"], reduction="none")
    return float(of_each[batch["attention_mask"]].mean() if "attention_mask" in batch else of_each.mean())


@pytest.mark.slow
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_folder_of_transformers_goes_on_and_comes_out_as_what_was_trained(family: str, texts: Path, tmp_path: Path) -> None:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(documents(20, 0), vocab_size=300, special_tokens=[END])
    torch.manual_seed(5)
    model = FAMILIES[family]()
    model.save_pretrained(tmp_path / "model")
    t.PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token=END, eos_token=END).save_pretrained(tmp_path / "model")
    run = pretrain(
        "causal-lm", [f"{name}={texts}/{name}.jsonl" for name in ("new", "old")], init=tmp_path / "model", mix="new=0.7,old=0.3",
        say=lambda line: None, out=tmp_path / "run", batch=4, device="cpu", precision="fp32",
        **{"budget.steps": 4, "optimizer.learning_rate": 3e-3, "schedule.name": "constant", "text.held_out_share": 0.2, "trainer.part_rows": 2,
           "method.sequence_length": LENGTH, "method.packing": "stream"},
    )  # fmt: skip
    losses = {(line["step"], line["probe"]): line["value"] for line in records(run.folder, "probes")}
    for entry in run.info["measured"]:
        name = f"held_out_loss/{entry['part']}"
        assert losses[0, name] == pytest.approx(their_loss(tmp_path / "model", Path(entry["store"])), abs=2e-5)
        assert losses[4, name] == pytest.approx(their_loss(run.export, Path(entry["store"])), abs=2e-5)
        assert losses[4, name] < losses[0, name] - 0.01, "it learns"
    again = t.AutoModelForCausalLM.from_pretrained(run.export)
    assert type(again) is type(model)
    assert {name: value.shape for name, value in again.state_dict().items()} == {name: value.shape for name, value in model.state_dict().items()}
    assert t.AutoTokenizer.from_pretrained(run.export)("the").input_ids == tokenizer.encode("the").ids
