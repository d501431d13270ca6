"""Answers that cost something, kept as they come: a file of JSON lines that is only appended to.

Whatever ends the process, the lines that were written are there, so nothing is asked for twice. They reach the disk itself in batches: a power cut
may take the last of them, a killed process none.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from headstart.core.files import open_regular
from headstart.core.machine import writing

SYNC_EVERY = 256
"""Lines after which the file is forced to the disk."""
BLOCK = 1 << 16


class Journal:
    """Appends records to a file, from any thread. Use it as a context manager. A last line that was cut off is taken away first: what is written
    behind it would be lost with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._waiting = 0
        self._file: BinaryIO | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Writes a record; when this returns, killing the process does not lose it.

        Raises:
            MachineError: there is no room for it.
        """
        line = json.dumps(record, sort_keys=True).encode() + b"\n"
        with self._lock, writing(self.path):
            assert self._file is not None
            self._file.write(line)
            self._file.flush()
            self._waiting += 1
            if self._waiting >= SYNC_EVERY:
                os.fsync(self._file.fileno())
                self._waiting = 0

    def __enter__(self) -> Journal:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
            self._file.truncate(_whole(self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file, writing(self.path):
                os.fsync(file.fileno())


class Known:
    """Answers in a journal, each under a key, and found but once. A kill loses the one that was under way and no other."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, dict[str, Any]] = {str(line["key"]): line for line in read_journal(path) if "key" in line}

    def get(self, key: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is known under the key, or is found now."""
        if key not in self.found:
            line = {"key": key, **find()}
            with Journal(self.path) as journal:
                journal.add(line)
            self.found[key] = line
        return self.found[key]


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with open_regular(path) as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - BLOCK)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal, in order; none where there is no file. What is no record (a line that was cut off, or that a power cut left full of
    zeros) is passed over."""
    if not path.exists():
        return
    with open_regular(path) as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record
