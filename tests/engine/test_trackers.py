"""Weights & Biases and MLflow get the metrics of a run: the real packages, writing to this disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import TINY, flags, headstart, records, run_info

SETTINGS = {**TINY, "budget.steps": 24, "trainer.log_every": 4, "trainer.checkpoint_every": 6}


@pytest.fixture
def services(tmp_path: Path) -> dict[str, str]:
    """The environment that makes both write to files."""
    return {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(tmp_path),
        "MLFLOW_TRACKING_URI": f"file://{tmp_path / 'mlflow'}",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_EXPERIMENT_NAME": "tests",
    }


def mlflow_losses(folder: Path) -> list[tuple[int, float]]:
    """(step, loss) of the only run that MLflow has."""
    (path,) = (folder / "mlflow").glob("*/*/metrics/loss")
    return [(int(step), float(value)) for _, value, step in (line.split() for line in path.read_text().splitlines())]


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log that lies 7 bytes into its file: blocks of 32 KiB, each record cut into parts that begin with checksum, length
    and kind (1 whole, 2 first, 3 middle, 4 last)."""
    at, record = 0, b""
    while at + 7 <= len(data):
        left = 32768 - (at + 7) % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record = (b"" if kind in (1, 2) else record) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield record


def wandb_losses(folder: Path) -> list[list[tuple[int, float]]]:
    """(step, loss) of each session that Weights & Biases wrote."""
    from wandb.proto import wandb_internal_pb2

    sessions = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        found = []
        for data in leveldb_records(path.read_bytes()[7:]):  # ":W&B", magic number, version
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            if "loss" in items:
                found.append((items["step"], items["loss"]))
        sessions.append(found)
    return sessions


@pytest.mark.slow
def test_both_get_what_metrics_jsonl_has_and_a_resumed_run_goes_on_in_the_same_one(store: Path, tmp_path: Path, services: dict[str, str]) -> None:
    command = ["pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", "--trainer.trackers", "wandb", "mlflow", *flags(SETTINGS)]
    for more in (["--trainer.stop-at", "12"], []):
        done = headstart(*command, *more, env=services)
        assert done.returncode == 0, done.stderr
        assert "gets no more of this run" not in done.stdout
    expected = [(record["step"], record["loss"]) for record in records(tmp_path / "run", "metrics")]
    assert mlflow_losses(tmp_path) == expected
    assert wandb_losses(tmp_path) == [expected[:3], expected[3:]]
    identity = run_info(tmp_path / "run")["trackers"]
    assert {path.name.split("-")[-1] for path in (tmp_path / "wandb").glob("offline-run-*")} == {identity["wandb"]}
    (parameter,) = (tmp_path / "mlflow").glob("*/*/params/budget.steps")
    assert parameter.read_text() == "24"


@pytest.mark.slow
def test_a_service_that_fails_is_left_out_and_the_run_goes_on(store: Path, tmp_path: Path, services: dict[str, str]) -> None:
    (tmp_path / "mlflow").write_text("a file where the folder should be")
    done = headstart(
        "pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", "--trainer.trackers", "mlflow", *flags(SETTINGS), env=services
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WARNING: mlflow gets no more of this run") == 1
    assert records(tmp_path / "run", "metrics")[-1]["step"] == 24


def test_an_unknown_tracker_is_refused(store: Path, tmp_path: Path) -> None:
    done = headstart("pretrain", "causal-lm", "--data", store, "--out", tmp_path / "run", "--trainer.trackers", "neptune", *flags(SETTINGS))
    assert done.returncode == 2
    assert "mlflow" in done.stderr
