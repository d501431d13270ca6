"""The run folder: one training, one folder, everything about it is in there (docs/architecture.md shows the files).

`run.json` is rewritten as a whole (beside and renamed); `metrics.jsonl` and `probes.jsonl` are only appended to, and a resumed run cuts the lines
past its checkpoint.
"""

from __future__ import annotations

import fcntl
import io
import json
import math
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from headstart.core.errors import BadInput, MachineError, UsageError
from headstart.core.files import atomic_write, open_lock, open_regular, read_json, sync_folder, write_json
from headstart.core.machine import explained, refusal, writing

Status: TypeAlias = Literal["running", "done", "stopped", "failed"]
FORMAT_VERSION = 1
LEFTOVERS = (".rehearsal-*", ".export-writing", "..export-writing.*", ".run.json.*.tmp", ".*.jsonl.*tmp")
"""What a killed process may leave half-written in a run folder."""
OWN = ("run.json", "metrics.jsonl", "probes.jsonl", "samples.jsonl", "pictures", "tb", "checkpoints", "export")
"""What a run writes, replaces or deletes in its folder: never through a link."""
PART_LOSS, PART_SAMPLE, PART_BITS = "held_out_loss/", "held_out_sample/", "bits_per_byte/"
"""Probes of a named part of the data, whose name follows: its held-out loss; where that is of the whole split, the loss of the sample that all other
points are of; bits a byte."""
UNITS = ("tokens", "images")
"""What rows are measured in."""
MAX_LINE = 2**24
"""Characters of a line of a .jsonl file of ours; the longest hold samples, some kilobytes."""


class RunFolder:
    """A run on disk, opened for writing by one process at a time.

    Args:
        folder: created when missing. What a killed process left half-written in it is removed.
        writes: False on the other processes of a distributed run: they read what is there, and what they are told to write is left to the first.

    Attributes:
        info: run.json. Its "id" is drawn when the run begins: every checkpoint carries it, so that none of another run is taken for its own.

    Raises:
        UsageError: it cannot be made, holds other files, or another process is writing to it.
        MachineError: it is there, and this machine no longer lets us write to it.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        self.only_looks = False  # a dry run of a run that has begun: run.json stays as it is
        self._updating = threading.Lock()  # the thread that writes checkpoints notes them here
        if writes:
            self._open()
        self.is_new = not (folder / "run.json").exists()
        self.info: dict[str, Any] = {"format_version": FORMAT_VERSION} if self.is_new else read_run(folder)
        self._notes_checkpoints = "id" in self.info  # the version that drew it notes its checkpoints too
        self.info.setdefault("id", secrets.token_hex(8))

    def _open(self) -> None:
        folder = self.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = open_lock(folder / ".lock")
        except OSError as error:
            if (folder / "run.json").exists() and (refused := refusal(error, writing=True)):
                raise explained(refused[0], f"The run {folder}") from None
            raise UsageError(f"The run folder {folder} cannot be made: {error.strerror}.", "Choose another --out.") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken = os.fstat(self._lock.fileno()).st_ino != (folder / ".lock").stat().st_ino  # `discard` of another process removed it
        except OSError:
            taken = True
        if taken:
            self._lock.close()
            raise UsageError(f"Another process is writing to the run {folder}.", "Wait for it, or choose another --out.")
        if not (folder / "run.json").exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            self._lock.close()
            if checkpoints := sorted((folder / "checkpoints").glob("step-*")):
                raise UsageError(
                    f"{folder} holds the checkpoints of a run, but its run.json is gone.",
                    f"Bring run.json back and give the same command; or start a new run from its weights: --init {checkpoints[-1] / 'export'}"
                    " --out ANOTHER_FOLDER.",
                )
            raise UsageError(f"{folder} holds other files.", "Give a new folder for the run.")
        if links := [name for name in OWN if (folder / name).is_symlink()]:
            self._lock.close()
            raise BadInput("is a link, through which a run does not write.", "Give --out a folder on the other disk.", file=folder / links[0])
        for leftover in (path for pattern in LEFTOVERS for path in folder.glob(pattern)):
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def export(self) -> Path:
        return self.folder / "export"

    def update(self, **fields: Any) -> None:
        """Sets top-level fields of run.json and writes it."""
        with self._updating:
            self.info.update(fields)
            if self.writes and not self.only_looks:
                write_json(self.folder / "run.json", self.info)

    def note_checkpoint(self, step: int, folder: str) -> None:
        """Notes that the checkpoint of `step` is whole in `folder`: a run that has reached one never begins anew by itself, whatever became of it."""
        self.update(checkpoint={"step": step, "folder": folder})

    def last_checkpoint(self) -> tuple[int | None, str] | None:
        """(step, folder) of the newest checkpoint that the run has had, there or not; None if it never reached one. A run of an older version did not
        note it: any sign that it may have had one counts, since nothing is begun anew over its lines."""
        if noted := self.info.get("checkpoint"):
            return noted["step"], noted["folder"]
        metrics = self.folder / "metrics.jsonl"
        if self._notes_checkpoints or not ("resumed_at" in self.info or "totals" in self.info or (metrics.exists() and any(read_lines(metrics)))):
            return None
        return None, str(self.checkpoints)

    def end(self, status: Status, error: str) -> None:
        """Notes in run.json how a run ended that did not finish. Where that cannot be written either, the error itself matters more."""
        with suppress(MachineError):
            self.update(status=status, error=error)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds one line to `name`.jsonl; numbers that JSON lacks (NaN, infinity) become null.

        Raises:
            MachineError: the disk is full, gone, or not ours to write. The line may be there in part; a resumed run cuts it.
        """
        if not self.writes:
            return
        path = self.folder / f"{name}.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({key: _finite(value) for key, value in record.items()}) + "\n")

    def sync(self) -> None:
        """Flushes the metric files to the disk: a checkpoint that outlives a power cut must find the lines before it.

        Raises:
            MachineError: the disk is full or gone.
        """
        for path in (self.folder / f"{name}.jsonl" for name in ("metrics", "probes", "samples")):
            if self.writes and path.exists():
                with writing(path):
                    sync_folder(path)

    def cut(self, step: int) -> set[int] | None:
        """Drops the lines past `step` (and half-written ones) from the metric files: the resumed run writes them again. Returns the steps of the
        lines that metrics.jsonl keeps; None in a process that does not write."""
        steps = None
        for name in ("metrics", "probes", "samples") if self.writes else ():
            path = self.folder / f"{name}.jsonl"
            kept = [record for record in read_lines(path) if record["step"] <= step] if path.exists() else []
            if path.exists():
                with atomic_write(path) as file:
                    file.writelines(json.dumps(record).encode() + b"\n" for record in kept)
            if name == "metrics":
                steps = {record["step"] for record in kept}
        return steps

    def discard(self) -> None:
        """Removes what opening a new run made, after its command was refused: it has no work in it."""
        if self.writes and self.is_new and {path.name for path in self.folder.iterdir()} <= {".lock", "run.json"}:
            for path in (self.folder / "run.json", self.folder / ".lock"):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                self.folder.rmdir()

    def close(self) -> None:
        if self.writes:
            self._lock.close()


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def no_run(folder: Path, or_else: str = "") -> BadInput:
    """The error for a folder that is no run; a run that lies in it, as in the folder of a claim, is named.

    Args:
        or_else: what stands at the end of the mend, ", or add --wait".
    """
    inside = min((file.parent for pattern in ("*/run.json", "runs/*/run.json") for file in folder.glob(pattern)), default=None)
    mend = "Give the folder that `headstart pretrain --out` made" if inside is None else f"Give a run that lies in it, for example {inside}"
    return BadInput("is not a run: it has no run.json.", f"{mend}{or_else}.", file=folder)


