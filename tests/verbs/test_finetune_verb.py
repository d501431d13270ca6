"""`finetune` from a run, an export and a folder of transformers: what it takes, what it refuses, what it gives back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertModel

import headstart
from headstart.cli import finetune as cli
from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.interop.transformers_io import save_model_folder
from headstart.tasks import dense_tasks, kinds
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.dense_config import CONFIGS
from headstart.tasks.saved import load_finetuned
from headstart.verbs._finetune_settings import DENSE, GENERATION, IMAGES, RERANKING, TASKS, FinetuneSettings, settings_of
from headstart.verbs.finetune import backbone_folder, suited
from tests.corpus import labelled, write_jsonl
from tests.running import TINY
from tests.running import headstart as command

FAST: dict[str, Any] = {"seeds": 2, "epochs": 4.0, "batch": 8, "learning_rate": 3e-3, "dropout": 0.0, "layer_decay": 1.0, "max_length": 32}


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(training file, test file): topics of sentences."""
    folder = tmp_path_factory.mktemp("task")
    return write_jsonl(folder / "train.jsonl", labelled(48, seed=1)), write_jsonl(folder / "test.jsonl", labelled(60, seed=2))


@pytest.fixture(scope="module")
def plain_folder(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that we never trained, with the tokenizer of the store."""
    from headstart.data.text.store import open_text_store

    opened = open_text_store(store)
    folder = tmp_path_factory.mktemp("plain") / "bert"
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}
    save_model_folder(BertModel(BertConfig(vocab_size=opened.vocab_size, **size)), opened.tokenizer, folder)
    return folder


def test_from_a_run_both_starts_are_trained_and_compared(trained: Path, task: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    result = headstart.finetune("classification", trained, *task, say=said.append, out=tmp_path / "out", **FAST)
    assert result.model == str(trained / "export")
    assert [arm.arm for arm in result.arms] == ["pretrained", "random"]
    assert all(len(arm.runs) == 2 for arm in result.arms)
    assert result.arm("pretrained").mean("accuracy") > 0.4, "four topics: chance is 0.25"
    assert said[-1] == result.verdict()
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert saved["verdict"] == result.verdict()
    model = load_finetuned(tmp_path / "out" / "model")
    texts = [record["text"] for record in labelled(60, seed=2)]
    truth = [record["label"] for record in labelled(60, seed=2)]
    right = sum(guess == label for guess, label in zip(model.predict(texts), truth, strict=True)) / 60
    assert right == pytest.approx(result.arm("pretrained").runs[0].metrics["accuracy"]), "the saved model is the one that was measured"


@pytest.mark.slow
def test_a_run_its_export_and_a_copied_folder_give_the_same(trained: Path, task: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(trained / "export", tmp_path / "copied")
    results = [
        headstart.finetune("classification", start, *task, say=lambda line: None, baseline=False, **FAST | {"seeds": 1})
        for start in (trained, trained / "export", tmp_path / "copied")
    ]
    losses = [result.arms[0].runs[0].loss for result in results]
    assert losses == [losses[0]] * 3


def test_from_any_transformers_folder(plain_folder: Path, task: tuple[Path, Path]) -> None:
    result = headstart.finetune("classification", plain_folder, *task, say=lambda line: None, baseline=False, **FAST | {"seeds": 1})
    assert result.arms[0].runs[0].loss < 1.2
    assert "without a random start" in result.verdict()


def test_of_electra_the_discriminator_is_taken(store: Path, tmp_path: Path) -> None:
    run = headstart.pretrain("electra", store, say=lambda line: None, out=tmp_path / "run", **TINY, **{"budget.steps": 4})
    assert backbone_folder(run.folder) == run.export / "discriminator"
    assert backbone_folder(run.export) == run.export / "discriminator"


def test_of_a_stopped_run_the_newest_checkpoint_is_taken(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    shutil.rmtree(run / "export")
    assert backbone_folder(run) == run / "checkpoints" / "step-00000024" / "export"
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UsageError, match="has no export yet"):
        backbone_folder(run)


@pytest.mark.parametrize(
    ("given", "config", "said"),
    [
        ({}, {"learning_rate": 1e-3, "epochs": 100 / 3, "batch": 16, "optimizer": "adamw", "layer_decay": 1.0}, "Set by you: nothing"),
        ({"epochs": 3.0, "batch": 32}, {"learning_rate": 1e-3, "epochs": 3.0, "batch": 32, "optimizer": "adamw"}, "Set by you: epochs, batch;"),
        ({"recipe": "electra"}, {"learning_rate": 1e-4, "epochs": 3.0, "batch": 32, "optimizer": "adam-uncorrected", "layer_decay": 0.8}, "electra"),
        ({"recipe": "small", "learning_rate": 1e-4}, {"learning_rate": 1e-4, "epochs": 10, "batch": 16}, "Set by you: learning_rate;"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:30],
)
def test_the_recipe_fills_in_what_nobody_set(
    given: dict[str, Any], config: dict[str, Any], said: str, plain_folder: Path, task: tuple[Path, Path]
) -> None:
    """A value is the person's own also where it is the one that the other recipe has."""
    settings = replace_nested(FinetuneSettings(), {"init": plain_folder, "train": task[0], "test": task[1], **given})
    plain = FinetuneConfig(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(FinetuneConfig)})
    lines: list[str] = []
    found, train = suited("classification", plain_folder, settings, plain, frozenset(given), lines.append)
    assert {name: getattr(found, name) for name in config} == config
    assert len(train) == 48
    assert "48 labelled records" in lines[0]
    assert said in lines[1]


def test_the_names_of_the_tasks_are_those_that_have_code() -> None:
    """They are written down apart, because the code needs torch."""
    assert set(TASKS) == {*kinds.TASKS, RERANKING, GENERATION, IMAGES, *dense_tasks.TASKS}
    assert set(DENSE) == dense_tasks.TASKS.keys() == CONFIGS.keys()
    assert all(issubclass(settings_of(name), CONFIGS[name]) for name in DENSE)


def test_the_command_line_tells_what_was_set(plain_folder: Path, task: tuple[Path, Path]) -> None:
    arguments = cli.parse(["classification", "--init", str(plain_folder), "--epochs", "3", "--no-baseline"])
    assert {"init", "epochs", "baseline"} <= set(arguments.given)
    assert "batch" not in arguments.given


def test_what_is_missing_or_wrong_is_said(trained: Path, task: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a folder"):
        headstart.finetune("classification", tmp_path / "nowhere", *task)
    with pytest.raises(UsageError, match="no task 'juggling'"):
        headstart.finetune("juggling", trained, *task)
    with pytest.raises(UsageError, match="there is no setting 'epoch'"):
        headstart.finetune("classification", trained, *task, epoch=3)
    with pytest.raises(UsageError, match="seeds must be int"):
        headstart.finetune("classification", trained, *task, seeds="many")
    with pytest.raises(BadInput, match=r"nothing\.jsonl"):
        headstart.finetune("classification", trained, tmp_path / "nothing.jsonl", task[1])


@pytest.mark.slow
def test_the_command_prints_table_verdict_and_json(trained: Path, task: tuple[Path, Path], tmp_path: Path) -> None:
    flags = ["--epochs", "2", "--seeds", "2", "--batch", "8", "--no-baseline", "--json", "--out", tmp_path / "out"]
    done = command("finetune", "classification", "--init", trained, "--train", task[0], "--test", task[1], *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "result.json").read_text())
    assert "accuracy" in done.stderr
