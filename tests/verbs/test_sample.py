"""`sample`: what a person sees of a run is what its export says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import headstart
from headstart.core.errors import BadInput, UsageError
from tests.running import TINY, run_info
from tests.running import headstart as command


@pytest.fixture(scope="module")
def masked(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**TINY, "budget.steps": 24, "trainer.checkpoint_every": 24}
    return headstart.pretrain("mlm", store, say=lambda line: None, out=tmp_path_factory.mktemp("mlm") / "run", **settings).folder


@pytest.fixture(scope="module")
def electra(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {**TINY, "budget.steps": 24, "trainer.checkpoint_every": 24}
    return headstart.pretrain("electra", store, say=lambda line: None, out=tmp_path_factory.mktemp("electra") / "run", **settings).folder


def copy_of(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_a_causal_model_continues_the_persons_text(trained: Path) -> None:
    (line,) = headstart.sample(trained, ["The old boat"])
    prompt, continuation = line.split(" >>> ")
    assert prompt == "the old boat"
    assert len(continuation.split()) >= 8
    assert headstart.sample(trained, ["The old boat"]) == [line], "the seed decides"
    assert headstart.sample(trained, ["The old boat"], seed=1) != [line]
    assert [one.split(" >>> ")[0] for one in headstart.sample(trained, ["The old boat", "The fox"])] == ["the old boat", "the fox"]


def test_what_is_sampled_are_tokens_that_the_export_finds_likely(trained: Path) -> None:
    """At temperature 0.8 a sampled token is likelier than a random one: nats far below ln V, on the model that transformers loads."""
    tokenizer, model = AutoTokenizer.from_pretrained(trained / "export"), AutoModelForCausalLM.from_pretrained(trained / "export")
    lines = headstart.sample(trained, ["the old"] * 4)
    losses = []
    for line in lines:
        ids = tokenizer(line.replace(" >>> ", " "), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            losses.append(float(model(input_ids=ids, labels=ids).loss))
    assert len(set(lines)) == 4, "rows draw different numbers"
    assert sum(losses) / 4 < 0.8 * torch.tensor(float(len(tokenizer))).log()


def test_without_a_text_held_out_rows_are_shown(trained: Path, masked: Path) -> None:
    assert len(headstart.sample(trained)) == 4
    lines = headstart.sample(masked, count=2)
    assert len(lines) == 2
    assert all(re.search(r"\[[^|\]]+\|[^|\]]+\]", line) for line in lines), "guess and truth of each hidden token"
    assert headstart.sample(masked, count=2, seed=3) != lines


def test_a_masked_model_fills_a_persons_mask_with_its_best_guess(masked: Path) -> None:
    text = "the old [MASK] returns after the rain."
    (line,) = headstart.sample(masked, [text])
    tokenizer, model = AutoTokenizer.from_pretrained(masked / "export"), AutoModelForMaskedLM.from_pretrained(masked / "export")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        place = int((ids[0] == tokenizer.mask_token_id).nonzero())
        guess = tokenizer.convert_ids_to_tokens(int(model(input_ids=ids).logits[0, place].argmax()))
    assert f"[{guess}]" in line
    assert "[MASK]" not in line
    assert "|" not in line, "nothing else is hidden in a person's own text"


def test_electra_shows_masked_text_samples_and_suspects(electra: Path) -> None:
    (line,) = headstart.sample(electra, count=1)
    assert [part.split(":")[0].strip() for part in line.splitlines()] == ["masked", "sampled", "suspects"]
    assert "[MASK]" in line.splitlines()[0]
    assert re.search(r"\(0\.\d\d", line.splitlines()[2])
    (own,) = headstart.sample(electra, ["the old boat boils."])
    assert "boils" in own.splitlines()[0]


def test_a_stopped_run_is_sampled_from_its_newest_checkpoint(trained: Path, tmp_path: Path) -> None:
    run = copy_of(trained, tmp_path / "run")
    shutil.rmtree(run / "export")
    assert headstart.sample(run, ["the old boat"]) == headstart.sample(trained, ["the old boat"])
    shutil.rmtree(run / "checkpoints" / "step-00000024")
    assert headstart.sample(run, ["the old boat"])[0].startswith("the old boat >>> ")


def test_what_is_no_run_or_has_nothing_yet_is_said(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is not a run: it has no run\.json"):
        headstart.sample(tmp_path)
    empty = copy_of(trained, tmp_path / "empty")
    shutil.rmtree(empty / "export")
    shutil.rmtree(empty / "checkpoints")
    with pytest.raises(UsageError, match="has no export yet"):
        headstart.sample(empty)
    moved = copy_of(trained, tmp_path / "moved")
    info = run_info(moved)
    info["data"][0]["store"] = str(tmp_path / "gone")
    (moved / "run.json").write_text(json.dumps(info))
    with pytest.raises(BadInput, match=r"its store .*gone is gone"):
        headstart.sample(moved)


@pytest.mark.slow
def test_the_command_prints_the_same_lines(trained: Path) -> None:
    done = command("sample", trained, "--text", "the old boat", "--text", "the fox", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == headstart.sample(trained, ["the old boat", "the fox"])
