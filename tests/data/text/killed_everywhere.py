"""Prepares a store and its rows again and again, each time killed just before another change of the disk, then whole; prints what it found.

    python -m tests.data.text.killed_everywhere DATA FOLDER

The processes are forked from one that has imported everything, so that a start costs nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from headstart.data.text.config import TextConfig
from headstart.data.text.rows import packed_rows
from headstart.data.text.store import prepare_text
from tools.kill_at import kill_before


def prepare(data: Path, out: Path) -> None:
    store = prepare_text([data], out, TextConfig(vocab_size=300, workers=1, on_bad_input="quarantine"))
    packed_rows(store, 32)


def start(data: Path, out: Path, change: int, report: Path) -> int:
    """The exit code of a process that is killed before this change of `out`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kill_before(change, out, report)
    prepare(data, out)
    os._exit(0)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def main(data: Path, folder: Path) -> None:
    undisturbed, report = folder / "undisturbed", folder / "report"
    assert start(data, undisturbed, 0, report) == 0
    expected = bytes_of(undisturbed)
    killed: list[str] = []
    different: dict[str, list[str]] = {}
    while True:
        out = folder / "store"
        out.mkdir()
        if start(data, out, len(killed) + 1, report) != -signal.SIGKILL:
            break
        killed.append(report.read_text())
        assert start(data, out, 0, report) == 0, killed[-1]
        found = bytes_of(out)
        if found != expected:
            different[killed[-1]] = [name for name in sorted(found | expected) if found.get(name) != expected.get(name)]
        shutil.rmtree(out)
    print(json.dumps({"killed": killed, "different": different, "files": sorted(expected)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
