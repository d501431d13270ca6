"""Reading a run folder while it grows."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.core.run import RunFolder
from headstart.verbs._follow import Followed
from tests.report.folders import metrics, write_lines, write_run


def test_only_what_was_added_is_read_and_a_half_written_line_waits(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="running")
    lines = [json.dumps(record) + "\n" for record in metrics(100)]
    (run / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:20])
    followed = Followed(run)
    assert followed.refresh()
    assert list(followed.curves.series["loss"].steps) == [10, 20, 30, 40]
    assert not followed.refresh(), "nothing was added"
    with (run / "metrics.jsonl").open("a") as file:
        file.write(lines[4][20:] + lines[5])
    assert followed.refresh()
    assert list(followed.curves.series["loss"].steps) == [10, 20, 30, 40, 50, 60]
    assert followed.damaged == {}


def test_a_run_that_continues_from_a_checkpoint_is_read_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", status="running")
    followed = Followed(run)
    followed.refresh()
    assert followed.curves.step() == 400
    opened = RunFolder(run)
    opened.cut(200)
    opened.append("metrics", {"step": 210, "loss": 1.5, "tokens_per_second": 0.0})
    opened.close()
    assert followed.refresh()
    assert followed.curves.step() == 210
    assert followed.curves.series["loss"].last() == 1.5
    assert followed.curves.restarts == [210]
    assert max(followed.curves.probes["rankme"].steps) <= 200


def test_numbers_that_are_none_become_gaps(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    huge = "9" * 400
    (run / "metrics.jsonl").write_text(f'{{"step": 1, "loss": null, "a": 1e999, "b": {huge}, "c": true, "d": "x"}}\n{{"step": 2, "loss": 2}}\n')
    followed = Followed(run)
    followed.refresh()
    assert [math.isnan(value) for value in followed.curves.series["loss"].values] == [True, False]
    assert followed.curves.series["loss"].last() == 2
    assert math.isnan(followed.curves.series["a"].values[0])
    assert math.isnan(followed.curves.series["b"].values[0])
    assert not {"c", "d"} & followed.curves.series.keys()


def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "probes.jsonl").unlink()
    os.mkfifo(run / "probes.jsonl")
    with pytest.raises(BadInput, match="regular file"):
        Followed(run).refresh()


def test_a_stranger_cannot_fill_the_memory_with_names(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_lines(run / "metrics.jsonl", [{"step": step, f"name-{step}": 1.0} for step in range(1000)])
    followed = Followed(run)
    followed.refresh()
    assert len(followed.curves.series) == 200
