"""Which data `pretrain` takes and how it treats them, and where a run may lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart.core.errors import BadInput, UsageError
from tests.corpus import documents, write_jsonl
from tests.running import files
from tests.verbs.pretraining import pretrain


@pytest.mark.promise("Nothing is ever written into the user's data.")
def test_nothing_is_written_into_the_data_folder(corpus: Path, tmp_path: Path) -> None:
    before = files(corpus)
    pretrain("causal-lm", corpus, tmp_path / "run", dry_run=True)
    assert files(corpus) == before
    assert next((tmp_path / "stores").iterdir()).name.startswith("text-")


def test_bad_records_stop_the_run_before_training_or_are_set_aside_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "good.jsonl", [{"text": text} for text in documents(120)])
    with (folder / "good.jsonl").open("a") as file:
        file.write('{"text": "half a rec\n')
    with pytest.raises(BadInput, match=r"good\.jsonl, record 121") as caught:
        pretrain("causal-lm", folder, tmp_path / "run")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    said: list[str] = []
    run = pretrain("causal-lm", folder, tmp_path / "run", said.append, **{"text.on_bad_input": "quarantine"})
    store = Path(run.info["data"][0]["store"])
    assert run.info["data"][0]["counts"]["quarantined"] == 1
    assert json.loads((store / "quarantine.jsonl").read_text())["record"] == 121
    assert "1 bad record" in said[-1]
    assert str(store / "quarantine.jsonl") in said[-1]


def test_a_corpus_without_held_out_documents_still_trains(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "few.jsonl", [{"text": text} for text in documents(40)])
    run = pretrain("causal-lm", path, tmp_path / "run", **{"text.held_out_share": 0.0})
    assert run.info["status"] == "done"
    assert not (run.folder / "probes.jsonl").exists()


def test_one_short_document_is_enough_to_run(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("The old boat returns.\n")
    run = pretrain("mlm", path, tmp_path / "run", **{"text.held_out_share": 0.0})
    assert run.info["status"] == "done"


def test_no_data_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No data is given"):
        pretrain("causal-lm", (), tmp_path / "run")


def test_a_run_folder_that_cannot_be_made_is_wrong_usage(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        pretrain("causal-lm", store, tmp_path / "file" / "run")


def test_a_folder_with_other_files_is_no_place_for_a_run(store: Path, tmp_path: Path) -> None:
    """Also not for cleaning up."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".rehearsal-mine").mkdir()
    with pytest.raises(UsageError, match="holds other files"):
        pretrain("causal-lm", store, tmp_path)
    assert (tmp_path / ".rehearsal-mine").is_dir()


def test_a_run_inside_the_data_folder_is_refused(corpus: Path) -> None:
    before = files(corpus)
    with pytest.raises(UsageError, match="would lie inside the data folder"):
        pretrain("causal-lm", corpus, corpus / "runs" / "mine")
    assert files(corpus) == before
