"""The examples run, on small input, as a person would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM

from headstart.data.text.store import open_text_store
from headstart.interop.transformers_io import save_model_folder
from headstart.verbs.pretrain import pretrain
from tests.corpus import TOPICS, labelled, write_jsonl
from tests.running import environment, run_info

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text()
    assert all(f'"{path.name}"' in source for path in EXAMPLES.glob("*.py"))


def test_an_environment_of_ones_own(tmp_path: Path) -> None:
    settings = {"budget.steps": 3, "batch": 4, "method.hidden_size": 16, "out": tmp_path / "out", "device": "cpu"}
    done = pretrain("oc_gfn", EXAMPLES / "baskets.py", say=lambda line: None, **settings)
    assert run_info(done.folder)["totals"]["steps"] == 3


def test_pretrain_and_finetune(corpus: Path, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", labelled(40, seed=1))
    test = write_jsonl(tmp_path / "test.jsonl", labelled(40, seed=2))
    printed = run("pretrain_and_finetune.py", corpus, train, test, "--minutes", "0.05", "--seeds", "3", "--out", tmp_path / "out")
    assert run_info(tmp_path / "out" / "pretrained")["status"] == "done"
    assert re.search(r"head start (helps|hurts|helps is open)", printed)
    predictions = printed.splitlines()[-3:]
    assert all(line.split(": ")[0] in TOPICS for line in predictions)
    assert [line.split(": ")[1] for line in predictions] == [record["text"] for record in labelled(40, seed=2)[:3]]


def test_continue_from_bert(corpus: Path, store: Path, tmp_path: Path) -> None:
    opened = open_text_store(store)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    bert = BertForMaskedLM(BertConfig(vocab_size=opened.vocab_size, **size))
    save_model_folder(bert, opened.tokenizer, tmp_path / "bert")
    printed = run(
        "continue_from_bert.py", tmp_path / "bert", corpus, "--minutes", "0.05", "--length", "32", "--batch", "8", "--out", tmp_path / "out"
    )
    before, after = map(float, re.findall(r"held-out loss ([\d.]+) -> ([\d.]+)", printed)[0])
    assert after < before
    continued = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "export")
    assert continued.config.model_type == "bert"
    moved = (continued.bert.embeddings.word_embeddings.weight - bert.bert.embeddings.word_embeddings.weight).abs().max()
    assert 0 < float(moved.detach()) < 0.05, "continued from these weights, at a low rate"
