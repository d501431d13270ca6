"""Checkpoints outside the run folder: found again, kept as asked, and not forgotten when the setting changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import UsageError
from headstart.verbs.pretrain import Run, pretrain
from tests.running import TINY, records, untimed, weight_files


def run(store: Path, out: Path, folder: str, said: list[str], **more: Any) -> Run:
    settings = {**TINY, "budget.steps": 24, "trainer.checkpoint_folder": folder, **more}
    return pretrain("causal-lm", store, out=out, say=said.append, **settings)


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def as_if_killed(out: Path) -> None:
    shutil.rmtree(out / "export")
    info = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(info | {"status": "running"}))


@pytest.mark.promise("Checkpoints can lie outside the run folder (a folder, an object store): the same command finds them there.")
@pytest.mark.parametrize("url", ["{}", "file://{}"])
def test_a_run_continues_from_another_folder(url: str, store: Path, tmp_path: Path) -> None:
    folder, said = tmp_path / "elsewhere", []
    whole = run(store, tmp_path / "whole", str(tmp_path / "whole-checkpoints"), [])
    out = run(store, tmp_path / "run", url.format(folder), said).folder
    assert checkpoints(folder) == ["step-00000018", "step-00000024"]
    assert not list((out / "checkpoints").glob("step-*"))
    shutil.rmtree(folder / "step-00000024")
    as_if_killed(out)
    run(store, out, url.format(folder), said)
    assert "Continuing from step 18 of 24." in said
    assert untimed(records(out, "metrics")) == untimed(records(whole.folder, "metrics"))
    assert weight_files(out) == weight_files(whole.folder)


def test_another_folder_on_resume_is_refused_with_both_names(store: Path, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    out = run(store, tmp_path / "run", first, []).folder
    as_if_killed(out)
    with pytest.raises(UsageError, match=f"trainer.checkpoint_folder: '{first}' -> '{second}'"):
        run(store, out, second, [])


def test_what_is_kept_is_what_was_asked_for(store: Path, tmp_path: Path) -> None:
    kept = {"trainer.checkpoint_every": 2, "trainer.keep_checkpoints": 1, "trainer.keep_every": 8}
    run(store, tmp_path / "run", str(tmp_path / "folder"), [], **kept)
    assert checkpoints(tmp_path / "folder") == ["step-00000008", "step-00000016", "step-00000024"]


def test_forgetting_on_resume_what_is_kept_for_ever_is_refused(store: Path, tmp_path: Path) -> None:
    """It would delete it."""
    out = run(store, tmp_path / "run", str(tmp_path / "folder"), [], **{"trainer.checkpoint_every": 2, "trainer.keep_every": 8}).folder
    as_if_killed(out)
    with pytest.raises(UsageError, match=r"trainer\.keep_every: 8 -> None"):
        run(store, out, str(tmp_path / "folder"), [], **{"trainer.checkpoint_every": 2})
    assert (tmp_path / "folder" / "step-00000008").is_dir()
