"""The run folder: one training, one folder, everything about it is in there (docs/architecture.md shows the files).

`run.json` is rewritten as a whole (beside and renamed); `metrics.jsonl` and `probes.jsonl` are only appended to, and a resumed run cuts the lines
past its checkpoint.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json, write_json

Status: TypeAlias = Literal["running", "done", "stopped", "failed"]
FORMAT_VERSION = 1
LEFTOVERS = (".rehearsal-*", ".export-writing", "..export-writing.*", ".run.json.*.tmp", ".*.jsonl.tmp")
"""What a killed process may leave half-written in a run folder."""


class RunFolder:
    """A run on disk, opened for writing by one process at a time.

    Args:
        folder: created when missing. What a killed process left half-written in it is removed.

    Raises:
        UsageError: it cannot be made, holds other files, or another process is writing to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = (folder / ".lock").open("a")
        except OSError as error:
            raise UsageError(f"The run folder {folder} cannot be made: {error.strerror}.", "Choose another --out.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UsageError(f"Another process is writing to the run {folder}.", "Wait for it, or choose another --out.") from None
        if not (folder / "run.json").exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            self._lock.close()
            raise UsageError(f"{folder} holds other files.", "Give a new folder for the run.")
        for leftover in (path for pattern in LEFTOVERS for path in folder.glob(pattern)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        self.info: dict[str, Any] = read_run(folder) if (folder / "run.json").exists() else {"format_version": FORMAT_VERSION}

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def export(self) -> Path:
        return self.folder / "export"

    def update(self, **fields: Any) -> None:
        """Sets top-level fields of run.json and writes it."""
        self.info.update(fields)
        write_json(self.folder / "run.json", self.info)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds one line to `name`.jsonl; numbers that JSON lacks (NaN, infinity) become null."""
        with (self.folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: _finite(value) for key, value in record.items()}) + "\n")

    def cut(self, step: int) -> None:
        """Drops the lines past `step` (and a half-written last line) from the metric files: the resumed run writes them again."""
        for name in ("metrics", "probes", "samples"):
            path = self.folder / f"{name}.jsonl"
            if not path.exists():
                continue
            kept = [record for record in read_lines(path) if record["step"] <= step]
            beside = path.with_name(f".{path.name}.tmp")
            with beside.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in kept)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)

    def close(self) -> None:
        self._lock.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_run(folder: Path) -> dict[str, Any]:
    """run.json of a run.

    Raises:
        BadInput: there is none, or it is not one of ours.
    """
    path = folder / "run.json"
    if not path.exists():
        raise BadInput("is not a run: it has no run.json.", "Give the folder that `headstart pretrain --out` made.", file=folder)
    info = read_json(path)
    if not isinstance(info, dict) or info.get("format_version") != FORMAT_VERSION:
        raise BadInput("was not written by this version of headstart.", f"Format version {FORMAT_VERSION} is expected.", file=path)
    return info


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl file of ours; a half-written last line (a kill in the middle) is left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                return
            if not isinstance(record, dict) or "step" not in record:
                return
            yield record


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
