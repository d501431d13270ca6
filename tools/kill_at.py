"""Runs headstart and kills it, with a real SIGKILL, just before its n-th change of the files under a folder.

    python tools/kill_at.py N FOLDER REPORT pretrain causal-lm --data ...

A change is a file opened for writing, a rename, a removal, a new or removed folder; Python's audit events tell of each before it happens. REPORT gets
what it was about to do; with N = 0 nothing is killed and REPORT gets the number of changes.
"""

from __future__ import annotations

import atexit
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

from headstart.cli.main import main

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


def path_of(event: str, args: tuple[Any, ...]) -> Path | None:
    """The path that an audit event is about to change, None for any other event."""
    changes = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if event == "open" else event in CHANGES
    if not changes or not isinstance(args[0], str | os.PathLike):
        return None
    folder = args[-1]
    inside_of = Path(f"/proc/self/fd/{folder}").readlink() if event in ("os.remove", "os.rmdir") and folder >= 0 else Path.cwd()
    return inside_of / args[0]  # `shutil.rmtree` works inside an opened folder


def kill_before(n: int, folder: Path, report: Path) -> None:
    """SIGKILL for this process before its n-th change under `folder`; 0: only count."""
    folder, counter, done = folder.absolute(), itertools.count(1), [0]

    def watch(event: str, args: tuple[Any, ...]) -> None:
        path = path_of(event, args)
        if path is None or not path.is_relative_to(folder):
            return
        done[0] = next(counter)
        if done[0] == n:
            os.write(said, f"{event.removeprefix('os.')} {path.relative_to(folder)}".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    said = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.addaudithook(watch)
    if n == 0:
        atexit.register(lambda: os.write(said, str(done[0]).encode()))


if __name__ == "__main__":
    kill_before(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))
