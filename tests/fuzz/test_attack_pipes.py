"""Named pipes, devices and endless links in place of files: they are refused, nothing waits for them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.catalog.folder import what_lies_here
from headstart.core.config import read_yaml
from headstart.core.errors import HeadstartError
from headstart.core.files import read_json
from headstart.core.run import read_run
from headstart.data.image.config import ImageConfig
from headstart.data.image.survey import survey
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault
from headstart.data.text.rows import packed_rows
from headstart.data.text.store import open_text_store
from headstart.data.text.tokenizer import load_tokenizer
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.data import read_classification, read_questions
from tests.fuzz.attacks import read_all

pytestmark = pytest.mark.timeout(60)  # what must not wait or run for ever fails here

never_waits = pytest.mark.promise("A named pipe or device in place of a file is refused; nothing waits for it.")


@never_waits
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/stdin", "/dev/tty"])
def test_pipes_and_devices(theirs: Path, model: Path, trained: Path, tmp_path: Path, kind: str) -> None:
    def put(path: Path) -> Path:
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(kind)
        return path

    readers: list[Callable[[], Any]] = [
        lambda: read_yaml(put(tmp_path / "a.yaml")),
        lambda: read_json(put(tmp_path / "a.json")),
        lambda: load_tokenizer(put(tmp_path / "tokenizer.json"), TextConfig()),
        lambda: load_tokenizer(put(tmp_path / "vocab.txt"), TextConfig()),
        lambda: read_classification(put(tmp_path / "a.csv")),
        lambda: read_classification(put(tmp_path / "b.parquet")),
        lambda: read_questions(put(tmp_path / "squad.json")),
        lambda: load_encoder(put(model / "config.json").parent),
    ]
    for name in ("rows/rows.json", "tokens.npy", "tokenizer.json", "manifest.json"):
        folder = next(theirs.glob("rows/*")) if name.startswith("rows") else theirs
        put(folder / Path(name).name)
        readers.append(lambda: packed_rows(open_text_store(theirs), 32, "train", [2], [3]))
        with pytest.raises(HeadstartError):
            readers.pop()()
    for read in readers:
        with pytest.raises(HeadstartError):
            read()
    shutil.copytree(trained, tmp_path / "run")
    put(tmp_path / "run" / "run.json")
    with pytest.raises(HeadstartError):
        read_run(tmp_path / "run")
    (item,) = read_all(put(tmp_path / "text.jsonl"))
    assert isinstance(item, Fault)
    assert what_lies_here(tmp_path).n_files


@never_waits
@pytest.mark.parametrize("name", ["x.parquet", "x.npz", "x.tar", "x.png", "x.npy", "x.tif", "store/manifest.json"])
def test_pipes_among_images_that_are_looked_at(tmp_path: Path, name: str) -> None:
    """A command that names no preset looks at its images while it reads its flags."""
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    os.mkfifo(place)
    assert survey([place, tmp_path], ImageConfig()) is None
    assert survey([place.parent], ImageConfig()) is None


def test_a_link_to_nowhere_or_to_itself_in_a_folder_that_is_judged(tmp_path: Path) -> None:
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "gone")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000)
    assert what_lies_here(tmp_path).n_files == 1
