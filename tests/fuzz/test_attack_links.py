"""Stores, runs and models whose files are links or names that lead out of their folder: nothing outside is read, written or emptied."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, locked, read_json
from headstart.core.run import OWN, RunFolder
from headstart.data.text.config import TextConfig
from headstart.data.text.rows import packed_rows, rows_folder
from headstart.data.text.store import ARRAYS, open_text_store, prepare_text
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.saved import load_finetuned
from tests.corpus import documents
from tests.fuzz.attacks import edit, link

pytestmark = pytest.mark.timeout(60)  # what must not wait or run for ever fails here

reads_nothing_outside = pytest.mark.promise("A hostile store, model, run or fine-tuned model cannot make headstart read a file outside its folder.")
writes_nothing_outside = pytest.mark.promise("A hostile store or run cannot make headstart write, empty or delete anything outside its folder.")


@reads_nothing_outside
@pytest.mark.parametrize("name", ["manifest.json", "tokenizer.json", *(f"{name}.npy" for name in ARRAYS)])
def test_a_store_whose_file_is_a_link_to_elsewhere(theirs: Path, outside: Path, name: str) -> None:
    link(theirs / name, outside / name)
    with pytest.raises(BadInput, match="leads out of its folder"):
        open_text_store(theirs)


def test_a_store_may_itself_be_a_link_and_hold_links_within(theirs: Path, tmp_path: Path) -> None:
    link(theirs / "tokens.npy", theirs / "moved.npy")
    (tmp_path / "here").symlink_to(theirs)
    open_text_store(tmp_path / "here")


@reads_nothing_outside
def test_rows_that_are_a_link_to_elsewhere(theirs: Path, outside: Path) -> None:
    opened = open_text_store(theirs)
    link(theirs / "rows", outside / "rows")
    with pytest.raises(BadInput, match="leads out of its folder"):
        packed_rows(opened, 32, "train", [2], [3])


@writes_nothing_outside
def test_rows_in_the_place_of_somebodys_folder(theirs: Path, outside: Path) -> None:
    """The name of the folder for these rows is a hash that anyone can compute; making rows begins with emptying it."""
    opened = open_text_store(theirs)
    key = {"builder": "packed", "begin": [2], "end": [3], "wrap": "chunk"}
    for split, length in (("train", 48), ("held_out", 48)):
        (theirs / "rows").mkdir(exist_ok=True)
        folder = theirs / "rows" / f"{split}-{length}-{rows_folder(opened, key, split, length).name.rsplit('-')[-1]}"
        folder.symlink_to(outside)
        with pytest.raises(BadInput, match="leads out of its folder"):
            packed_rows(opened, length, split, [2], [3])  # type: ignore[arg-type]
    assert (outside / "letters.txt").read_text() == "dear diary"


@writes_nothing_outside
def test_a_lock_file_that_is_a_link(theirs: Path, outside: Path, tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="is a link"), locked(tmp_path / "lock", "works"):
        pass
    opened = open_text_store(theirs)
    folder = rows_folder(opened, {"builder": "packed", "begin": [], "end": [], "wrap": "chunk"}, "train", 40)
    folder.with_suffix(".lock").symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="is a link"):
        packed_rows(opened, 40)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="is a link"):
        RunFolder(tmp_path / "run")
    assert (outside / "letters.txt").read_text() == "dear diary"


@writes_nothing_outside
def test_a_temporary_name_that_lies_in_wait(outside: Path, tmp_path: Path) -> None:
    (tmp_path / f".a.json.{os.getpid()}.tmp").symlink_to(outside / "letters.txt")
    with atomic_write(tmp_path / "a.json") as file:
        file.write(b"{}")
    assert (outside / "letters.txt").read_text() == "dear diary"
    assert read_json(tmp_path / "a.json") == {}


@writes_nothing_outside
@pytest.mark.parametrize("name", [".work", "rows", "tokens.npy", "manifest.json", "quarantine.jsonl"])
def test_a_store_is_not_written_through_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(documents(20)))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / name).symlink_to(outside)
    with pytest.raises(BadInput, match="a store is not written"):
        prepare_text([tmp_path / "a.txt"], tmp_path / "new", TextConfig(vocab_size=300))
    assert [path.name for path in outside.iterdir()] == ["letters.txt"]


@writes_nothing_outside
@pytest.mark.parametrize("name", OWN)
def test_a_run_is_not_written_through_a_link(trained: Path, tmp_path: Path, outside: Path, name: str) -> None:
    shutil.copytree(trained, tmp_path / "run")
    if (tmp_path / "run" / name).exists():
        link(tmp_path / "run" / name, outside / name)
    else:  # a run on texts draws no pictures
        (tmp_path / "run" / name).symlink_to(outside, target_is_directory=True)
    before = sorted(outside.rglob("*"))
    with pytest.raises(BadInput, match="a run does not write"):
        RunFolder(tmp_path / "run")
    assert sorted(outside.rglob("*")) == before


@writes_nothing_outside
def test_a_leftover_that_is_a_link_is_removed_and_not_followed(trained: Path, tmp_path: Path, outside: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for name in (".rehearsal-x", ".export-writing", ".metrics.jsonl.tmp"):
        (tmp_path / "run" / name).symlink_to(outside)
    RunFolder(tmp_path / "run").close()
    assert (outside / "letters.txt").exists()
    assert not (tmp_path / "run" / ".rehearsal-x").is_symlink()


@reads_nothing_outside
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json"])
def test_a_model_folder_whose_file_is_a_link_to_elsewhere(model: Path, outside: Path, name: str) -> None:
    if (model / name).exists():
        link(model / name, outside / name)
    else:
        (model / name).symlink_to(outside / "letters.txt")
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_encoder(model)


def test_a_snapshot_in_the_cache_of_the_hub_is_made_of_links(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in model.iterdir():
        shutil.copy(path, blobs / path.name)
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", path.name))
    load_encoder(snapshot)


@reads_nothing_outside
@pytest.mark.parametrize("part", ["../outside/part.safetensors", "ABSOLUTE", "linked/part.safetensors"])
def test_an_index_of_weights_that_names_a_file_elsewhere(model: Path, outside: Path, part: str) -> None:
    weights = load_file(model / "model.safetensors")
    save_file(weights, outside / "part.safetensors", metadata={"format": "pt"})
    (model / "model.safetensors").unlink()
    part = part.replace("ABSOLUTE", str(outside / "part.safetensors"))
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, part)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    if part.startswith("linked"):
        (model / "linked").symlink_to(outside)
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_encoder(model)


@reads_nothing_outside
def test_a_tokenizer_config_that_names_a_file_elsewhere(model: Path, outside: Path) -> None:
    edit(model / "tokenizer_config.json", vocab_file=str(outside / "letters.txt"))
    with pytest.raises(BadInput, match="leads out of its folder"):
        load_encoder(model)
    edit(model / "tokenizer_config.json", vocab_file="/home/somebody/long/gone/vocab.txt")  # as in many an old folder
    load_encoder(model)


@reads_nothing_outside
def test_a_fine_tuned_model_that_names_a_training_file(sound_finetuned: Path, tmp_path: Path, outside: Path) -> None:
    """`train` is a parameter of every task: a file that would be read, and whose labels an error would quote."""
    shutil.copytree(sound_finetuned, tmp_path / "model2")
    saved = json.loads((tmp_path / "model2" / "task.json").read_text())
    del saved["classes"]
    (tmp_path / "model2" / "task.json").write_text(json.dumps(saved | {"train": str(outside / "letters.txt")}))
    with pytest.raises(BadInput, match="is not a task of ours"):
        load_finetuned(tmp_path / "model2")
