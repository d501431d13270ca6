"""A disk that is full, read-only or gone, at the moments when a run writes to it."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.failures.faults import assert_same, assert_told, checkpoints, command, held, reach
from tests.failures.machine import SmallDisk, small_disk
from tests.running import flags, headstart, last_step, run_info

AGAIN = "then give the same command: it continues."


@pytest.mark.slow
@pytest.mark.promise(
    "The disk fills up while a checkpoint is written: the run ends with exit 4 and names the file, the checkpoint before stays whole,"
    " nothing half-written stays; with room again the same command ends with the same bits."
)
def test_full_while_a_checkpoint_is_written(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", 4000) as disk:
        run = disk.path / "run"
        process = disk.start(*command(store, disk.inside / "run"), log=log)
        reach(34, run, process, log)
        with held(process):
            assert last_step(run) < 60
            disk.fill(leave_kib=80)  # enough for the lines until then, too little for a checkpoint
        assert process.wait(timeout=120) == 4, log.read_text()
        assert_told(log.read_text(), "could not be written: No space left on device", "/run/checkpoints/", AGAIN)
        assert checkpoints(run) == [30]
        assert not list(run.glob("checkpoints/.writing-*")), "the room of the unfinished one was given back"
        assert run_info(run)["status"] == "failed"
        assert "No space left" in run_info(run)["error"]
        disk.make_room()
        done = disk.headstart(*command(store, disk.inside / "run"))
        assert done.returncode == 0, done.stderr
        assert "Continuing from step 30" in done.stdout
        assert_same(run, undisturbed)


@pytest.mark.slow
@pytest.mark.promise(
    "The disk fills up while a line of metrics.jsonl is written: exit 4 and the name of the file; the torn line is cut when the same command continues."
)
def test_full_while_a_line_of_metrics_is_written(store: Path, undisturbed: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with small_disk(tmp_path / "disk", 4000) as disk:
        run = disk.path / "run"
        process = disk.start(*command(store, disk.inside / "run"), log=log)
        reach(32, run, process, log)
        with held(process):
            assert last_step(run) < 44
            disk.fill()  # what is left is the rest of the last page of metrics.jsonl
        assert process.wait(timeout=120) == 4, log.read_text()
        assert_told(log.read_text(), "metrics.jsonl could not be written: No space left on device", AGAIN)
        assert checkpoints(run) == [30]
        torn = (run / "metrics.jsonl").read_bytes()
        disk.make_room()
        done = disk.headstart(*command(store, disk.inside / "run"))
        assert done.returncode == 0, done.stderr
        assert_same(run, undisturbed)
        assert not torn.endswith(b"\n"), "the fault was real: a page was full in the middle of a line"


@pytest.mark.slow
@pytest.mark.promise("The disk is full when a run starts, continues or writes its export: exit 4 and the name of the file; nothing that was there is harmed.")
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
        assert_same(run, undisturbed)
