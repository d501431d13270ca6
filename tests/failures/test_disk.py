"""A disk that is full, read-only or gone, at the moments when a run writes to it."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.at import At, after, standing
from tests.failures.faults import FIRST, WITHOUT_RIGHTS, assert_told, checkpoints, command
from tests.failures.machine import SmallDisk, small_disk
from tests.running import assert_same_run, environment, flags, program, run_info, start

AGAIN = "then give the same command: it continues."


def between_checkpoints(run: Path) -> At:
    """The run stands still when its first checkpoint is whole, long before the second."""
    return after(FIRST + 2, run, signal.SIGSTOP, saved=FIRST)


def filled_on_the_way(disk: SmallDisk, store: Path, log: Path, leave_kib: int = 0) -> tuple[Path, str]:
    """A run that the full disk ended after its first checkpoint, and what it printed."""
    run = disk.path / "run"
    process = disk.start(*command(store, disk.inside / "run"), log=log, at=between_checkpoints(disk.inside / "run"))
    with standing(process, log):
        disk.fill(leave_kib=leave_kib)
    assert process.wait(timeout=240) == 4, log.read_text()
    return run, log.read_text()


@pytest.mark.slow
@pytest.mark.promise(
    "The disk fills up while a checkpoint is written: the run ends with exit 4 and names the file, the checkpoint before stays whole,"
    " nothing half-written stays; with room again the same command ends with the same bits."
)
def test_full_while_a_checkpoint_is_written(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        run, told = filled_on_the_way(disk, store, tmp_path / "log", leave_kib=100)  # enough for the lines until then, too little for a checkpoint
        assert_told(told, "could not be written: No space left on device", "/run/checkpoints/", AGAIN)
        assert checkpoints(run) == [FIRST]
        assert not list(run.glob("checkpoints/.writing-*")), "the room of the unfinished one was given back"
        assert run_info(run)["status"] == "failed"
        assert "No space left" in run_info(run)["error"]
        disk.make_room()
        done = disk.headstart(*command(store, disk.inside / "run"))
        assert done.returncode == 0, done.stderr
        assert f"Continuing from step {FIRST} of" in done.stdout
        assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise(
    "The disk fills up while a line of metrics.jsonl is written: exit 4 and the name of the file;"
    " the torn line is cut when the same command continues."
)
def test_full_while_a_line_of_metrics_is_written(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        run, told = filled_on_the_way(disk, store, tmp_path / "log")  # what is left is the rest of the last page of metrics.jsonl
        assert_told(told, "metrics.jsonl could not be written: No space left on device", AGAIN)
        assert checkpoints(run) == [FIRST]
        torn = (run / "metrics.jsonl").read_bytes()
        disk.make_room()
        done = disk.headstart(*command(store, disk.inside / "run"))
        assert done.returncode == 0, done.stderr
        assert_same_run(run, undisturbed)
        assert not torn.endswith(b"\n"), "the fault was real: a page was full in the middle of a line"


@pytest.mark.slow
@pytest.mark.promise(
    "The disk is full when a run starts, continues or writes its export: exit 4 and the name of the file; nothing that was there"
    " is harmed."
)
def test_full_while_run_json_or_the_export_is_written(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        run = disk.path / "run"
        shutil.copytree(undisturbed, run)  # as if it had been killed after its last checkpoint
        shutil.rmtree(run / "export")
        text = (run / "run.json").read_text().replace('"status": "done"', '"status": "running"')
        (run / "run.json").write_text(text.replace(str(undisturbed), str(disk.inside / "run")))
        before = (run / "run.json").read_bytes()
        for leave, words in ((0, "run.json"), (60, "export")):
            disk.fill(leave)
            failed = disk.headstart(*command(store, disk.inside / "run"))
            assert failed.returncode == 4, failed.stdout + failed.stderr
            assert_told(failed.stderr, f"{words} could not be written: No space left on device", AGAIN)
            assert checkpoints(run) == checkpoints(undisturbed)
            if leave == 0:
                assert (run / "run.json").read_bytes() == before
            assert not (run / "export").exists()
            disk.make_room()
        done = disk.headstart(*command(store, disk.inside / "run"))
        assert done.returncode == 0, done.stderr
        assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise(
    "The disk fills up while a store is built, at any moment: exit 4 and the name of the file, never a signal from a memory map;"
    " with room again the same command goes on and writes the same bytes."
)
def test_full_while_a_store_is_built(corpus: Path, store: Path, tmp_path: Path) -> None:
    reached = []
    with small_disk(tmp_path / "disk", 3000) as disk:
        mine = disk.path / "store"
        arguments = ["prepare", "mlm", "--data", corpus, "--out", disk.inside / "store", *flags({"text.vocab_size": 300, "text.held_out_share": 0.1})]
        for room in (24, 92):  # KiB: for the tokenizer; and for the parts, not for the memory map that they are merged through
            disk.fill(leave_kib=max(0, room - (3000 - disk.free_kib())))
            failed = disk.headstart(*arguments)
            assert failed.returncode == 4, (room, failed.returncode, failed.stderr)
            assert_told(failed.stderr, "/store/", "could not be written: No space left on device", AGAIN)
            assert not (mine / "manifest.json").exists()
            reached.append(failed.stderr.split(" could not")[0].rsplit("/", 1)[1])
            disk.make_room()
        done = disk.headstart(*arguments)
        assert done.returncode == 0, done.stderr
        assert reached == ["000000.safetensors", "tokens.npy"]
        for path in (path for path in store.iterdir() if path.is_file() and not path.name.startswith(".")):
            assert (mine / path.name).read_bytes() == path.read_bytes(), path.name
        assert not (mine / ".work").exists()


@pytest.mark.slow
@pytest.mark.promise("The folder of a run is removed while it runs: exit 4 and what is gone, no traceback.")
def test_the_run_folder_is_removed_while_it_runs(store: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    process = start(*command(store, run), log=log, at=between_checkpoints(run))
    with standing(process, log):
        shutil.rmtree(run)
    assert process.wait(timeout=240) == 4, log.read_text()
    told = log.read_text()  # what is missed first depends on what the thread of the checkpoint was at
    assert_told(told, "It was removed or moved")
    assert re.search(rf"^headstart pretrain: {re.escape(str(run))}\S* could not be written: No such file or directory", told, re.MULTILINE), told
    assert not run.exists(), "it is not made again, half"


@pytest.mark.slow
@pytest.mark.promise(
    "The permission to write to a run is taken away while it runs: exit 4 and the file;"
    " given back, the same command ends with the same bits."
)
def test_the_permission_is_taken_away(store: Path, undisturbed: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="headstart-permission-"))
    run, log = folder / "run", folder / "log"
    try:
        with log.open("wb") as file:
            held = program(*command(store, run), at=between_checkpoints(run))
            process = subprocess.Popen([*WITHOUT_RIGHTS, *held], stdout=file, stderr=file, env=environment())
        with standing(process, log):
            (run / "metrics.jsonl").chmod(0o444)
        assert process.wait(timeout=240) == 4, log.read_text()
        assert_told(log.read_text(), f"{run}/metrics.jsonl could not be written: Permission denied", AGAIN)
        assert checkpoints(run) == [FIRST]
        (run / "metrics.jsonl").chmod(0o644)
        done = subprocess.run([*WITHOUT_RIGHTS, *program(*command(store, run))], capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == 0, done.stderr
        assert_same_run(run, undisturbed)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.promise("A run is continued on a disk that was mounted read-only: exit 4, and nothing is changed.")
def test_a_disk_mounted_read_only(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4000) as disk:
        run = disk.path / "run"
        shutil.copytree(undisturbed, run)
        (run / "run.json").write_text((run / "run.json").read_text().replace('"status": "done"', '"status": "running"'))
        disk.shell(f"mount --bind {disk.inside} {disk.inside} && mount -o remount,bind,ro {disk.inside}")
        failed = disk.headstart(*command(store, disk.inside / "run"))
        assert failed.returncode == 4, failed.stderr
        assert_told(failed.stderr, f"The run {disk.inside}/run could not be written: Read-only file system", AGAIN)
