"""The torture in small, and that it would see what it looks for."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import METHODS, TINY, environment
from tools.kill_everywhere import everywhere, unequal_files
from tools.torture import SIGHTS, differences, plan

ROOT = Path(__file__).parents[2]


def module(*arguments: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=timeout, check=False)


@pytest.mark.slow
@pytest.mark.promise(
    "Killed at moments drawn by chance over its whole life, from raw text to the export, every method ends bit for bit as undisturbed "
    "(three runs here, fifty in `make torture`)."
)
def test_a_small_torture(tmp_path: Path) -> None:
    done = module("tools.torture", "--runs", "3", "--seed", "3", "--out", str(tmp_path / "runs"), "--result", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["equal"], result["runs"]) == (3, 3)
    assert [run["method"] for run in result["each"]] == list(METHODS)
    assert all(run["kills"] and run["restarts"] for run in result["each"])
    assert "3 of 3: killed" in done.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.promise("Killed before any single change that it makes on the disk, a run ends bit for bit as undisturbed and leaves nothing else.")
def test_a_run_killed_before_changes_of_the_disk_all_over_its_life(tmp_path: Path) -> None:
    """Every 19th change; all of them with `make torture`."""
    done = module("tools.kill_everywhere", "electra", "--every", "19", "--result", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["changes"] > 7
    places = " ".join(result["killed_before"])
    assert all(stage in places for stage in (".rehearsal-", "checkpoints/.writing-", "run/export" if "run/export" in places else ".export-writing"))


def careless(folder: Path) -> None:
    """Writes a file that must not be there twice, in a way that a kill between its changes spoils."""
    count = folder / "count"
    before = int(count.read_text()) if count.exists() else 0
    count.write_text(str(before + 1))
    (folder / "done").write_text("yes")


def test_killing_everywhere_finds_work_that_a_kill_spoils(tmp_path: Path) -> None:
    killed, different = everywhere(careless, tmp_path / "places", unequal_files)
    assert killed == ["1: open count", "2: open done"]
    assert different == {"2: open done": ["count"]}


def test_killing_everywhere_names_work_that_fails_when_it_starts_again(tmp_path: Path) -> None:
    def once(folder: Path) -> None:
        (folder / "made").mkdir()
        (folder / "done").write_text("yes")

    _, different = everywhere(once, tmp_path / "places", unequal_files)
    assert list(different) == ["2: open done"]
    assert different["2: open done"][0].startswith("then exit 1: FileExistsError: ")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda run: edit(run / "metrics.jsonl", '"loss": ', '"loss": 1'), "metrics.jsonl"),
        (lambda run: edit(run / "run.json", '"status": "done"', '"status": "running"'), "status"),
        (lambda run: flip(next((run / "export").rglob("*.safetensors"))), "weights of the export"),
        (lambda run: (run / ".export-writing").mkdir(), "left over: run/.export-writing"),
        (lambda run: next((run / "export").rglob("config.json")).unlink(), "missing: run/export/config.json"),
        (lambda run: flip(run.parent / "stores" / "tokens.npy"), "bytes of stores/tokens.npy"),
    ],
    ids=["metrics", "status", "weights", "leftover", "missing", "store"],
)
def test_every_kind_of_difference_is_seen(spoil: Callable[[Path], None], named: str, trained: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        shutil.copytree(trained, tmp_path / name / "run")
        (tmp_path / name / "stores").mkdir()
        (tmp_path / name / "stores" / "tokens.npy").write_bytes(bytes(100))
    assert differences(tmp_path / "one", tmp_path / "other") == []
    spoil(tmp_path / "one" / "run")
    assert differences(tmp_path / "one", tmp_path / "other") == [named]


def test_a_last_checkpoint_of_other_weights_is_seen(trained: Path, store: Path, tmp_path: Path) -> None:
    from headstart.verbs.pretrain import pretrain

    for name, settings in (("one", {}), ("other", {"optimizer.weight_decay": 0.5})):
        pretrain("causal-lm", store, say=lambda line: None, out=tmp_path / name / "run", **TINY, **{"budget.steps": 6}, **settings)
    assert "last checkpoint" in differences(tmp_path / "one", tmp_path / "other")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def flip(path: Path) -> None:
    """Another last byte."""
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_the_plan_of_fifty_runs_has_all_methods_ways_of_killing_and_of_deciding() -> None:
    cases = [plan(number, METHODS, seed=0) for number in range(50)]
    assert cases == [plan(number, METHODS, seed=0) for number in range(50)]
    assert cases != [plan(number, METHODS, seed=1) for number in range(50)]
    assert {case.method for case in cases} == set(METHODS)
    assert {kill.how for case in cases for kill in case.kills} == {"time", "sight", "change"}
    assert {len(case.kills) for case in cases} == {1, 2, 3, 4}
    assert sum(case.decides != "given" for case in cases) >= 50 / 3
    assert {case.decides for case in cases} == {"given", "precision", "steps"}
    assert {case.method for case in cases if case.processes == 2} == set(METHODS)
    assert len({kill.at for case in cases for kill in case.kills if kill.how == "sight"}) > 0.8 * len(SIGHTS)


def test_the_kill_comes_before_the_change(tmp_path: Path) -> None:
    """`kill_at.py` on a real command line: the first change of a preparation is its folder."""
    data, work = tmp_path / "data.txt", tmp_path / "work"
    data.write_text("one line\n\nanother line\n")
    arguments = [ROOT / "tools" / "kill_at.py", "1", work, tmp_path / "report", "prepare", "mlm", "--data", data, "--out", work / "store"]
    done = subprocess.run([sys.executable, *map(str, arguments)], env=environment(), cwd=ROOT, timeout=240, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "report").read_text().startswith("mkdir ")
    assert not (tmp_path / "work").exists()
