"""The bytes of an export are those that were written; and what --init RUN means."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.verbs.finetune import backbone_folder
from headstart.verbs.pretrain import Run, pretrain
from tests.corpus import labelled, write_jsonl
from tests.running import TINY, assert_same_run, records, run_info, weight_files

STEPS = {"budget.steps": 24}


def run(slug: str, store: Path, out: Path, said: list[str] | None = None, **more: Any) -> Run:
    return pretrain(slug, store, out=out, say=[].append if said is None else said.append, **{**TINY, **STEPS, **more})


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)


@pytest.fixture
def done(trained: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged."""
    shutil.copytree(trained, tmp_path / "done")
    return tmp_path / "done"


def again(store: Path, out: Path) -> list[str]:
    said: list[str] = []
    pretrain("causal-lm", store, out=out, say=said.append, **{**TINY, **STEPS, "trainer.checkpoint_every": 6})
    return said


@pytest.mark.promise("A damaged export of a finished run is noticed, and made again from its last checkpoint by the same command.")
@pytest.mark.parametrize("damage", ["flipped", "missing", "tokenizer"])
def test_a_damaged_export_is_made_again(damage: str, done: Path, trained: Path, store: Path) -> None:
    weights = done / "export" / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    else:
        flip(weights if damage == "flipped" else done / "export" / "tokenizer.json")
    said = again(store, done)
    assert "made again from the last checkpoint" in said[0]
    assert weight_files(done) == weight_files(trained)
    assert "Nothing to do" in again(store, done)[0]


def test_a_whole_export_stays_as_it_is(done: Path, store: Path) -> None:
    (done / "export" / "README.md").write_text("what I think of it")
    (done / "export" / "notes.txt").write_text("mine")
    assert "Nothing to do" in again(store, done)[0]


@pytest.mark.promise("A model whose bytes changed since it was exported is neither fine-tuned nor continued (finetune, --init): the file is named.")
@pytest.mark.parametrize("which", ["run", "export", "checkpoint"])
def test_changed_bytes_are_refused(which: str, done: Path, store: Path, tmp_path: Path) -> None:
    export = done / ("checkpoints/step-00000024/export" if which == "checkpoint" else "export")
    given = done if which == "run" else export
    assert backbone_folder(given) == export
    flip(export / "model.safetensors")
    with pytest.raises(BadInput, match=r"is damaged: model\.safetensors is not what was written"):
        backbone_folder(given)
    with pytest.raises(BadInput, match=r"is damaged: model\.safetensors is not what was written"):
        run("causal-lm", store, tmp_path / "next", init=given)
    with pytest.raises(BadInput, match=r"is damaged"):
        headstart.sample(done) if which != "checkpoint" else backbone_folder(given)


def test_a_folder_without_a_model_is_none(tmp_path: Path) -> None:
    """Of any task and of probe: what lies there is no model of texts, and no image's fault."""
    (tmp_path / "notes.txt").write_text("mine")
    (other := tmp_path / "other.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"is neither a run \(no run\.json\) nor a model \(no config\.json\)"):
        headstart.finetune("image-classification", tmp_path, tmp_path / "notes.txt", tmp_path / "notes.txt")
    with pytest.raises(BadInput, match="is neither a run"):
        headstart.probe(tmp_path, tmp_path / "notes.txt", other)


@pytest.mark.parametrize("which", ["export", "checkpoints/step-00000024/export"])
def test_of_electra_the_folder_of_a_network_is_checked_too(which: str, store: Path, tmp_path: Path) -> None:
    out = run("electra", store, tmp_path / "run").folder
    discriminator = out / which / "discriminator"
    assert backbone_folder(discriminator) == discriminator
    flip(discriminator / "model.safetensors")
    with pytest.raises(BadInput, match="is not what was written"):
        backbone_folder(discriminator)


def test_a_folder_without_hashes_is_taken_as_it_is(done: Path, store: Path, tmp_path: Path) -> None:
    (done / "export" / "hashes.json").unlink()
    flip(done / "export" / "model.safetensors")
    assert backbone_folder(done) == done / "export"
    assert "Nothing to do" in again(store, done)[0]


# --- what --init RUN means --------------------------------------------------------------------------------------------------------------------


def test_of_a_stopped_run_init_means_its_newest_checkpoint(store: Path, tmp_path: Path) -> None:
    """As our own refusals advise."""
    first = run("causal-lm", store, tmp_path / "first", **{"trainer.stop_at": 12}).folder
    with pytest.raises(UsageError, match="holds a run with other settings") as caught:
        run("causal-lm", store, first, batch=16)
    assert f"--init {first} --out ANOTHER_FOLDER" in str(caught.value)
    said: list[str] = []
    run("causal-lm", store, tmp_path / "second", said, init=first, batch=16)
    assert f"Beginning with {first / 'checkpoints' / 'step-00000012' / 'export'}." in said
    third = run("causal-lm", store, tmp_path / "third", init=first / "checkpoints" / "step-00000012" / "export", batch=16)
    assert weight_files(tmp_path / "second") == weight_files(third.folder)


@pytest.mark.promise("A run that began with --init and has a checkpoint needs that folder no more: it ends bit for bit as if nothing had been.")
@pytest.mark.parametrize("slug", ["causal-lm", "mlm", "electra"])
def test_a_stopped_run_does_not_need_the_folder_that_it_began_with(slug: str, store: Path, tmp_path: Path) -> None:
    labels = write_jsonl(tmp_path / "labels.jsonl", labelled(40, seed=1))
    first = run(slug, store, tmp_path / "first", **{"trainer.stop_at": 6}).folder
    more: dict[str, Any] = {"init": first, "probe.labels": labels}
    whole = run(slug, store, tmp_path / "whole", **more).folder
    out = run(slug, store, tmp_path / "run", **more, **{"trainer.stop_at": 12}).folder
    first.rename(tmp_path / "away")
    run(slug, store, out, **more)
    assert_same_run(out, whole)
    assert run_info(out)["verdict"] == run_info(whole)["verdict"]


def test_before_its_first_checkpoint_it_needs_it(store: Path, tmp_path: Path) -> None:
    first = run("causal-lm", store, tmp_path / "first").folder
    run("causal-lm", store, tmp_path / "run", init=first, dry_run=True)
    first.rename(tmp_path / "away")
    with pytest.raises(UsageError, match="is not a folder"):
        run("causal-lm", store, tmp_path / "run", init=first)


def test_checkpoints_in_an_object_store_serve_as_well(store: Path, tmp_path: Path) -> None:
    first = run("causal-lm", store, tmp_path / "first").folder
    more: dict[str, Any] = {"init": first, "trainer.checkpoint_folder": f"memory://{tmp_path.name}/run"}
    whole = run("causal-lm", store, tmp_path / "whole", init=first).folder
    out = run("causal-lm", store, tmp_path / "run", **more, **{"trainer.stop_at": 12}).folder
    first.rename(tmp_path / "away")
    run("causal-lm", store, out, **more)
    assert weight_files(out) == weight_files(whole)
    assert not list((out / "checkpoints").iterdir())
    assert json.loads((out / "run.json").read_text())["checkpoint"]["folder"].startswith("memory://")
    assert records(out, "metrics")[-1]["step"] == 24
