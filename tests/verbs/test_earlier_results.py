"""A person's files, and an earlier result of other inputs, stay: a verb writes over what is its own, or says what lies there."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headstart.cli import demo as demo_cli
from headstart.cli import pretrain as pretrain_cli
from headstart.cli.claim import CLAIM
from headstart.cli.main import main
from headstart.core.errors import UsageError
from headstart.core.machine import explained
from headstart.core.places import SETTINGS, Folder, refuse_file, refuse_folder, refuse_other_settings
from headstart.verbs import (
    _adapt_settings,
    _compare_settings,
    _evaluate_settings,
    _finetune_settings,
    _fit_settings,
    _look_settings,
    _plan_settings,
    _select_settings,
)
from headstart.verbs._look_settings import vectors_folder

FOLDERS = {
    "finetune": _finetune_settings.RESULT,
    "fit": _fit_settings.RESULT,
    "evaluate": _evaluate_settings.RESULT,
    "compare": _compare_settings.RESULT,
    "demo": _look_settings.DEMO_FOLDER,
    "embed": _look_settings.EMBED_FOLDER,
    "adapt": _adapt_settings.RESULT,
    "plan dcpt": _plan_settings.SWEEP,
    "claim": CLAIM,
}


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that a verb of another kind is pointed at; one stands above it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    for name in ("x.txt", "a.csv"):
        Path(name).write_text("a text")
    return folder


@pytest.mark.parametrize("ours", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_with_other_files_is_refused_and_ones_own_goes_on(ours: Folder, theirs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run holds other files\.\nGive --out a new folder"):
        refuse_folder(theirs, ours=ours)
    own = tmp_path / "own"
    (own / ours.file).parent.mkdir(parents=True)
    refuse_folder(own, ours=ours)  # empty, or what a killed call left of it
    (own / "notes.md").write_text("of the person")
    (own / ours.file).write_text("{}")
    with pytest.raises(UsageError, match="holds other files"):
        refuse_folder(own, ours=ours)  # a file of this name, and not ours
    (own / ours.file).write_text(json.dumps(dict.fromkeys(ours.fields, 1)))
    refuse_folder(own, ours=ours)


def test_what_a_killed_call_left_is_taken_for_its_own(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / "results_2026-01-01T00-00-00.0.json").touch()
    refuse_folder(tmp_path, ours=_evaluate_settings.RESULT)


COMMANDS = {
    "finetune": (_finetune_settings.check, _finetune_settings.FinetuneSettings, {"init": Path("run"), "train": Path("x.txt"), "test": Path("x.txt")}),
    "fit": (_fit_settings.check, _fit_settings.FitSettings, {"points": (Path("a.csv"),)}),
    "evaluate": (_evaluate_settings.check, _evaluate_settings.EvaluateSettings, {"model": Path("run"), "text": ("x.txt",)}),
    "compare": (_compare_settings.check, _compare_settings.CompareSettings, {"runs": (Path("run"),)}),
    "adapt": (partial(_adapt_settings.check, Path("run")), _adapt_settings.AdaptSettings, {"reward": "builtin:modes"}),
    "plan dcpt": (_plan_settings.check_sweep, _plan_settings.SweepSettings,
                  {"general": ("x.txt",), "domain": ("x.txt",), "checkpoints": (Path("run"),), "tokens": 1e6}),
}  # fmt: skip


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_folder_of_another_run_is_refused_before_any_work(verb: str, theirs: Path) -> None:
    check, settings, given = COMMANDS[verb]
    check(settings(**given, out=Path("new")))
    with pytest.raises(UsageError, match="run holds other files"):
        check(settings(**given, out=theirs))


def test_demo_and_embed_refuse_the_folder_of_another_run(theirs: Path) -> None:
    with pytest.raises(UsageError, match="run holds other files"):
        demo_cli.run(argparse.Namespace(out=theirs, minutes=1.0, seeds=1, json=False))
    with pytest.raises(UsageError, match="run holds other files"):
        vectors_folder("run", ["x.txt"], theirs)
    assert [path.name for path in theirs.iterdir()] == ["run.json"]


def test_results_of_other_inputs_are_named(tmp_path: Path) -> None:
    refuse_other_settings(tmp_path, "vectors", {"data": ["b"]})
    (tmp_path / SETTINGS).write_text('{"run": "r", "data": ["a"]}')
    vectors_folder("r", ["a"], tmp_path)
    with pytest.raises(UsageError, match=r"holds vectors with other settings \(data: \['a'\] -> \['b'\]\)\.\nGive another --out"):
        vectors_folder("r", ["b"], tmp_path)


def test_a_law_of_other_points_stays(theirs: Path) -> None:
    """A table that has grown, and one of a folder of runs that has, is fitted anew."""
    out = Path("law")
    out.mkdir()
    for before in ({"file": "b.csv", "sha256": "0"}, {"run": "runs/x", "id": "0"}):
        law = dict.fromkeys(_fit_settings.RESULT.fields) | {"points": {"files": [before]}}
        (out / "law.json").write_text(json.dumps(law))
        was = next(iter(before.values()))
        with pytest.raises(UsageError, match=rf"law holds a law of other points \({was} -> a\.csv\)\.\nGive another --out"):
            _fit_settings.check(_fit_settings.FitSettings(points=(Path("a.csv"),), out=out))
        for points in ((Path("a.csv"), Path(was)), (Path("b.csv"), Path("runs"))):
            _fit_settings.check(_fit_settings.FitSettings(points=points, out=out))


def test_select_keeps_what_another_call_chose(tmp_path: Path) -> None:
    settings = _select_settings.SelectSettings(pool=("x.txt",), reference=("y.txt",), quota=0.5, out=tmp_path / "out")
    for name in ("x.txt", "y.txt"):
        (tmp_path / name).write_text("a text")
    settings = dataclasses.replace(settings, pool=(str(tmp_path / "x.txt"),), reference=(str(tmp_path / "y.txt"),))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pool.jsonl").write_text("of a plan")
    _select_settings.check(settings)
    (tmp_path / "out" / "selected.jsonl").write_text("of a person")
    with pytest.raises(UsageError, match="holds other files"):
        _select_settings.check(settings)
    (tmp_path / "out" / SETTINGS).write_text(json.dumps(_select_settings.asked(settings)))
    _select_settings.check(dataclasses.replace(settings, json=True))
    with pytest.raises(UsageError, match=r"holds a selection with other settings \(quota: 0\.5 -> 0\.25\)"):
        _select_settings.check(dataclasses.replace(settings, quota=0.25))


def test_a_selection_may_be_moved_with_its_files(tmp_path: Path) -> None:
    """A claim goes on in a copy of its folder, on another machine."""
    found = []
    for place in ("here", "there"):
        folder = tmp_path / place
        (folder / "model").mkdir(parents=True)
        for name in ("pool.jsonl", "reference.jsonl", "model/tokenizer.json"):
            (folder / name).write_text(name)
        pool, reference = (str(folder / f"{name}.jsonl") for name in ("pool", "reference"))
        found.append(_select_settings.asked(_select_settings.SelectSettings((pool,), (reference,), tokenizer=folder / "model", out=folder)))
    assert found[0] == found[1]
    (tmp_path / "there" / "pool.jsonl").write_text("other")
    assert _select_settings.asked(_select_settings.SelectSettings(pool=(pool,)))["pool"] == ["pool.jsonl (5 bytes)"]


@pytest.mark.parametrize("command", [["report", "runs", "--out"], ["pretrain", "mlm", "--write-config"]], ids=["report", "write-config"])
def test_another_file_stays(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "labels.jsonl"
    mine.write_text('{"text": "mine", "label": "a"}\n')
    assert main([*command, str(mine)]) == 2
    assert f"{mine} is there and is no " in capsys.readouterr().err
    assert mine.read_text() == '{"text": "mine", "label": "a"}\n'


def test_what_we_wrote_is_written_again(tmp_path: Path) -> None:
    config = tmp_path / "mlm.yaml"
    for slug in ("mlm", "electra"):
        assert pretrain_cli.run(pretrain_cli.parse([slug, "--write-config", str(config)])) == 0
    own = tmp_path / "own.yaml"
    own.write_text("batch: 64\n")
    with pytest.raises(UsageError, match=r"own\.yaml is there and is no configuration of ours"):
        pretrain_cli.run(pretrain_cli.parse(["mlm", "--write-config", str(own)]))
    assert pretrain_cli.run(pretrain_cli.parse(["mlm", "--config", str(own), "--write-config", str(own)])) == 0  # nothing of it is lost


def test_an_empty_file_or_one_with_our_mark_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    for content in (b"", b"\x89PNG mark"):
        file.write_bytes(content)
        refuse_file(file, ours=("contact sheet", b"mark"))
    file.write_bytes(b"\x89PNG of a person")
    with pytest.raises(UsageError, match=r"x\.png is there and is no contact sheet of ours\.\nGive --sheet another name, or move it away"):
        refuse_file(file, "--sheet", ours=("contact sheet", b"mark"))


def test_all_that_is_refused_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """The helper only looks."""
    kept: dict[str, Any] = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refuse_folder(tmp_path, ours=CLAIM)
    assert kept == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


@pytest.mark.parametrize(("verb", "end"), [("select", "it starts again."), ("prepare", "it continues.")])
def test_after_a_full_disk_a_verb_says_whether_it_continues(
    verb: str, end: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(argv: list[str]) -> None:
        raise explained(errno.ENOSPC, "out/scores.parquet")

    monkeypatch.setattr(f"headstart.cli.{verb}.parse", full)
    assert main([verb]) == 4
    assert capsys.readouterr().err.endswith(f"Make room on that disk, then give the same command: {end}\n")
