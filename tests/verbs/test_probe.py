"""`probe`: from runs, exports and files to figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import headstart as library
from headstart.cli.main import main
from headstart.core.errors import UsageError
from headstart.verbs.pretrain import Run, pretrain
from tests.golden.record import CORPUS
from tests.running import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return pretrain("mlm", CORPUS, out=tmp_path_factory.mktemp("probe") / "run", say=lambda line: None, **{**TINY, "budget.steps": 2})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    texts = [part for part in CORPUS.read_text().split("\n\n") if part.strip()][:24]
    for name, part in (("train", texts[:16]), ("test", texts[16:])):
        records = ({"text": text, "label": ["even", "odd"][number % 2]} for number, text in enumerate(part))
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, records)))
    return [folder / "train.jsonl", folder / "test.jsonl"]


def test_a_run_and_its_export_say_the_same(run: Run, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, test = map(str, files)
    models = [str(run.folder), str(run.folder / "export")]
    assert main(["probe", *models, "--train", train, "--test", test, "--out", str(tmp_path / "out"), "--random-starts", "1", "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found == json.loads((tmp_path / "out" / "probe.json").read_text())
    first, second = found["models"]
    assert first["model"] == models[0]
    assert {name: first[name] for name in ("linear_probe_accuracy", "rankme")} == {name: second[name] for name in ("linear_probe_accuracy", "rankme")}
    assert any("stand in the pre-training text" in line for line in found["leaks"]), "the records are of the corpus"
    assert "random start" in told.err
    with pytest.raises(UsageError, match="holds a probe with other settings"):
        library.probe(run.folder, train, test, out=tmp_path / "out", say=lambda line: None)


def test_what_cannot_be_is_refused_before_a_model_is_read(run: Run, files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    train, test = map(str, files)
    for argv, said in (
        ([], "No model is given"),
        (["nowhere", "--train", train, "--test", test], "nowhere does not exist"),
        ([str(run.folder), "--train", train], "--test is not given"),
        ([str(run.folder), "--train", train, "--test", train], "--train and --test are one file"),
        ([str(run.folder), "--train", train, "--test", test, "--neighbours", "0"], "--neighbours is 0"),
    ):
        assert main(["probe", *argv]) == 2
        assert said in capsys.readouterr().err
