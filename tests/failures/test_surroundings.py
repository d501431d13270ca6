"""How a program may be started and what it may be given to name, by nobody's mistake in a program: an ordinary error, never "this is a bug"."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart.cli.main import main
from tests.failures.faults import WITHOUT_RIGHTS, assert_told
from tests.failures.test_limits import limited
from tests.running import TINY, environment, flags, headstart, last_step, program, run_info

SETTINGS = {**TINY, "budget.steps": 6, "text.held_out_share": 0.1}
NOT_UTF_8 = os.fsdecode(b"caf\xe9")


def told(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str]:
    """(exit code, error) of the command line."""
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


@pytest.mark.promise("Started without standard output or any other stream (`>&-`), a run trains to its end, and no file of it takes their place.")
@pytest.mark.parametrize("closed", ["<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_run_without_streams(closed: str, store: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headstart", "pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", *flags(SETTINGS)]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, command)], env=environment(), timeout=240, check=False)
    assert done.returncode == 0
    assert run_info(tmp_path / "run")["status"] == "done"
    assert last_step(tmp_path / "run") == 6


def test_data_whose_names_are_not_utf_8(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = tmp_path / NOT_UTF_8
    texts.mkdir()
    (texts / f"{NOT_UTF_8}.txt").write_bytes((corpus / "first.txt").read_bytes())
    code, error = told(capsys, "pretrain", "causal-lm", "--data", texts, "--out", tmp_path / "run", *flags(SETTINGS))
    assert code == 0, error
    assert run_info(tmp_path / "run")["config"]["data"] == [str(texts)]


@pytest.mark.parametrize("flag", ["--out", "--trainer.checkpoint-folder"])
def test_a_run_is_not_written_under_a_name_that_it_could_not_read_again(
    flag: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", tmp_path / "run", flag, tmp_path / NOT_UTF_8, *flags(SETTINGS)]
    code, error = told(capsys, "pretrain", "causal-lm", "--data", store, *arguments)
    assert code == 2
    assert_told(error, "not UTF-8", f"Give {flag} another folder")
    assert not list(tmp_path.iterdir())


@pytest.mark.promise("What the encoding of the output lacks (a name with accents where it is ASCII) is printed as its escape, and ends no work.")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_an_output_that_lacks_a_character(encoding: str, tmp_path: Path) -> None:
    folder = tmp_path / f"\u65e5 {NOT_UTF_8}"
    folder.mkdir()
    (folder / "a.txt").write_text("A sentence.\n" * 9)
    done = headstart("list", "--data", folder, env={"PYTHONIOENCODING": f"{encoding}:strict"})
    assert done.returncode == 0, done.stderr
    shown = "\u65e5" if encoding == "utf-8" else "\\u65e5"
    assert f"{shown} caf\\udce9 holds" in done.stdout


@pytest.mark.promise("A folder of data that may not be entered is named, as one that cannot be listed: exit 3.")
@pytest.mark.parametrize("verb", [["list"], ["prepare", "causal-lm", "--out", "store"]], ids=lambda verb: verb[0])
def test_data_that_may_not_be_entered(verb: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0)
    command = [*WITHOUT_RIGHTS, *program(*verb, "--data", folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=tmp_path, check=False)
    assert done.returncode == 3, done.stderr
    assert_told(done.stderr, f"{folder}: the folder cannot be listed (Permission denied)", "Check its permissions")


NAMES = {"too long": "x" * 300, "a loop of links": "loop"}
COMMANDS = {
    "pretrain --out": ["pretrain", "causal-lm", "--data", "STORE", "--smoke", "--out", "NAME"],
    "pretrain --data": ["pretrain", "causal-lm", "--data", "NAME", "--smoke", "--out", "run"],
    "pretrain --init": ["pretrain", "causal-lm", "--data", "STORE", "--smoke", "--out", "run", "--init", "NAME"],
    "pretrain --trainer.checkpoint-folder": [
        "pretrain", "causal-lm", "--data", "STORE", "--smoke", "--out", "run", "--trainer.checkpoint-folder", "NAME",
    ],
    "pretrain --config": ["pretrain", "causal-lm", "--config", "NAME"],
    "pretrain --write-config": ["pretrain", "causal-lm", "--write-config", "NAME"],
    "prepare --out": ["prepare", "causal-lm", "--data", "STORE", "--out", "NAME"],
    "prepare --data": ["prepare", "causal-lm", "--data", "NAME", "--out", "store"],
    "finetune --init": ["finetune", "classification", "--init", "NAME", "--train", "t.jsonl", "--test", "t.jsonl"],
    "finetune --train": ["finetune", "classification", "--init", "RUN", "--train", "NAME", "--test", "t.jsonl"],
    "sample": ["sample", "NAME"],
    "peek": ["peek", "NAME"],
    "replay": ["replay", "NAME", "--step", "1"],
    "list": ["list", "--data", "NAME"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_that_no_disk_takes(
    command: str, name: str, store: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("back")
    Path("back").symlink_to("loop")
    places = {"NAME": NAMES[name], "STORE": store, "RUN": trained}
    code, error = told(capsys, *(places.get(word, word) for word in COMMANDS[command]))
    assert code in (2, 3), error
    assert_told(error)


@pytest.mark.parametrize(("flag", "value"), [("--count", -1), ("--count", 0), ("--seed", -1)])
def test_numbers_that_nothing_can_be_drawn_with(flag: str, value: int, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, error = told(capsys, "sample", trained, flag, value)
    assert code == 2
    assert_told(error, f"{value}")


@pytest.mark.promise("A process that may have too little memory even to load torch (`ulimit -v`) says so: exit 4.")
def test_too_little_memory_to_load_torch(store: Path, tmp_path: Path) -> None:
    failed = limited("RLIMIT_AS", 300 * 2**20, "pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", *flags(SETTINGS))
    assert failed.returncode == 4, failed.stderr
    assert_told(failed.stderr, "Cannot allocate memory", "ulimit -v")
    assert not (tmp_path / "run").exists()
