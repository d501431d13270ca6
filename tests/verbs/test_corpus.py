"""The data of a run when the files change: the run keeps what it began with, and a new run beside it gets its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import UsageError
from headstart.verbs.pretrain import Run, pretrain
from tests.corpus import documents, write_corpus, write_jsonl
from tests.running import TINY, assert_same_run, run_info

STEPS = {"budget.steps": 24, "trainer.stop_at": 12}


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "texts", 120)


def run(texts: Any, out: Path, said: list[str] | None = None, **more: Any) -> Run:
    settings = {**TINY, **STEPS, "text.held_out_share": 0.1, **more}
    return pretrain("causal-lm", texts, out=out, say=[].append if said is None else said.append, **settings)


def grow(texts: Path) -> None:
    write_jsonl(texts / "more.jsonl", [{"text": text} for text in documents(40, seed=7)])


def store_of(out: Path) -> Path:
    return Path(run_info(out)["data"][0]["store"])


@pytest.mark.promise("When the data grew, a stopped run goes on with the store that it began with, and says so; a new run beside it gets its own.")
def test_data_that_grew_serves_the_old_run_and_the_new(texts: Path, tmp_path: Path) -> None:
    whole = run(texts, tmp_path / "runs" / "whole", **{"trainer.stop_at": None}).folder
    old = run(texts, tmp_path / "runs" / "old").folder
    assert store_of(old) == store_of(whole)
    grow(texts)
    new = run(texts, tmp_path / "runs" / "new").folder
    assert store_of(new) != store_of(old)
    assert run_info(new)["data"][0]["counts"]["documents"] > run_info(old)["data"][0]["counts"]["documents"]
    said: list[str] = []
    run(texts, old, said, **{"trainer.stop_at": None})
    assert any("The data changed since this run began (3 -> 4 input files (new " in line for line in said)
    assert_same_run(old, whole)
    newer = run(texts, tmp_path / "runs" / "newer").folder
    assert store_of(newer) == store_of(new)


def test_files_that_were_only_touched_find_their_store(texts: Path, tmp_path: Path) -> None:
    first = run(texts, tmp_path / "runs" / "first").folder
    for file in texts.iterdir():
        os.utime(file, (1, 1))
    assert store_of(run(texts, tmp_path / "runs" / "second").folder) == store_of(first)


def test_files_that_are_gone_stop_no_run_that_has_its_store(texts: Path, tmp_path: Path) -> None:
    out = run(texts, tmp_path / "runs" / "run").folder
    shutil.rmtree(texts)
    said: list[str] = []
    assert run(texts, out, said, **{"trainer.stop_at": None}).info["status"] == "done"
    assert any("The data changed since this run began" in line and "does not exist" in line for line in said)


def test_without_store_and_files_the_run_is_refused(texts: Path, tmp_path: Path) -> None:
    out = run(texts, tmp_path / "runs" / "run").folder
    shutil.rmtree(store_of(out))
    grow(texts)
    with pytest.raises(UsageError, match="was trained on other data than"):
        run(texts, out)
    (texts / "more.jsonl").unlink()
    assert run(texts, out).info["totals"]["steps"] == 12


def test_of_a_mixture_each_entry_keeps_its_store(texts: Path, tmp_path: Path) -> None:
    entries = [str(texts / "first.txt"), str(texts / "third.jsonl")]
    more = {"mixture.weights": (0.5, 0.5)}
    whole = run(entries, tmp_path / "runs" / "whole", **more, **{"trainer.stop_at": None}).folder
    out = run(entries, tmp_path / "runs" / "run", **more).folder
    write_jsonl(texts / "third.jsonl", [{"text": text} for text in documents(50, seed=8)])
    said: list[str] = []
    run(entries, out, said, **more, **{"trainer.stop_at": None})
    assert sum("The data changed since this run began" in line for line in said) == 1
    assert_same_run(out, whole)


def test_the_number_of_workers_changes_no_store_and_no_run(texts: Path, tmp_path: Path) -> None:
    first = run(texts, tmp_path / "runs" / "first", **{"text.workers": 1}).folder
    assert store_of(run(texts, tmp_path / "runs" / "second").folder) == store_of(first)
    assert run(texts, first, **{"text.workers": 2, "trainer.stop_at": None}).info["status"] == "done"
