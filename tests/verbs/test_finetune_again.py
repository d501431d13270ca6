"""A fine-tuning goes on where it was killed, finds what the undisturbed one finds, and replaces no result of other inputs."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json
from headstart.core.places import SETTINGS, known_by
from headstart.tasks.kept import TRAININGS, Kept
from headstart.tasks.metrics import Records
from headstart.tasks.result import Arm, Result, SeedRun
from tests.at import At
from tests.corpus import labelled, write_jsonl
from tests.running import flags, quiet, start

FAST: dict[str, Any] = {
    "seeds": 2, "epochs": 1.0, "batch": 8, "learning_rates": (1e-3, 3e-3), "dropout": 0.0, "layer_decay": 1.0, "max_length": 32, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("task")
    numbers = {"train": 24, "test": 20, "dev": 12}
    return {name: write_jsonl(folder / f"{name}.jsonl", labelled(count, seed=seed)) for seed, (name, count) in enumerate(numbers.items())}


@pytest.fixture(scope="module")
def whole(trained: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed fine-tuning. Read it, do not write into it."""
    out = tmp_path_factory.mktemp("finetuned") / "whole"
    tune(trained, files, out)
    return out


def tune(init: Path, files: dict[str, Path], out: Path, say: Callable[[str], None] = quiet, **settings: Any) -> list[str]:
    """What is said."""
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        say(line)

    headstart.finetune("classification", init, files["train"], files["test"], say=tell, out=out, **FAST | {"dev": files["dev"]} | settings)
    return said


def untimed(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "result.json").read_text())
    for arm in found["arms"]:
        for run in arm["runs"]:
            del run["wall_s"]
    return found


def assert_same(out: Path, whole: Path) -> None:
    assert json.dumps(untimed(out)) == json.dumps(untimed(whole)), "the order of the metrics, which is that of the table, too"
    model = whole / "model"
    assert all((out / "model" / file.relative_to(model)).read_bytes() == file.read_bytes() for file in model.rglob("*") if file.is_file())


