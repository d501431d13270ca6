"""`export`: the model of a run in a folder of its own, of its end or of a checkpoint, whole, checked and loaded again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

import headstart
from headstart import methods
from headstart.cli.main import main
from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import sha256_file
from headstart.engine.export_hashes import verify_export
from headstart.interop.masks import read_masks, write_masks
from headstart.interop.rounded import round_weights
from headstart.verbs._kinds import kind_of
from headstart.verbs.config import preset_config
from headstart.verbs.export import Exported, export
from headstart.verbs.pretrain import pretrain
from tests.golden.record import OF_METHOD, corpus
from tests.running import TINY, quiet


@pytest.fixture
def done(trained: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged."""
    shutil.copytree(trained, tmp_path / "done")
    return tmp_path / "done"


def flip(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    file.write_bytes(raw)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_end_of_a_run_is_copied_with_its_card_and_loads_in_transformers(trained: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = export(trained, tmp_path / "deep" / "model", say=said.append)
    theirs, ours = contents(trained / "export"), contents(found.folder)
    assert {name: sha for name, sha in ours.items() if name in theirs and name != "hashes.json"} == {
        name: sha for name, sha in theirs.items() if name != "hashes.json"
    }
    assert ours.keys() - theirs.keys() == {"export.json"}
    verify_export(found.folder)
    assert found.info["step"] == found.info["of_steps"] == 24
    assert found.changed is None
    assert str(tmp_path) not in (found.folder / "export.json").read_text(), "it is made to be published"
    assert "causal-lm (tiny), the end of the run: step 24 of 24" in said[0]
    assert f"AutoModel.from_pretrained({str(found.folder)!r})" in said[1]
    made: dict[str, Any] = {}
    exec(found.load, made)
    assert torch.isfinite(made["model"](torch.arange(4)[None]).last_hidden_state).all()
    assert AutoTokenizer.from_pretrained(found.folder)("the boat").input_ids


def test_a_checkpoint_gets_a_card_of_its_moment(trained: Path, tmp_path: Path) -> None:
    found = export(trained, tmp_path / "model", step=18, say=quiet)
    there = trained / "checkpoints" / "step-00000018" / "export"
    assert load_file(found.folder / "model.safetensors").keys() == load_file(there / "model.safetensors").keys()
    assert contents(there).items() <= contents(found.folder).items()
    verify_export(found.folder)
    card = (found.folder / "README.md").read_text()
    assert "the weights are those after step 18 of 24" in card
    totals = json.loads((trained / "run.json").read_text())["totals"]
    assert f"| tokens or samples | {totals['tokens'] * 18 // 24:,} |" in card
    assert "| 18 |" in card
    assert "\n| 24 |" not in card, "the curve ends at the checkpoint"


def test_the_steps_that_there_are_are_named(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no export of step 7\.\nGive --step one of 18, 24;"):
        export(trained, tmp_path / "model", step=7)
    assert list(tmp_path.iterdir()) == []


def test_of_a_run_that_goes_on_the_newest_checkpoint_is_taken(done: Path, tmp_path: Path) -> None:
    info = json.loads((done / "run.json").read_text())
    shutil.rmtree(done / "export")
    going_on = {name: value for name, value in info.items() if name not in ("totals", "verdict")} | {"status": "running"}
    (done / "run.json").write_text(json.dumps(going_on))
    said: list[str] = []
    assert export(done, tmp_path / "model", say=said.append).info["step"] == 24
    assert "a checkpoint: step 24 of 24" in said[0]
    shutil.rmtree(done / "checkpoints")
    with pytest.raises(UsageError, match="has no export yet"):
        export(done, tmp_path / "other")


def test_checkpoints_in_an_object_store_are_fetched(store: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"budget.steps": 12, "trainer.checkpoint_folder": f"memory://{tmp_path.name}/exported"}
    out = pretrain("causal-lm", store, out=tmp_path / "run", say=quiet, **TINY, **more).folder
    shutil.rmtree(out / "checkpoints")
    found = export(out, tmp_path / "model", step=6, say=quiet)
    assert found.info["step"] == 6
    assert AutoModel.from_pretrained(found.folder).config.hidden_size == TINY["method.hidden_size"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run"], "what was fetched is gone"
    assert not (out / "checkpoints").exists(), "and nothing of it lay where the run may be writing"
    with pytest.raises(UsageError, match="Give --step one of 6, 12;"):
        export(out, tmp_path / "other", step=8)


@pytest.mark.parametrize("step", [None, 18])
def test_changed_bytes_are_refused_and_nothing_is_left(step: int | None, done: Path, tmp_path: Path) -> None:
    flip((done / "export" if step is None else done / "checkpoints" / "step-00000018" / "export") / "model.safetensors")
    with pytest.raises(BadInput, match=r"is damaged: (export/)?model\.safetensors is not what was written"):
        export(done, tmp_path / "model", step=step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done"]


def test_an_error_of_loading_speaks_of_the_folder_that_is_meant(done: Path, tmp_path: Path) -> None:
    (done / "export" / "hashes.json").unlink()
    (done / "export" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadInput) as found:
        export(done, tmp_path / "model")
    assert str(found.value).startswith(f"{tmp_path / 'model'}: the weights cannot be read")


def test_a_checkpoint_that_the_run_replaces_meanwhile(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(place: Any, step: int) -> Path:
        shutil.rmtree(place.folder / f"step-{step:08d}")  # as a run does after two further checkpoints
        return place.folder / f"step-{step:08d}" / "export"

    monkeypatch.setattr("headstart.verbs.export.fetch_export", slow)
    with pytest.raises(UsageError, match="replaced its checkpoint of step 18 while it was read"):
        export(done, tmp_path / "model", step=18)


def test_a_folder_of_somebody_else_stays_as_it_is(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for place in (tmp_path / "mine", trained, trained / "export"):
        with pytest.raises(UsageError, match="is there and holds files"):
            export(trained, place)
    with pytest.raises(UsageError, match="names a folder"):
        export(trained, tmp_path / "mine" / "notes.txt")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert export(trained, tmp_path / "empty", say=quiet).folder.is_dir()


def test_a_link_that_leads_out_of_the_export_is_not_followed(done: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (done / "export" / "hashes.json").unlink()  # an older run: every file is taken
    (done / "export" / "more.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(BadInput, match="leads out of its folder"):
        export(done, tmp_path / "model")
    (done / "export" / "more.txt").unlink()
    (done / "export" / "more.txt").write_text("of the run")
    assert (export(done, tmp_path / "model", say=quiet).folder / "more.txt").read_text() == "of the run"


def test_names_of_a_forged_list_of_hashes_do_not_lead_away(done: Path, tmp_path: Path) -> None:
    hashes = json.loads((done / "export" / "hashes.json").read_text())
    for name in ("../run.json", str(done / "run.json")):
        forged = hashes | {"sha256": hashes["sha256"] | {name: sha256_file(done / "run.json")}}
        (done / "export" / "hashes.json").write_text(json.dumps(forged))
        with pytest.raises(BadInput, match="leads out of its folder"):
            export(done, tmp_path / "model")


@pytest.fixture(scope="module")
def half(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(trained, tmp_path_factory.mktemp("half") / "model", precision="bf16", say=quiet)


def test_rounded_weights_take_half_the_room_and_say_so(half: Exported, trained: Path) -> None:
    before, after = load_file(trained / "export" / "model.safetensors"), load_file(half.folder / "model.safetensors")
    assert {value.dtype for value in after.values()} == {torch.bfloat16}
    assert all(torch.equal(after[name], value.bfloat16()) for name, value in before.items())
    assert json.loads((half.folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert half.changed is not None
    assert 1e-5 < half.changed < 0.05
    assert "rounded to bfloat16" in (half.folder / "README.md").read_text()
    verify_export(half.folder)


def test_what_is_no_weight_is_not_rounded(tmp_path: Path) -> None:
    write_masks(tmp_path, {"w": torch.tensor([True, False])})
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"dtype": "float32"}, "hidden_size": 3}))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {}}))
    round_weights(tmp_path)
    assert read_masks(tmp_path)["w"].tolist() == [True, False]
    assert json.loads((tmp_path / "config.json").read_text()) == {"text_config": {"dtype": "bfloat16"}, "hidden_size": 3}


@pytest.mark.parametrize("slug", OF_METHOD)
def test_an_export_of_every_method_is_loaded_and_asked(slug: str, tmp_path: Path) -> None:
    """Fresh networks: what they say is the same each time, changes with their weights, and hardly when these are rounded."""
    method_class = methods.load(slug)
    of_group = {group: {name[len(group) + 1 :]: value for name, value in OF_METHOD[slug].items() if name.startswith(f"{group}.")}
                for group in ("method", method_class.data_group)}  # fmt: skip
    store = method_class.prepare(corpus(slug, tmp_path), tmp_path / "store", method_class.DataConfig(**of_group[method_class.data_group]))
    method = method_class(replace_nested(preset_config(method_class, "tiny")[1].method, of_group["method"]), store)
    method.export(tmp_path / "export")
    kind, export = kind_of(method_class), tmp_path / "export"
    before = kind.answers(export)
    assert torch.equal(kind.answers(export), before)
    if "environment)" not in kind.load_line(export):
        exec(kind.load_line(export), {})
    round_weights(export)
    change = float((kind.answers(export) - before).abs().max() / before.abs().max())
    assert 0 < change < 0.05
    weights = max(export.rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    assert float((kind.answers(export) - before).abs().max() / before.abs().max()) > 2 * change


def test_the_command_line_says_the_same_as_json(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(trained), "--to", str(tmp_path / "model"), "--step", "18", "--json"]) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert (said["step"], said["method"], said["folder"]) == (18, "causal-lm", str(tmp_path / "model"))
    assert "Load it:" in printed.err
    assert main(["export", str(tmp_path), "--to", str(tmp_path / "other")]) == 3
    assert main(["export", str(trained), "--to", str(tmp_path / "other"), "--step", "0"]) == 2
    with pytest.raises(UsageError, match=r"--precision is fp16\.\nGive one of as-trained, bf16"):
        headstart.export(trained, tmp_path / "other", precision="fp16")
    assert not os.path.lexists(tmp_path / "other")
