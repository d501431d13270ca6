"""--init: the model decides; what was given otherwise is refused, and run.json says what is true."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from headstart.cli.pretrain import parse
from headstart.core.errors import UsageError
from headstart.data.text.store import open_text_store
from headstart.interop.transformers_io import save_model_folder
from headstart.verbs.pretrain import pretrain
from tests.running import TINY, flags, headstart, run_info

SMALL = {name: value for name, value in TINY.items() if not name.startswith(("method.", "text."))} | {
    "method.sequence_length": 32,
    "budget.steps": 12,
}


def run(slug: str, data: Path, out: Path, **more: Any) -> Path:
    return pretrain(slug, data, out=out, say=lambda line: None, **{**SMALL, **more}).folder


@pytest.fixture(scope="module")
def models(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each method, of width 32."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {**TINY, "budget.steps": 12}
    return {slug: pretrain(slug, store, out=folder / slug, say=lambda line: None, **sizes).folder for slug in ("causal-lm", "mlm", "electra")}


@pytest.mark.promise("A setting that contradicts the model of --init is refused, with both values; run.json records the model's.")
@pytest.mark.parametrize("slug", ["causal-lm", "mlm", "electra"])
def test_a_setting_that_contradicts_the_model_is_refused(slug: str, models: dict[str, Path], store: Path, tmp_path: Path) -> None:
    wrong = {"method.hidden_size": 128, "method.num_layers": 2, "method.num_heads": 2}  # 128 and 2 are the preset's, 2 heads the model's
    with pytest.raises(UsageError) as caught:
        run(slug, store, tmp_path / "run", init=models[slug], **wrong)
    assert "--method.hidden-size 128 was given, the model has 32" in caught.value.what
    assert "--method.num-layers 2 was given, the model has 1" in caught.value.what
    assert "num-heads" not in caught.value.what
    assert not (tmp_path / "run" / "run.json").exists()
    info = run_info(run(slug, store, tmp_path / "run", init=models[slug]))
    sizes = ("hidden_size", "num_layers", "num_heads", "intermediate_size")
    assert [info["config"]["method"][name] for name in sizes] == [TINY[f"method.{name}"] for name in sizes]
    assert info["config"]["text"]["vocab_size"] == open_text_store(store).vocab_size
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


def test_the_command_line_and_a_file_are_asked_too(models: dict[str, Path], store: Path, tmp_path: Path) -> None:
    """Also where they name the value that the preset has."""
    common: list[Any] = ["pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", "--init", models["causal-lm"], *flags(SMALL)]
    by_flag = headstart(*common, "--method.hidden-size", "128")
    assert by_flag.returncode == 2
    assert "--method.hidden-size 128 was given, the model has 32" in by_flag.stderr
    (tmp_path / "c.yaml").write_text("method:\n  num_layers: 2\n")
    by_file = headstart(*common, "--config", tmp_path / "c.yaml")
    assert by_file.returncode == 2
    assert "--method.num-layers 2 was given, the model has 1" in by_file.stderr


def test_what_the_command_line_names_is_a_flag(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("method:\n  num_layers: 2\n  num_heads: 4\n")
    file = str(tmp_path / "c.yaml")
    origin = parse(["causal-lm", "--config", file, "--method.num-heads", "2", "--method.no-tie-embeddings", "--smoke", "--seed=0"]).origin
    named = {name: origin[name] for name in ("method.num_layers", "method.num_heads", "method.tie_embeddings", "smoke", "seed", "method.hidden_size")}
    assert named == {
        "method.num_layers": "config",
        "method.num_heads": "flag",
        "method.tie_embeddings": "flag",
        "smoke": "flag",
        "seed": "flag",
        "method.hidden_size": "default",
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"text.vocab_size": 999}, r"--text\.vocab-size 999 was given, the model has \d+"),
        ({"text.tokenizer_kind": "bpe"}, r"--text\.tokenizer-kind bpe was given, the model has wordpiece"),
        ({"text.lowercase": False}, r"--text\.lowercase False was given, the model has True"),
        ({"method.architecture": "gpt2"}, r"--method\.architecture gpt2 was given, the model has llama"),
        ({"method.tie_embeddings": False}, r"--method\.tie-embeddings False was given, the model has True"),
    ],
)
def test_vocabulary_and_architecture(setting: dict[str, Any], words: str, models: dict[str, Path], corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        run("causal-lm", corpus, tmp_path / "run", init=models["causal-lm"], **setting)


def test_a_start_that_a_trained_model_does_not_repeat_is_refused(models: dict[str, Path], store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--method\.causal-start 4 was given, the model has 0"):
        run("mlm", store, tmp_path / "run", init=models["mlm"], **{"method.causal_start": 4})


def test_the_settings_of_the_run_that_the_model_is_of_are_no_contradiction(models: dict[str, Path], store: Path, tmp_path: Path) -> None:
    """Its corpus may have given a smaller vocabulary than it asked for."""
    info = json.loads((models["causal-lm"] / "run.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(models["causal-lm"], other)
    info["config"]["text"]["vocab_size"] = 310
    (other / "run.json").write_text(json.dumps(info))
    for number, init in enumerate((other, other / "export", other / "checkpoints" / "step-00000012" / "export")):
        out = run("causal-lm", store, tmp_path / f"run{number}", init=init, **{"text.vocab_size": 310, "trainer.stop_at": 6})
        assert run_info(run("causal-lm", store, out, init=init, **{"text.vocab_size": 310}))["status"] == "done"


def test_a_run_with_init_is_continued_and_found_done(models: dict[str, Path], store: Path, tmp_path: Path) -> None:
    out = run("causal-lm", store, tmp_path / "run", init=models["causal-lm"], **{"trainer.stop_at": 6})
    assert run_info(run("causal-lm", store, out, init=models["causal-lm"]))["status"] == "done"
    before = (out / "run.json").read_bytes()
    run("causal-lm", store, out, init=models["causal-lm"])
    assert (out / "run.json").read_bytes() == before
    with pytest.raises(UsageError, match=r"method\.hidden_size: 32 -> 128"):
        run("causal-lm", store, out, init=models["causal-lm"], **{"method.hidden_size": 128})


def test_a_folder_from_elsewhere_decides_too(store: Path, tmp_path: Path) -> None:
    opened = open_text_store(store)
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=opened.vocab_size, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, n_positions=32, resid_pdrop=0.0)
    save_model_folder(GPT2LMHeadModel(shape), opened.tokenizer, tmp_path / "model")
    info = run_info(run("causal-lm", store, tmp_path / "run", init=tmp_path / "model"))
    expected = {"architecture": "gpt2", "hidden_size": 24, "num_layers": 1, "num_heads": 2, "intermediate_size": 96, "dropout": 0.0}
    assert {name: info["config"]["method"][name] for name in expected} == expected


@pytest.mark.promise("A data setting that contradicts a prepared store of --data is refused, with both values.")
def test_a_setting_that_contradicts_a_prepared_store_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run("mlm", store, tmp_path / "run", **{"text.vocab_size": 4096, "text.lowercase": False, "text.held_out_share": 0.1})
    assert "--text.lowercase False was given, the store has True; --text.vocab-size 4096 was given, the store has 300" in caught.value.what
    assert "held-out-share" not in caught.value.what  # as it was made
    assert not (tmp_path / "run" / "run.json").exists()
    run("mlm", store, tmp_path / "run")  # the preset's vocabulary of 2,048 was not asked for


def test_a_tokenizer_beside_a_prepared_store_is_compared_by_its_content(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text((store / "tokenizer.json").read_text().replace("##", "@@"))
    with pytest.raises(UsageError, match=f"--text.tokenizer {other} was given"):
        run("mlm", store, tmp_path / "run", **{"text.tokenizer": str(other)})
    run("mlm", store, tmp_path / "run", **{"text.tokenizer": str(store / "tokenizer.json")})
