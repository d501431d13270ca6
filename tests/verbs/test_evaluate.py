"""`evaluate`: from a run and files to figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.verbs.evaluate import evaluate
from headstart.verbs.pretrain import Run, pretrain
from tests.golden.record import CORPUS
from tests.running import TINY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = {**TINY, "text.tokenizer_kind": "bpe", "text.lowercase": False, "budget.steps": 30, "optimizer.learning_rate": 1e-2}
    return pretrain("causal-lm", CORPUS, out=tmp_path_factory.mktemp("evaluate") / "run", say=lambda line: None, **settings)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    line = CORPUS.read_text().split("\n\n")[0].split()
    items: list[dict[str, Any]] = [
        {"id": f"q{n}", "task": "quiz" if n % 3 else "cont_x", "group": f"g{n // 2}", "answer": n % 2}
        | {"context": f"a question {n}", "choices": [" one", " two, or so"]}
        for n in range(9)
    ]
    items.append({"id": "leak", "task": "quiz", "context": " ".join(line[:13]), "choices": [f" {' '.join(line[13:16])}", " no"], "answer": 0})
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    (folder / "test.jsonl").write_text(json.dumps({"text": "Some text to predict, with words."}))
    return folder


def quietly(model: Run, files: Path, out: Path, **settings: Any) -> Any:
    return evaluate(model.folder, out=out, say=lambda line: None, **{"items": files / "items.jsonl"} | settings)


def test_figures_of_items_and_texts(model: Run, files: Path, tmp_path: Path) -> None:
    found = quietly(model, files, tmp_path, text=files / "test.jsonl", samples=True)
    assert list(found.results) == ["cont_x", "quiz", "test"]
    assert found.report["n-samples"] == {"cont_x": {"original": 3, "effective": 3}, "quiz": {"original": 7, "effective": 7}}
    assert json.loads((tmp_path / "results.json").read_text()) == found.report
    assert found.results["test"]["bytes"] == 33
    assert 0 < found.results["test"]["bits_per_byte,none"] < 8
    samples = [json.loads(line) for line in (tmp_path / "samples_quiz.jsonl").read_text().splitlines()]
    assert sum(sample["acc"] for sample in samples) / 7 == found.results["quiz"]["acc,none"]
    assert samples[0]["id"] == "q1"
    assert len(samples[0]["log_probs"]) == 2


def test_items_in_training_text_are_said_and_in_the_pool_left_out(model: Run, files: Path, tmp_path: Path) -> None:
    told = quietly(model, files, tmp_path)
    assert any("1 of 10 test records" in line for line in told.leaks)  # the run's own training text
    found = quietly(model, files, tmp_path, pool=CORPUS)
    assert found.excluded == {"cont_x": 0, "quiz": 1}
    assert found.report["n-samples"]["quiz"] == {"original": 7, "effective": 6}


def test_an_earlier_evaluation_stays_beside_the_new_one(model: Run, files: Path, tmp_path: Path) -> None:
    first = quietly(model, files, tmp_path, samples=True)
    samples = (tmp_path / "samples_quiz.jsonl").read_bytes()
    said: list[str] = []
    other = {"text": files / "test.jsonl", "max_length": 12, "samples": True}
    second = evaluate(model.folder, out=tmp_path, say=said.append, items=files / "items.jsonl", **other)
    (kept,) = tmp_path.glob("results_*.json")
    assert said[-1] == f"Those of the evaluation before: {kept}"
    assert json.loads(kept.read_text()) == first.report
    assert json.loads((tmp_path / "results.json").read_text()) == second.report
    (old_samples,) = tmp_path.glob("samples_quiz_*.jsonl")
    assert old_samples.name.removeprefix("samples_quiz_").removesuffix(".jsonl") == kept.stem.removeprefix("results_")
    assert old_samples.read_bytes() == samples
    assert (tmp_path / "samples_quiz.jsonl").read_bytes() != samples
    (tmp_path / "none.jsonl").write_text('{"text": ""}')
    with pytest.raises(BadInput):
        quietly(model, files, tmp_path, text=tmp_path / "none.jsonl")
    assert json.loads((tmp_path / "results.json").read_text()) == second.report  # one that fails sets nothing aside
    quietly(model, files, tmp_path)
    assert len(list(tmp_path.glob("results_*.json"))) == 2
    assert len(list(tmp_path.glob("samples_quiz*.jsonl"))) == 2


def test_a_text_in_training_text_is_said(model: Run, files: Path, tmp_path: Path) -> None:
    """A perplexity of what the model was trained on says little; of other text there is nothing to say."""
    words = CORPUS.read_text().split("\n\n")[0]
    unseen = "Nothing of this was ever read before by anyone at all."
    (tmp_path / "seen.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in (words, unseen)))
    told = quietly(model, files, tmp_path / "out", items=[], text=[tmp_path / "seen.jsonl", files / "test.jsonl"])
    assert len(told.leaks) == 1
    assert told.leaks[0].startswith("seen: 1 of 2 test records (50.0 %) stands in the pre-training text of ")


def test_a_text_without_tokens_and_a_bad_item_are_named(model: Run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text('{"text": ""}')
    with pytest.raises(BadInput, match=r"empty\.jsonl: holds no text"):
        quietly(model, files, tmp_path / "out", text=tmp_path / "empty.jsonl")
    (tmp_path / "bad.jsonl").write_text('{"context": "", "choices": [" a", " b"], "answer": 5}')
    with pytest.raises(BadInput, match=r"bad\.jsonl, record 1"):
        quietly(model, files, tmp_path / "out", items=tmp_path / "bad.jsonl")


@pytest.mark.parametrize("settings", [{"items": []}, {"items": [], "text": ["a"], "pool": ["b"]}, {"max_length": 1}], ids=["none", "pool", "length"])
def test_impossible_settings_are_refused(model: Run, files: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        quietly(model, files, tmp_path, **settings)


def test_the_command_line_says_the_same(model: Run, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(model.folder), "--items", str(files / "items.jsonl"), "--out", str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == json.loads((tmp_path / "results.json").read_text())
    assert "quiz    acc " in captured.err
    assert main(["evaluate", "nowhere", "--items", "x"]) == 2
    assert main(["evaluate"]) == 2


def test_the_length_that_is_recorded_is_the_one_that_was_scored(model: Run, files: Path, tmp_path: Path) -> None:
    """A longer one than the network's was recorded as asked for, and the network's was used."""
    found = evaluate(model.folder, out=tmp_path, text=files / "test.jsonl", max_length=10**6, say=lambda line: None)
    again = evaluate(model.folder, out=tmp_path, text=files / "test.jsonl", say=lambda line: None)
    assert found.report["config"]["max_length"] == again.report["config"]["max_length"] < 10**6