def read_run(folder: str | Path) -> dict[str, Any]:
    """run.json of a run.

    Raises:
        BadInput: there is none, or it is not one of ours.
    """
    folder = Path(folder)
    path = folder / "run.json"
    if not path.exists():
        raise no_run(folder)
    try:
        info = read_json(path)
    except BadInput as error:
        raise BadInput(error.reason, _what_is_left(folder), file=path) from None
    if not isinstance(info, dict) or info.get("format_version") != FORMAT_VERSION:
        raise BadInput("was not written by this version of headstart.", f"Format version {FORMAT_VERSION} is expected.", file=path)
    if not _is_sound(info):
        raise BadInput("spoils an entry.", _what_is_left(folder), file=path)
    return info


def _what_is_left(folder: Path) -> str:
    """How to go on when only run.json is damaged."""
    exports = [folder / "export", *sorted((folder / "checkpoints").glob("step-*/export"), reverse=True)]
    there = [str(path) for path in exports if path.is_dir()]
    if not there:
        return "The run cannot be continued; start it again in another --out."
    return f"The weights are still there ({', '.join(there)}): start a new run from them with --init {there[0]} --out ANOTHER_FOLDER."


def _is_sound(info: dict[str, Any]) -> bool:
    """Whether what is read of a run.json has the types that it is read as."""
    kinds: dict[str, type] = {"id": str, "method": str, "preset": str, "status": str, "config": dict, "decisions": dict, "data": list, "totals": dict}
    kinds |= {"verdict": dict, "checkpoint": dict}
    data, checkpoint = info.get("data") or [], info.get("checkpoint") or {"step": 0, "folder": ""}
    return (
        all(isinstance(info[name], kind) for name, kind in kinds.items() if name in info)
        and isinstance(checkpoint, dict)
        and isinstance(checkpoint.get("step"), int)
        and isinstance(checkpoint.get("folder"), str)
        and all(isinstance(entry, dict) and isinstance(entry.get("store"), str) and isinstance(entry.get("counts"), dict) for entry in data)
        and all(isinstance(value, int | float) for value in info.get("totals", {}).values())
        and (info.get("status") != "done" or {"data", "totals", "verdict"} <= info.keys())
    )


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl file of ours. A line that is none, half-written by a kill or damaged since, is left out; those after it are not."""
    with io.TextIOWrapper(open_regular(path), encoding="utf-8", errors="replace") as file:
        while line := file.readline(MAX_LINE):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(record, dict) or not isinstance(record.get("step"), int):
                continue
            yield record


def now() -> str:
    """UTC, ISO 8601, whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def unit_of(info: dict[str, Any]) -> str:
    """What the "tokens" of a run's records count: tokens, or images. A run of an earlier version does not say; it counted tokens."""
    unit = info.get("unit")
    return unit if unit in UNITS else UNITS[0]
