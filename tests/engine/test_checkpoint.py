"""Checkpoints: whole or absent, hashed, without pickle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headstart.core.errors import BadInput
from headstart.engine.checkpoint import Checkpointer, load_checkpoint, pack, unpack


def state(value: float = 1.0) -> dict[str, object]:
    table = torch.full((3, 2), value)
    model = {"in": table, "out": table, "scalar": torch.tensor(7)}
    return {"model": model, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "step": 5, "names": ["a", None]}


def test_pack_keeps_integer_keys_and_stores_tied_weights_once() -> None:
    tensors: dict[str, torch.Tensor] = {}
    skeleton = pack(state(), tensors)
    assert len(tensors) == 3
    again = unpack(skeleton, tensors)
    assert again["model"]["in"] is again["model"]["out"]
    assert again["optimizer"]["state"][0]["step"] == 3
    assert again["names"] == ["a", None]


def test_pack_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(TypeError, match="holds tensors, numbers and strings"):
        pack({"hook": print}, {})


def test_save_copies_before_it_returns(tmp_path: Path) -> None:
    saver = Checkpointer(tmp_path)
    live = torch.zeros(1000)
    saver.save(1, {"w": live})
    live.fill_(9.0)  # training goes on while the thread writes
    saver.close()
    step, loaded = load_checkpoint(tmp_path / "step-00000001")
    assert step == 1
    assert torch.equal(loaded["w"], torch.zeros(1000))


def test_the_newest_two_are_kept_and_the_export_lies_beside(tmp_path: Path) -> None:
    saver = Checkpointer(tmp_path)
    for step in (1, 2, 3):
        saver.save(step, state(step), export=lambda folder: folder.mkdir())
    saver.close()
    assert [path.name for path in saver.list()] == ["step-00000002", "step-00000003"]
    assert (tmp_path / "step-00000003" / "export").is_dir()


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest"])
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    saver = Checkpointer(tmp_path)
    for step in (1, 2):
        saver.save(step, state(step))
    saver.close()
    file = tmp_path / "step-00000002" / "state.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[:-1])
    elif damage == "flip":
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "delete":
        file.unlink()
    else:
        (tmp_path / "step-00000002" / "manifest.json").write_text("{")
    said: list[str] = []
    found = saver.load_newest(said.append)
    assert found is not None
    assert found[0] == 1
    assert "Falling back" in said[0]


def test_when_all_are_damaged_it_stops(tmp_path: Path) -> None:
    saver = Checkpointer(tmp_path)
    saver.save(1, state())
    saver.close()
    (tmp_path / "step-00000001" / "state.safetensors").unlink()
    with pytest.raises(BadInput, match="every checkpoint"):
        saver.load_newest(lambda line: None)


def test_leftovers_of_a_killed_writer_are_removed_and_never_loaded(tmp_path: Path) -> None:
    (tmp_path / ".writing-00000009").mkdir(parents=True)
    saver = Checkpointer(tmp_path)
    assert saver.load_newest(lambda line: None) is None
    assert not (tmp_path / ".writing-00000009").exists()
