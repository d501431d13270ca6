"""Checkpoints in an object store, behind an fsspec URL: a real server in a process of its own, and fsspec's memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.core.errors import BadInput, UsageError
from headstart.engine.checkpoint import Checkpointer
from tests.running import SOURCE, quiet
from tests.s3_server import s3_server, store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[bytes]]:
    with s3_server() as process:
        yield process


@pytest.fixture
def bucket(server: subprocess.Popen[bytes], request: pytest.FixtureRequest) -> str:
    fs = store()
    name = "bucket-" + str(abs(hash(request.node.name)))
    fs.mkdir(name)
    return f"s3://{name}/runs/mine/checkpoints"


def names(url: str) -> set[str]:
    """The files under a URL, relative."""
    root = url.removeprefix("s3://")
    return {name.removeprefix(f"{root}/") for name in store().find(root)}


def state(step: int) -> dict[str, Any]:
    return {"w": torch.full((1000,), float(step)), "step": step, "names": ["a"]}


def export(folder: Path) -> None:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "model").write_text("weights")


@pytest.mark.promise("Checkpoints may lie in an object store (s3:// and other fsspec URLs): kept, loaded and fallen back from as on a local disk.")
def test_checkpoints_in_an_object_store(bucket: str, tmp_path: Path) -> None:
    saver = Checkpointer(bucket, scratch=tmp_path / "scratch", keep_every=1)
    saver.save(1, state(1), export)
    saver.close()
    assert names(bucket) == {f"step-00000001/{name}" for name in ("manifest.json", "state.json", "state-00001.safetensors", "export/inner/model")}
    saver = Checkpointer(bucket, scratch=tmp_path / "scratch", keep_every=3)
    for step in (2, 3, 4, 5):
        saver.save(step, state(step), export)
    saver.close()
    assert saver.list() == [3, 4, 5]
    assert {name.split("/")[0] for name in names(bucket)} == {"step-00000003", "step-00000004", "step-00000005"}
    found = saver.load_newest(quiet)
    assert found is not None
    assert found[0] == found[1]["step"] == 5
    assert found[1]["w"].eq(5).all()

    fs, newest = store(), f"{bucket}/step-00000005"
    data = bytearray(fs.cat_file(f"{newest}/state-00001.safetensors"))
    data[-1] ^= 1
    fs.pipe_file(f"{newest}/state-00001.safetensors", bytes(data))
    fs.rm_file(f"{bucket}/step-00000004/state.json")
    said: list[str] = []
    found = saver.load_newest(said.append)
    assert found is not None
    assert found[0] == 3
    assert said == [
        f"{newest}: is damaged: state-00001.safetensors is not what was written. Falling back to the checkpoint before it.",
        f"{bucket}/step-00000004: is damaged: state.json is missing. Falling back to the checkpoint before it.",
    ]
    saver = Checkpointer(bucket, scratch=tmp_path / "scratch")
    saver.save(5, state(50))  # replaces the damaged one
    saver.close()
    assert saver.load_newest(quiet)[1]["w"].eq(50).all()  # type: ignore[index]
    replaced = {name for name in names(bucket) if name.startswith("step-00000005")}
    assert replaced == {f"step-00000005/{name}" for name in ("manifest.json", "state.json", "state-00001.safetensors")}, "nothing of the old one"
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.promise("A process killed while it uploads a checkpoint leaves none of it to be found; the one before is loaded.")
def test_a_kill_in_the_middle_of_an_upload(bucket: str, tmp_path: Path) -> None:
    script = (
        "import sys, torch; from pathlib import Path; from headstart.engine.checkpoint import Checkpointer\n"
        "saver = Checkpointer(sys.argv[1], scratch=Path(sys.argv[2]))\n"
        "saver.save(1, {'w': torch.ones(10), 'step': 1}); saver.wait()\n"
        "def export(folder):\n"
        "    folder.mkdir()\n"
        "    for i in range(500): (folder / str(i)).write_text('x')\n"
        "saver.save(2, {'w': torch.ones(10), 'step': 2}, export); saver.wait()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script, bucket, tmp_path / "scratch"], env=environment)
    deadline = time.monotonic() + 240
    while not any(name.startswith("step-00000002/export") for name in names(bucket)):
        assert process.poll() is None
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert "step-00000002/state-00001.safetensors" in names(bucket)
    assert list((tmp_path / "scratch").iterdir()), "it was not in the middle"
    saver = Checkpointer(bucket, scratch=tmp_path / "scratch")
    assert saver.list() == [1]
    assert {name.split("/")[0] for name in names(bucket)} == {"step-00000001"}
    assert not list((tmp_path / "scratch").iterdir())
    said: list[str] = []
    assert saver.load_newest(said.append)[0] == 1  # type: ignore[index]
    assert said == []


def test_a_store_that_does_not_answer_is_no_damaged_checkpoint(tmp_path: Path) -> None:
    """Falling back would lose steps; the person is told what was asked for."""
    script = (
        "import sys; from pathlib import Path; from headstart.engine.checkpoint import Checkpointer\n"
        "from headstart.core.errors import MachineError\n"
        "try: Checkpointer('s3://nowhere/run', scratch=Path(sys.argv[1]))\n"
        "except MachineError as error: print(error)\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, and nobody listens
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ENDPOINT_URL": address, "AWS_MAX_ATTEMPTS": "1"}
        environment = os.environ | keys | {"PYTHONPATH": str(SOURCE)}
        done = subprocess.run([sys.executable, "-c", script, tmp_path], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("s3://nowhere/run could not be read or written: EndpointConnectionError"), done.stdout + done.stderr
    assert "then give the same command" in done.stdout


def test_the_memory_of_fsspec_is_a_place_like_any_other(tmp_path: Path) -> None:
    url = "memory://runs/checkpoints"
    saver = Checkpointer(url, scratch=tmp_path)
    for step in (1, 2, 3):
        saver.save(step, state(step), export)
    saver.close()
    assert saver.list() == [2, 3]
    assert saver.load_newest(quiet)[1]["names"] == ["a"]  # type: ignore[index]
    saver.place.fs.pipe_file("/runs/checkpoints/step-00000003/manifest.json", b"{")  # type: ignore[attr-defined]
    assert saver.load_newest(quiet)[0] == 2  # type: ignore[index]
    saver.place.fs.pipe_file("/runs/checkpoints/step-00000002/manifest.json", b"{")  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="memory://runs/checkpoints: every checkpoint"):
        saver.load_newest(quiet)


def test_a_file_url_is_a_local_folder(tmp_path: Path) -> None:
    saver = Checkpointer(f"file://{tmp_path}/checkpoints")
    saver.save(1, state(1))
    saver.close()
    assert (tmp_path / "checkpoints" / "step-00000001" / "manifest.json").is_file()


def test_a_url_that_nothing_opens_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing://bucket"):
        Checkpointer("nothing://bucket/run", scratch=tmp_path)
    with pytest.raises(UsageError, match="need a local folder"):
        Checkpointer("memory://run")


def test_without_s3fs_the_package_is_named(tmp_path: Path) -> None:
    """In an environment that has fsspec and torch, but hides s3fs."""
    script = (
        "import sys; from pathlib import Path; sys.modules['s3fs'] = None\n"
        "from headstart.engine.checkpoint import Checkpointer; from headstart.core.errors import MissingDependency\n"
        "try: Checkpointer('s3://bucket/run', scratch=Path(sys.argv[1]))\n"
        "except MissingDependency as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], env=os.environ | {"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    assert "s3://bucket/run needs the package 's3fs'" in done.stdout, done.stderr
    assert "pip install 'headstart[s3]'" in done.stdout
