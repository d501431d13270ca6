"""A place that cannot be written is refused before any work: one sentence with the place, what is wrong with it, and what to give instead."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from headstart.core.errors import MachineError, UsageError
from headstart.core.places import refuse_file, refuse_folder
from tests.verbs.test_bounds import refused

MEND = "Give --out a folder where you may write."
ADDRESSES = "Give a place here; of a run the checkpoints alone may lie elsewhere."


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, a folder and a link that leads nowhere; one stands in it."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("folder").mkdir()
    Path("lost").symlink_to("nowhere")
    return tmp_path


def test_what_can_be_made_is_let_pass_and_nothing_is_left(here: Path) -> None:
    for out in ("new", "folder", "folder/a/b/c", str(here / "new")):
        refuse_folder(Path(out))
    for out in ("new.html", "file", "folder/new.html"):
        refuse_file(Path(out))
    refuse_file(Path("a/b/new.png"), made=True)
    assert {path.name for path in here.iterdir()} == {"file", "folder", "lost"}
    assert not any((here / "folder").iterdir())


@pytest.mark.parametrize(
    ("out", "what", "mend"),
    [
        ("file", "file is a file, and --out names a folder.", "Give --out another name, or move it away."),
        ("lost", "lost is a link that leads nowhere, and --out names a folder.", "Give --out another name, or move it away."),
        ("file/a/b", "The folder file/a/b cannot be made: HERE/file is a file.", MEND),
        ("lost/a", "The folder lost/a cannot be made: HERE/lost is a link that leads nowhere.", MEND),
        ("/proc/x/y", "The folder /proc/x/y cannot be made: /proc takes no files.", MEND),
        ("/proc", "The folder /proc cannot be written: /proc takes no files.", MEND),
        ("s3://bucket/run", "--out names a place on this machine, not an address (s3:/bucket/run).", ADDRESSES),
    ],
)
def test_a_folder_that_cannot_be_made(out: str, what: str, mend: str, here: Path) -> None:
    with pytest.raises(UsageError) as error:
        refuse_folder(Path(out))
    assert (error.value.what, error.value.mend) == (what.replace("HERE", str(here)), mend)


@pytest.mark.parametrize(
    ("out", "what"),
    [
        ("folder", "--out folder is a folder."),
        ("none/x.html", "--out none/x.html lies in a folder that does not exist."),
        ("file/x.html", "file/x.html cannot be written: HERE/file is a file."),
        ("/proc/x.html", "/proc/x.html cannot be written: /proc takes no files."),
        ("https://host/x.html", "--out names a place on this machine, not an address (https:/host/x.html)."),
    ],
)
def test_a_file_that_cannot_be_written(out: str, what: str, here: Path) -> None:
    with pytest.raises(UsageError) as error:
        refuse_file(Path(out))
    assert error.value.what == what.replace("HERE", str(here))
    assert "file's name" in error.value.mend or error.value.mend == ADDRESSES


@pytest.mark.parametrize(
    ("number", "error", "says"),
    [
        (errno.EACCES, UsageError, r"new cannot be made: .* answers 'Permission denied'\.\nGive --out a folder where you may write"),
        (errno.EROFS, UsageError, r"new cannot be made: .* answers 'Read-only file system'"),
        (errno.ENOSPC, MachineError, r"new could not be written: No space left on device\.\nMake room"),
    ],
    ids=["permission", "read-only", "full"],
)
def test_what_the_machine_answers_is_said(number: int, error: type[Exception], says: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, to whom every folder is open."""

    def refuse(**where: Any) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(error, match=says):
        refuse_folder(Path("new"))


def test_every_verb_refuses_its_place_before_torch_is_loaded(here: Path) -> None:
    Path("x.txt").write_text("a text")
    Path("a.csv").write_text("N,D\n1,2\n")
    is_file = "file is a file, and --out names a folder."
    under = f"The folder file/run cannot be made: {here}/file is a file."
    kept = "file is a file, and --trainer.checkpoint-folder names a folder."
    commands = {
        "report --out /proc/x.html": "/proc/x.html cannot be written: /proc takes no files.",
        "report --out none/x.html": "--out none/x.html lies in a folder that does not exist.",
        "pretrain mlm --data x.txt --budget.steps 5 --out file": is_file,
        "pretrain mlm --data x.txt --budget.steps 5 --out file/run": under,
        "pretrain mlm --data x.txt --budget.steps 5 --trainer.checkpoint-folder file": kept,
        "prepare mlm --data x.txt --out file": is_file,
        "finetune classification --init folder --train x.txt --test x.txt --out file/run": under,
        "advise --data x.txt --budget.minutes 5 --out file/run": under,
        "compare folder --out file": is_file,
        "evaluate folder --text x.txt --out file/run": under,
        "select --pool x.txt --reference x.txt --out file": is_file,
        "fit dcpt-law a.csv --out file": is_file,
        "plan cpt --init folder --domain x.txt --budget.steps 9 --out file": is_file,
        "plan dcpt --general x.txt --domain x.txt --checkpoints folder --tokens 9 --out file": is_file,
        "adapt folder --reward builtin:corners --out file": is_file,
        "curate text x.txt --out file/run": under,
        "claim electra --preset smoke --out file": is_file,
        "claim electra --preset smoke --results file": "file is a file, and --results names a folder.",
        "demo --out file": is_file,
    }
    assert refused(commands, here) == [*commands.values()]
    assert Path("file").read_text() == "mine"
    assert {path.name for path in here.iterdir()} == {"file", "folder", "lost", "x.txt", "a.csv"}
