"""Checkpoints on one process: whole or absent, hashed, without pickle."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart.core.errors import BadInput
from headstart.core.files import sha256_file, write_json
from headstart.engine.checkpoint import Checkpointer, load_checkpoint, pack, unpack
from headstart.engine.checkpoint_files import write_safetensors
from headstart.engine.checkpoint_state import HostBuffers, as_bytes
from tests.running import environment, quiet


def state(value: float = 1.0) -> dict[str, Any]:
    table = torch.full((3, 2), value)
    model = {"in": table, "out": table, "scalar": torch.tensor(7)}
    return {"model": model, "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}, "step": 5, "names": ["a", None]}


def everything() -> dict[str, Any]:
    """Tensors of every kind that a run may hold."""
    return {
        "fp32": torch.randn(5, 3),
        "turned": torch.randn(5, 3).t(),
        "part": torch.randn(8, 8)[2:4, ::2],
        "bf16": torch.randn(7).bfloat16(),
        "fp16": torch.randn(7).half(),
        "fp64": torch.randn(2, dtype=torch.float64),
        "int64": torch.tensor([2**62 + 1, -5]),
        "uint8": torch.arange(9, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(math.pi, dtype=torch.float64),
        "empty": torch.empty(0, 4),
        "special": torch.tensor([math.nan, math.inf, -0.0, 1e-45]),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "large": torch.randn(9, 1 << 20)[:, 1:],
    }


def files_of(checkpoint: Path) -> set[str]:
    return {path.name for path in checkpoint.iterdir()}


def save(folder: Path, *steps: int, **settings: Any) -> Checkpointer:
    saver = Checkpointer(folder, **settings)
    for step in steps:
        saver.save(step, state(step))
    saver.close()
    return saver


# what a state is


def test_pack_keeps_integer_keys_and_stores_tied_weights_once() -> None:
    tensors: dict[str, torch.Tensor] = {}
    skeleton = pack(state(), tensors)
    assert len(tensors) == 3
    again = unpack(skeleton, tensors)
    assert again["model"]["in"] is again["model"]["out"]
    assert again["optimizer"]["state"][0]["step"] == 3
    assert again["names"] == ["a", None]


@pytest.mark.parametrize("value", [print, {(1, 2): 3}])
def test_pack_refuses_what_json_cannot_hold(value: Any) -> None:
    with pytest.raises(TypeError, match=r"of a checkpoint is|a checkpoint holds"):
        pack({"hook": value}, {})


def test_paths_that_look_alike_are_two_tensors() -> None:
    tensors: dict[str, torch.Tensor] = {}
    skeleton = pack({"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}}, tensors)
    again = unpack(json.loads(json.dumps(skeleton)), tensors)
    assert (again["a/b"], again["a"]["b"]) == (0, 1)


def test_numbers_come_back_as_they_were(tmp_path: Path) -> None:
    numbers = {"inf": math.inf, "minus": -math.inf, "small": 5e-324, "third": 1 / 3, "large": 2**70, "yes": True, "text": "ü\n"}
    saver = Checkpointer(tmp_path)
    saver.save(1, {**numbers, "nan": math.nan})
    saver.close()
    loaded = load_checkpoint(tmp_path / "step-00000001")[1]
    assert math.isnan(loaded.pop("nan"))
    assert loaded == numbers
    assert loaded["yes"] is True


def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    saved = everything()
    saver = Checkpointer(tmp_path)
    saver.save(1, {"tensors": saved})
    saver.close()
    loaded = load_checkpoint(tmp_path / "step-00000001")[1]["tensors"]
    assert list(loaded) == list(saved)
    for name, tensor in saved.items():
        assert (loaded[name].shape, loaded[name].dtype) == (tensor.shape, tensor.dtype)
        assert as_bytes(loaded[name]).tobytes() == as_bytes(tensor.contiguous()).tobytes(), name


def test_the_files_are_safetensors_that_anyone_reads(tmp_path: Path) -> None:
    tensors = {name: tensor.detach().contiguous() for name, tensor in everything().items()}
    write_safetensors(tmp_path / "ours.safetensors", tensors, {"format": "pt"})
    save_file(tensors, tmp_path / "theirs.safetensors", {"format": "pt"})
    theirs = load_file(tmp_path / "theirs.safetensors")
    raw = (tmp_path / "ours.safetensors").read_bytes()
    begins = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begins])
    for name, tensor in load_file(tmp_path / "ours.safetensors").items():
        assert (begins + header[name]["data_offsets"][0]) % tensor.element_size() == 0, "aligned, so that it may be mapped"
        assert as_bytes(tensor).tobytes() == as_bytes(theirs[name]).tobytes(), name


# writing


@pytest.mark.parametrize("threads", [1, 2])
def test_save_copies_before_it_returns(tmp_path: Path, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        saver = Checkpointer(tmp_path)
        live = torch.randn(3, 12_000_000)  # pieces of several threads
        for step in (1, 2):  # the second in the buffers of the first
            live.add_(1)
            wanted = live.clone()
            saver.save(step, {"w": live, "bias": live[0, :3]})
            live.fill_(9.0)  # training goes on while the thread writes
            live.copy_(wanted)
        saver.close()
    finally:
        torch.set_num_threads(before)
    step, loaded = load_checkpoint(tmp_path / "step-00000002")
    assert step == 2
    assert torch.equal(loaded["w"], live)
    assert torch.equal(loaded["bias"], live[0, :3])


def test_host_memory_is_used_again_and_follows_the_state() -> None:
    buffers = HostBuffers()
    first = buffers.copy({"a": torch.ones(4), "b": torch.ones(2)})
    again = buffers.copy({"a": torch.zeros(4)})
    assert again["a"].data_ptr() == first["a"].data_ptr()
    assert list(again) == ["a"]
    other = buffers.copy({"a": torch.ones(5)})["a"]
    assert other.equal(torch.ones(5))
    assert buffers.copy({"a": torch.ones(5, dtype=torch.int64)})["a"].dtype == torch.int64


def test_what_a_killed_process_had_no_time_to_remove_goes_when_the_next_one_loads(tmp_path: Path) -> None:
    """It died between the name of its last checkpoint and the removal of the oldest; if that was the last of the run, no other save would do it."""
    saver = Checkpointer(tmp_path, keep=3)
    for step in (1, 2, 3):
        saver.save(step, state(step))
    saver.close()
    loader = Checkpointer(tmp_path)
    assert loader.list() == [1, 2, 3]
    found = loader.load_newest(print)
    assert found is not None
    assert found[0] == 3
    assert loader.list() == [2, 3]
    loader.close()


def test_the_newest_two_are_kept_and_the_export_lies_beside(tmp_path: Path) -> None:
    def export(folder: Path) -> None:
        folder.mkdir()
        write_json(folder / "config.json", {})

    saver = Checkpointer(tmp_path)
    for step in (1, 2, 3):
        saver.save(step, state(step), export)
    saver.close()
    assert saver.list() == [2, 3]
    assert files_of(tmp_path) == {"step-00000002", "step-00000003"}
    assert files_of(tmp_path / "step-00000003") == {"manifest.json", "state.json", "state-00001.safetensors", "export"}
    manifest = json.loads((tmp_path / "step-00000003" / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {"state.json", "state-00001.safetensors", "export/config.json"}
    for name, sha256 in manifest["sha256"].items():
        assert sha256_file(tmp_path / "step-00000003" / name) == sha256


def test_multiples_of_keep_every_are_kept_for_ever(tmp_path: Path) -> None:
    assert save(tmp_path, *range(1, 12), keep_every=4).list() == [4, 8, 10, 11]
    assert save(tmp_path / "one", 1, 2, 3, keep=1).list() == [3]


def test_a_checkpoint_that_the_run_fell_back_from_pushes_out_no_good_one(tmp_path: Path) -> None:
    save(tmp_path, 10, 20, 30)
    (tmp_path / "step-00000030" / "state.json").unlink()
    saver = save(tmp_path, 25)
    assert saver.list() == [20, 25, 30]
    assert saver.load_newest(quiet)[0] == 25  # type: ignore[index]
    assert save(tmp_path, 30).list() == [25, 30]
    assert load_checkpoint(tmp_path / "step-00000030")[0] == 30


@pytest.mark.slow
@pytest.mark.promise("A process killed while it writes a checkpoint leaves the one before whole; the rest is removed at the next start.")
def test_leftovers_of_a_killed_writer_are_removed_and_never_loaded(tmp_path: Path) -> None:
    """Killed before the first, the last and others of the changes that a save makes on the disk."""
    script = (
        "import sys, torch; from pathlib import Path; from headstart.engine.checkpoint import Checkpointer; from tests.at import At, watch\n"
        "saver, weights = Checkpointer(Path(sys.argv[1])), torch.zeros(8, 1 << 10)\n"
        "first = (saver.list() or [0])[-1]\n"
        "def save(step): saver.save(first + step, {'w': weights.fill_(first + step), 'step': first + step}); saver.wait()\n"
        "save(1); save(2); watch(At((9,), sys.argv[2], int(sys.argv[3]))); save(3)\n"
    )
    newest, seen = 0, set()
    changes = ((".writing-*", 1), ("state-*.safetensors", 1), (".state.json.*", 2), (".manifest.json.*", 3), (".writing-*", 2))  # made, ..., renamed
    for name, count in changes:
        done = subprocess.run([sys.executable, "-c", script, tmp_path, name, str(count)], env=environment(), check=False)
        assert done.returncode == -signal.SIGKILL
        seen |= {path.name[:9] for path in tmp_path.glob(".writing-*")}
        saver = Checkpointer(tmp_path)
        assert not list(tmp_path.glob(".*")), "leftovers"
        said: list[str] = []
        found = saver.load_newest(said.append)
        assert found is not None
        assert said == [], "none was half written"
        assert found[0] == newest + 2
        assert found[1]["w"].eq(found[0]).all()
        newest = found[0]
    assert seen, "no kill came in the middle of a checkpoint"


@pytest.mark.slow
def test_an_error_of_the_disk_is_raised_at_the_next_save_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """A real limit on the size of files: what the disk refuses must come back as it was said, with the file."""
    script = (
        "import resource, sys, torch; from pathlib import Path; from headstart.engine.checkpoint import Checkpointer\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "saver = Checkpointer(Path(sys.argv[1])); saver.save(1, {'w': torch.ones(1000)}); saver.wait()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "saver.save(2, {'w': torch.ones(100_000)})\n"
        "try: saver.save(3, {})\n"
        "except OSError as error: print(error.errno, Path(error.filename).name, saver.list())\n"
        "saver.save(4, {'w': torch.ones(1000)}); saver.close(); print(saver.list())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], env=environment(), capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [f"{errno.EFBIG} state-00001.safetensors [1]", "[1, 4]"], done.stderr
    assert not list(tmp_path.glob(".*"))


def test_an_export_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise ZeroDivisionError

    save(tmp_path, 1)
    saver = Checkpointer(tmp_path)
    with pytest.raises(ZeroDivisionError):
        saver.save(2, state(), export=fail)
    saver.save(2, state())
    saver.close()
    assert files_of(tmp_path) == {"step-00000001", "step-00000002"}


# reading


@pytest.mark.promise("A damaged newest checkpoint is found by its hashes; the run falls back to the one before, and says so.")
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "manifest", "skeleton", "stranger"])
def test_a_damaged_newest_checkpoint_falls_back_and_says_so(tmp_path: Path, damage: str) -> None:
    saver = save(tmp_path, 1, 2)
    folder = tmp_path / "step-00000002"
    file = folder / "state-00001.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(data[:-1])
    elif damage == "flip":
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "delete":
        file.unlink()
    elif damage == "skeleton":
        (folder / "state.json").write_text((folder / "state.json").read_text().replace("5", "6"))
    elif damage == "stranger":
        save_file({"/model/scalar": torch.tensor(8)}, folder / "state-00002.safetensors")
    else:
        (folder / "manifest.json").write_text("{")
    said: list[str] = []
    found = saver.load_newest(said.append)
    assert found is not None
    assert found[0] == 1
    assert len(said) == 1
    assert said[0].startswith(f"{folder}: is damaged: {'state-00002.safetensors is not in its manifest' if damage == 'stranger' else ''}")
    assert said[0].endswith(" Falling back to the checkpoint before it.")


def test_when_all_are_damaged_it_stops(tmp_path: Path) -> None:
    saver = save(tmp_path, 1)
    (tmp_path / "step-00000001" / "state-00001.safetensors").unlink()
    with pytest.raises(BadInput, match="every checkpoint"):
        saver.load_newest(quiet)


def test_a_folder_without_checkpoints_has_none(tmp_path: Path) -> None:
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-00000001").write_text("a file")
    saver = Checkpointer(tmp_path)
    assert saver.list() == []
    assert saver.load_newest(quiet) is None
    assert Checkpointer(tmp_path / "missing").load_newest(quiet) is None


def forged(folder: Path, change: Callable[[dict[str, Any]], None] = lambda skeleton: None, **headers: Any) -> Path:
    """A checkpoint of a stranger: its hashes are right."""
    save(folder, 1)
    made = folder / "step-00000001"
    skeleton = json.loads((made / "state.json").read_text())
    change(skeleton)
    (made / "state.json").write_text(headers.pop("skeleton", json.dumps(skeleton)))
    state_file = made / "state-00001.safetensors"
    if headers:
        tensors = load_file(state_file)
        offsets = {name: {"saved_offsets": headers.get("offsets", {}).get(name, [0] * tensor.dim())} for name, tensor in tensors.items()}
        state_file.unlink()
        write_safetensors(state_file, headers.get("tensors", tensors), {"DCP_SHARDING_INFO": headers.get("text", json.dumps(offsets))})
    if "raw" in headers:
        state_file.write_bytes(headers["raw"])
    hashes = {name: sha256_file(made / name) for name in ("state.json", "state-00001.safetensors")}
    write_json(made / "manifest.json", {"format_version": 2, "step": 1, "sha256": hashes} | headers.get("manifest", {}))
    return made


FORGERIES: dict[str, dict[str, Any]] = {
    "a tensor that is not there": {"change": lambda skeleton: skeleton["__items__"][0].__setitem__(1, {"__tensor__": "/missing"})},
    "a name that is no string": {"change": lambda skeleton: skeleton["__items__"][0].__setitem__(1, {"__tensor__": ["x"]})},
    "an entry that is no pair": {"change": lambda skeleton: skeleton["__items__"].append(3)},
    "a state that is a number": {"change": lambda skeleton: (skeleton.clear(), skeleton.update({"__float__": "1"}))},
    "no number": {"change": lambda skeleton: skeleton["__items__"].append(["x", {"__float__": "much"}])},
    "deep nesting": {"skeleton": "[" * 900 + "]" * 900},
    "deeper nesting": {"skeleton": "[" * 10**6},
    "a part far outside": {"offsets": {"/model/in": [2**62, 2**62]}},
    "a part that asks for 13 GB": {"offsets": {"/model/in": [0, 2**30]}},
    "a part before the beginning": {"offsets": {"/model/in": [-1, 0]}},
    "a part of other dimensions": {"offsets": {"/model/in": [0]}},
    "a place that is no number": {"offsets": {"/model/in": ["0", None]}},
    "no places": {"text": "{}"},
    "places that are no JSON": {"text": "{"},
    "no safetensors file": {"raw": b"PK\x03\x04" * 40},
    "a giant header": {"raw": (2**62).to_bytes(8, "little") + b"{}"},
    "a header over 100 MB": {"raw": (150_000_000).to_bytes(8, "little") + b"{" * 100},
    "an empty file": {"raw": b""},
    "a path that leads out": {"manifest": {"sha256": {"state.json": "0", "..": "0", "x.safetensors": "0"}}},
    "no hashes": {"manifest": {"sha256": ["state.json"]}},
    "hashes of nothing": {"manifest": {"sha256": {}}},
    "a step that is no number": {"manifest": {"step": "1"}},
    "a version of the future": {"manifest": {"format_version": 3}},
    "a version that is no number": {"manifest": {"format_version": [2]}},
}


@pytest.mark.promise("A forged checkpoint (giant headers, impossible places, paths that lead out, a pickle) is refused; no code in it runs.")
@pytest.mark.parametrize("name", list(FORGERIES))
def test_a_forged_checkpoint_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"is damaged|has checkpoint format") as caught:
        load_checkpoint(forged(tmp_path, **FORGERIES[name]))
    assert str(tmp_path) in caught.value.what


def test_a_part_twice_and_another_missing_shows_no_memory(tmp_path: Path) -> None:
    """Two halves at the same place have the right number of values; what neither fills is zero."""
    made = forged(tmp_path, text=json.dumps({"/model/in": {"saved_offsets": [0, 0]}}), tensors={"/model/in": torch.ones(2, 2)})
    (made / "state-00002.safetensors").write_bytes((made / "state-00001.safetensors").read_bytes())
    last = json.dumps({"/model/in": {"saved_offsets": [4, 0]}})
    write_safetensors(made / "state-00003.safetensors", {"/model/in": torch.ones(0, 2)}, {"DCP_SHARDING_INFO": last})
    skeleton = {"__items__": [["w", {"__tensor__": "/model/in"}]]}
    write_json(made / "state.json", skeleton)
    hashes = {path.name: sha256_file(path) for path in made.iterdir() if path.name.startswith("state")}
    write_json(made / "manifest.json", {"format_version": 2, "step": 1, "sha256": hashes})
    assert load_checkpoint(made)[1]["w"].tolist() == [[1, 1], [1, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "state-00001.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_of_the_checkpoint_is_not_read(tmp_path: Path, name: str, kind: str) -> None:
    save(tmp_path / "run", 1)
    file = tmp_path / "run" / "step-00000001" / name
    file.rename(tmp_path / name)
    if kind == "link":
        file.symlink_to(tmp_path / name)
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(BadInput, match=name):
        load_checkpoint(file.parent)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    """torch's own storage keeps its plan in `.metadata`, a pickle; beside our files it is a stranger that nobody opens."""

    class Bomb:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/exploded",)

    import pickle

    save(tmp_path, 1)
    folder = tmp_path / "step-00000001"
    for name in (".metadata", "__0_0.distcp", "model.safetensors.index.json"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    assert load_checkpoint(folder)[1]["step"] == 5
    forged_file = forged(tmp_path / "forged", raw=pickle.dumps(Bomb()))
    with pytest.raises(BadInput):
        load_checkpoint(forged_file)
    assert not (tmp_path / "exploded").exists()


def test_a_checkpoint_of_version_1_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "step-00000007"
    folder.mkdir()
    tensors: dict[str, torch.Tensor] = {}
    write_json(folder / "state.json", pack(state(3.0), tensors))
    save_file(tensors, folder / "state.safetensors")
    hashes = {name: sha256_file(folder / name) for name in ("state.json", "state.safetensors")}
    write_json(folder / "manifest.json", {"format_version": 1, "step": 7, "sha256": hashes})
    found = Checkpointer(tmp_path).load_newest(quiet)
    assert found is not None
    step, loaded = found
    assert step == 7
    assert torch.equal(loaded["model"]["out"], torch.full((3, 2), 3.0))
    assert loaded["model"]["in"] is loaded["model"]["out"]
    assert loaded["optimizer"]["state"][0]["step"] == 3


def test_writing_leaves_the_interpreter_to_the_training(tmp_path: Path) -> None:
    """The file is streamed in blocks: no call of the thread keeps the others out while it works on the whole state."""
    saver = Checkpointer(tmp_path)
    saver.save(1, {"w": torch.ones(1 << 22)})
    names = {thread.name for thread in threading.enumerate()}
    saver.close()
    assert any(name.startswith("checkpoint") for name in names)
    assert not any(thread.name.startswith("checkpoint") for thread in threading.enumerate())
