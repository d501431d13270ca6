"""What a run may go on with: its own checkpoints and no others; and what it does when they are gone."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.verbs.pretrain import Run, pretrain
from tests.at import after, standing
from tests.running import TINY, files, flags, headstart, records, run_info, start, untimed, weight_files

STEPS = {"budget.steps": 24}


def run(store: Path, out: Path, said: list[str] | None = None, **more: Any) -> Run:
    return pretrain("causal-lm", store, out=out, say=[].append if said is None else said.append, **{**TINY, **STEPS, **more})


@pytest.fixture
def stopped(store: Path, tmp_path: Path) -> Path:
    """A run that stopped after 12 of its 24 steps, with checkpoints of 6 and 12."""
    return run(store, tmp_path / "stopped", **{"trainer.stop_at": 12}).folder


def change(file: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edits a JSON file."""
    value = json.loads(file.read_text())
    edit(value)
    file.write_text(json.dumps(value))


# --- whose checkpoints ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("Two runs never share checkpoints: in a folder that holds those of another run, a run is refused and changes nothing.")
@pytest.mark.parametrize("trained_before", [False, True])
def test_a_folder_with_the_checkpoints_of_another_run_is_refused(trained_before: bool, store: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first = run(store, tmp_path / "first", **{"trainer.checkpoint_folder": str(shared), "trainer.stop_at": 12}).folder
    second = tmp_path / "second"
    if trained_before:  # another run that had its checkpoints there, which are gone; the first took the folder since
        mine = tmp_path / "away"
        shared.rename(mine)
        run(store, second, **{"trainer.checkpoint_folder": str(shared), "trainer.stop_at": 12, "seed": 1})
        shutil.rmtree(shared)
        mine.rename(shared)
    before = {name: (shared / name).read_bytes() for name in files(shared)}
    with pytest.raises(UsageError, match=rf"shared/step-\d+ belongs to another run \({first}\), not to {second}"):
        run(store, second, **{"trainer.checkpoint_folder": str(shared), "seed": 1})
    assert {name: (shared / name).read_bytes() for name in files(shared)} == before
    said: list[str] = []
    run(store, first, said, **{"trainer.checkpoint_folder": str(shared)})
    assert "Continuing from step 12 of 24." in said


@pytest.mark.promise("A checkpoint of another run that was copied into a run is refused by name, not continued.")
def test_a_checkpoint_of_another_run_is_not_continued(stopped: Path, store: Path, tmp_path: Path) -> None:
    other = run(store, tmp_path / "other", seed=1).folder
    shutil.copytree(other / "checkpoints" / "step-00000018", stopped / "checkpoints" / "step-00000018")
    with pytest.raises(UsageError, match=rf"step-00000018 belongs to another run \({other}\).*\n?.*Move it away"):
        run(store, stopped)
    assert (stopped / "checkpoints" / "step-00000018" / "state.json").is_file()
    shutil.rmtree(stopped / "checkpoints" / "step-00000018")
    assert run(store, stopped).info["status"] == "done"


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_folder_of_checkpoints_to_itself(store: Path, tmp_path: Path) -> None:
    """Also before its first checkpoint, when nothing there tells whose it is."""
    settings = {**TINY, "budget.steps": 4000, "trainer.checkpoint_every": 2000, "trainer.checkpoint_folder": tmp_path / "shared"}
    log = tmp_path / "log"
    first = ["pretrain", "causal-lm", "--data", store, "--out", tmp_path / "first", *flags(settings)]
    process = start(*first, log=log, at=after(2, tmp_path / "first", signal.SIGSTOP))
    with standing(process, log):
        second = headstart("pretrain", "causal-lm", "--data", store, "--out", tmp_path / "second", *flags(settings))
        process.send_signal(signal.SIGTERM)
    assert second.returncode == 2, second.stderr
    assert "Another run writes its checkpoints to" in second.stderr
    assert process.wait(timeout=240) == 130


def test_in_an_object_store_the_second_run_is_refused_too(store: Path, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/shared"
    fs = fsspec.filesystem("memory")
    run(store, tmp_path / "first", **{"trainer.checkpoint_folder": url, "trainer.stop_at": 6})
    with pytest.raises(UsageError, match=rf"belongs to another run \({tmp_path / 'first'}\)"):
        run(store, tmp_path / "second", **{"trainer.checkpoint_folder": url, "seed": 1})
    fs.rm(f"{url}/step-00000006", recursive=True)  # also when it holds nothing yet
    with pytest.raises(UsageError, match=rf"belongs to another run \({tmp_path / 'first'}\)"):
        run(store, tmp_path / "third", **{"trainer.checkpoint_folder": url, "seed": 1})


def test_of_two_runs_that_take_an_object_store_in_one_moment_one_ends_at_its_first_checkpoint(store: Path, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/shared"
    fs = fsspec.filesystem("memory")

    def other_comes(line: str) -> None:
        if line.startswith("Rehearsal"):
            fs.pipe_file(f"{url}/owner.json", json.dumps({"id": "1", "name": "other"}).encode())

    with pytest.raises(UsageError, match=r"belongs to another run \(other\)"):
        pretrain("causal-lm", store, out=tmp_path / "run", say=other_comes, **{**TINY, **STEPS, "trainer.checkpoint_folder": url})
    assert not fs.glob(f"{url}/step-*/manifest.json")


def test_checkpoints_of_a_version_that_did_not_sign_them_are_still_continued(stopped: Path, store: Path) -> None:
    for manifest in stopped.glob("checkpoints/*/manifest.json"):
        change(manifest, lambda entry: entry.pop("run"))
    change(stopped / "run.json", lambda info: [info.pop(name) for name in ("id", "checkpoint")])
    said: list[str] = []
    run(store, stopped, said)
    assert "Continuing from step 12 of 24." in said


@pytest.mark.promise("Steps and precision that were changed in run.json by hand are found by the checkpoint, and refused.")
@pytest.mark.parametrize(("name", "value"), [("total_steps", 30), ("precision", "bf16")])
def test_decisions_that_were_edited_are_found_by_the_checkpoint(name: str, value: Any, stopped: Path, store: Path) -> None:
    change(stopped / "run.json", lambda info: info["decisions"].update({name: value}))
    with pytest.raises(UsageError, match=f"says {name} {value!r}, but its checkpoint .*step-00000012 was written with"):
        run(store, stopped)


# --- checkpoints that are gone ----------------------------------------------------------------------------------------------------------------


@pytest.mark.promise("When the checkpoints of a run are gone (a disk not mounted, a folder deleted), it stops and says so; it keeps every line.")
@pytest.mark.parametrize("place", ["inside", "elsewhere"])
def test_a_run_whose_checkpoints_are_gone_stops_and_keeps_its_lines(place: str, store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints" if place == "inside" else tmp_path / "elsewhere"
    more = {} if place == "inside" else {"trainer.checkpoint_folder": str(folder)}
    whole = run(store, tmp_path / "whole").folder
    out = run(store, tmp_path / "run", **more, **{"trainer.stop_at": 12}).folder
    before = {name: (out / name).read_bytes() for name in ("run.json", "metrics.jsonl", "probes.jsonl", "samples.jsonl")}
    folder.rename(tmp_path / "away")
    with pytest.raises(BadInput, match=r"no checkpoint is there, but the run .* had written one after step 12"):
        run(store, out, **more)
    assert {name: (out / name).read_bytes() for name in before} == before
    (tmp_path / "away").rename(folder)
    said: list[str] = []
    run(store, out, said, **more)
    assert "Continuing from step 12 of 24." in said
    assert untimed(records(out, "metrics")) == untimed(records(whole, "metrics"))
    assert weight_files(out) == weight_files(whole)


def test_so_does_a_run_of_a_version_that_did_not_note_them(stopped: Path, store: Path) -> None:
    change(stopped / "run.json", lambda info: [info.pop(name) for name in ("id", "checkpoint", "totals")])
    lines = (stopped / "metrics.jsonl").read_bytes()
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(BadInput, match="no checkpoint is there"):
        run(store, stopped)
    assert (stopped / "metrics.jsonl").read_bytes() == lines


def test_a_done_run_without_checkpoints_is_done(store: Path, tmp_path: Path) -> None:
    out = run(store, tmp_path / "run").folder
    shutil.rmtree(out / "checkpoints")
    said: list[str] = []
    run(store, out, said)
    assert "Nothing to do." in said[0]


def test_checkpoints_whose_run_json_is_gone_are_not_begun_anew_over(stopped: Path, store: Path) -> None:
    (stopped / "run.json").unlink()
    with pytest.raises(UsageError, match=r"its run\.json is gone") as caught:
        run(store, stopped)
    assert f"--init {stopped / 'checkpoints' / 'step-00000012' / 'export'}" in str(caught.value)


@pytest.mark.parametrize(
    ("lost", "gaps"),
    [([0, 1, 2, 3, 4, 5], "after step 0 up to step 12"), ([1, 2, 3, 4, 5], "after step 2 up to step 12"), ([2], "after step 4 up to step 6")],
)
def test_metrics_that_were_deleted_are_missed(lost: list[int], gaps: str, stopped: Path, store: Path) -> None:
    metrics = stopped / "metrics.jsonl"
    metrics.write_text("".join(line for number, line in enumerate(metrics.read_text().splitlines(keepends=True)) if number not in lost))
    said: list[str] = []
    run(store, stopped, said, **{"trainer.stop_at": 18})
    assert any(f"metrics.jsonl lacks the lines {gaps}:" in line for line in said)


@pytest.mark.parametrize("damaged", ['{"step": 6, "lo\n', "{}\n", "[1, 2]\n", '{"step": "x"}\n', "\0\0\0\n"])
def test_a_damaged_line_costs_no_other(damaged: str, stopped: Path, store: Path) -> None:
    metrics = stopped / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join([*lines[:2], damaged, *lines[3:]]))
    said: list[str] = []
    run(store, stopped, said, **{"trainer.stop_at": 18})
    assert metrics.read_text().startswith("".join([*lines[:2], *lines[3:]]))
    assert any("metrics.jsonl lacks the lines after step 4 up to step 6:" in line for line in said)


def test_what_a_run_notes_is_its_newest_checkpoint(stopped: Path) -> None:
    assert run_info(stopped)["checkpoint"] == {"step": 12, "folder": str(stopped / "checkpoints")}


@pytest.mark.parametrize("spelling", ["{}", "file://{}", "{}/../texts"])
def test_checkpoints_inside_the_data_are_refused(spelling: str, corpus: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    shutil.copytree(corpus, texts)
    before = files(texts)
    with pytest.raises(UsageError, match=r"The checkpoint folder .* would lie inside the data folder"):
        run(texts, tmp_path / "run", **{"trainer.checkpoint_folder": spelling.format(texts) + "/mine"})
    assert files(texts) == before
    assert not (tmp_path / "run").exists()


# --- what counts as the same run --------------------------------------------------------------------------------------------------------------


def test_a_dry_run_of_a_stopped_run_changes_nothing(stopped: Path, store: Path) -> None:
    before = {name: (stopped / name).read_bytes() for name in files(stopped)}
    said: list[str] = []
    run(store, stopped, said, dry_run=True)
    assert said[-1] == "Dry run: stopped before step 13. The run is as it was."
    assert {name: (stopped / name).read_bytes() for name in files(stopped)} == before


def test_paths_that_are_spelled_otherwise_are_the_same_paths(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(store)
    Path("ck").mkdir()
    settings = {**TINY, **STEPS}
    pretrain("causal-lm", "data", out="run", say=print, **settings, **{"trainer.stop_at": 12, "trainer.checkpoint_folder": "ck"})
    for data, folder in (("./data/", f"{tmp_path}/ck/"), (f"{tmp_path}/data", "ck/../ck"), (str(store), f"file://{tmp_path}/ck")):
        pretrain("causal-lm", data, out="run", say=print, **settings, **{"trainer.stop_at": 12, "trainer.checkpoint_folder": folder})
    with pytest.raises(UsageError, match=r"data: .* -> \['other'\]"):
        pretrain("causal-lm", "other", out="run", say=print, **settings, **{"trainer.checkpoint_folder": "ck"})


@pytest.mark.parametrize("wrong", [{"method.num_heads": 3}, {"init": "nowhere"}, {"batch": 10**8}])
def test_a_refused_command_leaves_no_folder_of_a_run_behind(wrong: dict[str, Any], store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run(store, tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_a_refused_command_leaves_the_run_that_is_there(stopped: Path, store: Path) -> None:
    before = files(stopped)
    with pytest.raises(UsageError):
        run(store, stopped, **{"optimizer.learning_rate": 1.0})
    assert files(stopped) == before


def test_a_setting_that_was_added_since_had_its_default(stopped: Path, store: Path) -> None:
    def as_of_before(info: dict[str, Any]) -> None:
        del info["config"]["trainer"]["ema_decay"], info["config"]["schedule"]["power"], info["config"]["mixture"], info["from_init"]

    change(stopped / "run.json", as_of_before)
    with pytest.raises(UsageError, match=r"\(trainer\.ema_decay: None -> 0\.9\)"):
        run(store, stopped, **{"trainer.ema_decay": 0.9})
    assert run(store, stopped).info["status"] == "done"