@pytest.mark.parametrize("done", [1, 3, 6], ids=["before the rate was chosen", "in the middle", "before the model was saved"])
def test_what_was_trained_before_a_stop_is_not_trained_again(
    done: int, trained: Path, files: dict[str, Path], whole: Path, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if f"({done} of 6 runs)" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(trained, files, tmp_path / "out", stop)
    before = (tmp_path / "out" / TRAININGS).read_bytes()
    assert before.count(b"\n") == done
    said = tune(trained, files, tmp_path / "out")
    assert sum("from an earlier call" in line for line in said) == done
    assert (tmp_path / "out" / TRAININGS).read_bytes().startswith(before)
    assert_same(tmp_path / "out", whole)


def test_the_same_again_trains_nothing_and_more_seeds_are_added(trained: Path, files: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    shutil.copytree(whole, out)
    said = tune(trained, files, out)
    assert sum("from an earlier call" in line for line in said) == 6
    assert not any("trained again" in line for line in said)
    assert_same(out, whole)
    said = tune(trained, files, out, seeds=3, baseline=False)
    assert sum("from an earlier call" in line for line in said) == 3
    assert [run["seed"] for run in untimed(out)["arms"][0]["runs"]] == [0, 1, 2]


def test_a_result_of_other_inputs_or_settings_stays(trained: Path, files: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    before = (whole / "result.json").read_bytes()
    other = write_jsonl(tmp_path / "train.jsonl", labelled(24, seed=7))
    refused: dict[str, tuple[dict[str, Path], dict[str, Any]]] = {
        r"train: 'train\.jsonl \(\w{12}\)' -> 'train\.jsonl \(\w{12}\)'": (files | {"train": other}, {}),
        r"epochs: 1\.0 -> 2\.0": (files, {"epochs": 2.0}),
        r"dev: .* -> None; learning_rates: \[0\.001, 0\.003\] -> \[\]": (files, {"dev": None, "learning_rates": ()}),
    }
    for words, (given, settings) in refused.items():
        with pytest.raises(UsageError, match=rf"whole holds a fine-tuning with other settings \({words}\)\.\nGive another --out"):
            tune(trained, given, whole, **settings)
    assert (whole / "result.json").read_bytes() == before
    shutil.copytree(whole, tmp_path / "old", ignore=shutil.ignore_patterns(SETTINGS, TRAININGS))
    with pytest.raises(UsageError, match="holds a fine-tuning that does not say of what"):
        tune(trained, files, tmp_path / "old")


def test_what_is_refused_while_it_is_read_leaves_no_settings(trained: Path, files: dict[str, Path], tmp_path: Path) -> None:
    """The mended file is other input, and the same command takes it."""
    broken = tmp_path / "train.jsonl"
    broken.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    with pytest.raises(BadInput):
        tune(trained, files | {"train": broken}, tmp_path / "out")
    assert not (tmp_path / "out" / SETTINGS).exists()


def test_a_training_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Also the order of its metrics, which is that of the table."""
    records = Records.of_shares([0.1 + 0.2, 1 / 3])
    run = SeedRun(0, {"b": 0.1, "a": 0.1 + 0.2}, None, float("nan"), "it says nothing", 3, 0.5, records, ["a note"])
    first, known = Kept(tmp_path, {}).get("random", 0, 1e-3, lambda: run)
    again, known_now = Kept(tmp_path, {}).get("random", 0, 1e-3, lambda: pytest.fail("trained again"))
    assert (first, known, known_now) == (run, False, True)
    assert list(again.metrics.items()) == [("b", 0.1), ("a", 0.1 + 0.2)]
    assert again.records is not None
    assert again.records.values.tolist() == records.values.tolist()
    assert repr(again) == repr(run)


def test_a_value_that_is_no_number_loses_no_result(tmp_path: Path) -> None:
    """A setting that names a value of the user's files (--nothing nan), an error beyond all numbers."""
    runs = [SeedRun(seed, {"rmse": float("inf")}, None, 1.0, None, 3, 0.5) for seed in range(3)]
    result = Result("depth", "rmse", "x", [Arm("pretrained", 1e-3, runs)], {}, config={"nothing": float("nan")}, higher_is_better=False)
    result.save(tmp_path, lambda folder: None)
    found = read_json(tmp_path / "result.json")
    assert (found["config"], found["arms"][0]["runs"][0]["metrics"]) == ({"nothing": "nan"}, {"rmse": "inf"})


def test_a_folder_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "cats").mkdir(parents=True)
        (tmp_path / name / "cats" / "a.png").write_bytes(b"a picture")
    one, two = (known_by(tmp_path / name).removeprefix(name) for name in ("one", "two"))
    assert one == two
    (tmp_path / "two" / "cats" / "a.png").write_bytes(b"a pictura")
    assert known_by(tmp_path / "two").removeprefix("two") != one
    assert known_by(tmp_path / "two", ("*.json",)) == known_by(tmp_path / "two", ("*.bin",))


@pytest.mark.slow
def test_a_killed_fine_tuning_goes_on(trained: Path, files: dict[str, Path], whole: Path, tmp_path: Path) -> None:
    """Between the third training and its line."""
    given = {**FAST, **files, "init": trained, "out": tmp_path / "out"}
    rates = given.pop("learning_rates")
    words = [*flags(given), "--learning-rates", *map(str, rates)]
    process = start("finetune", "classification", *words, log=tmp_path / "log", at=At((signal.SIGKILL,), TRAININGS, 3))
    assert process.wait(timeout=240) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert not (tmp_path / "out" / "result.json").exists()
    said = tune(trained, files, tmp_path / "out")
    assert sum("from an earlier call" in line for line in said) == 2
    found, expected = untimed(tmp_path / "out"), untimed(whole)
    for arm, other in zip(found["arms"], expected["arms"], strict=True):
        assert arm["mean"] == pytest.approx(other["mean"])
