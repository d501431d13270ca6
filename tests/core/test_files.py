import hashlib
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, locked, read_json, sha256_file, whole_folder, write_json


@pytest.mark.promise("A file of ours is whole under its name or not there, also when its writer fails in the middle.")
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_write(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
    with atomic_write(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_json_goes_and_comes_back(tmp_path: Path) -> None:
    value = {"ü": [1, 2.5, None, True], "nested": {"a": "b"}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json") == value


def test_json_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(path)
    for data in (b"{", b"caf\xe9", b"[" * 200_000, b""):
        path.write_bytes(data)
        with pytest.raises(BadInput, match="not valid JSON"):
            read_json(path)
    with path.open("wb") as file:
        file.truncate(2**29)
    with pytest.raises(BadInput, match="a JSON file of ours has at most"):
        read_json(path)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


HOLD = """
import sys, time
from headstart.core.files import locked
with locked(sys.argv[1], "works"):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.mark.promise("A lock ends with its process, however that ends: nobody has to delete a stale one.")
def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    waiter = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert waiter.stderr is not None
        assert waiter.stderr.readline().startswith("waiting for another process that works")
        assert waiter.stdout is not None
        assert not select.select([waiter.stdout], [], [], 0.5)[0]  # it is not in
        holder.kill()
        assert waiter.stdout.readline() == "in\n"
    finally:
        for process in (holder, waiter):
            process.kill()
            process.communicate()
    with locked(path, "works"):
        pass


def test_json_takes_the_name_of_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    write_json(tmp_path / "a.json", {"name": name})
    assert read_json(tmp_path / "a.json") == {"name": name}
    assert (tmp_path / "a.json").read_bytes().isascii()


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """What a killed process left beside it goes; the older one stays until the new one is whole, and none of its files is mixed into it."""
    place = tmp_path / "out" / "model"
    with whole_folder(place) as folder:
        (folder / "head").write_text("old")
        (folder / "classes").write_text("old")
    left = tmp_path / "out" / ".model.writing" / "model"
    left.mkdir(parents=True)
    (left / "head").write_text("half")

    def fail_half_way() -> None:
        with whole_folder(place) as folder:
            (folder / "head").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert {path.name: path.read_text() for path in place.iterdir()} == {"head": "old", "classes": "old"}
    with whole_folder(place) as folder:
        assert not list(folder.iterdir())
        (folder / "head").write_text("new")
    assert {path.name: path.read_text() for path in place.iterdir()} == {"head": "new"}
    assert [path.name for path in place.parent.iterdir()] == ["model"]
