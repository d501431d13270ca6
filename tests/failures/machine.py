"""A machine that refuses: a disk of a few megabytes, and the command line on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.at import At
from tests.running import environment, program

FILE = "ballast"


class SmallDisk:
    """A tmpfs in a mount namespace of its own, which ends with its holder: nothing stays mounted, whatever happens to the tests.

    Attributes:
        inside: the disk as commands see it.
        path: the same as this process sees it.
    """

    def __init__(self, inside: Path, size_kib: int, options: str = "") -> None:
        inside.mkdir(parents=True, exist_ok=True)
        self.inside = inside
        script = f"mount -t tmpfs -o size={size_kib}k{options} none {inside} && echo ready && exec sleep 3600"
        told = []
        for flags in (["-m"], ["-r", "-m"]):  # as root; else as root of a user namespace
            self.holder = subprocess.Popen(["unshare", *flags, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert self.holder.stdout is not None
            if self.holder.stdout.readline() == "ready\n":
                break
            told.append(self.holder.communicate()[1].strip())
        else:
            pytest.fail(f"no small disk can be mounted here, neither as root nor in a user namespace: {told}")
        self.enter = ["nsenter", "-t", str(self.holder.pid), *(["-U", "--preserve-credentials"] if "-r" in flags else []), "-m"]
        self.path = Path(f"/proc/{self.holder.pid}/root{inside}")

    def command(self, *arguments: str | Path, at: At | None = None) -> list[str]:
        """The command line, on this disk."""
        return [*self.enter, "--wd=" + str(Path.cwd()), *program(*arguments, at=at)]

    def headstart(self, *arguments: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """The command line on this disk, until it ends."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, env=environment(), timeout=timeout, check=False)

    def start(self, *arguments: str | Path, log: Path, at: At | None = None) -> subprocess.Popen[bytes]:
        """The command line on this disk; it goes on, and what it prints is added to `log`."""
        with log.open("ab") as file:
            return subprocess.Popen(self.command(*arguments, at=at), stdout=file, stderr=subprocess.STDOUT, env=environment())

    def shell(self, command: str) -> None:
        """A command in the namespace: to mount anew, for example."""
        subprocess.run([*self.enter, "sh", "-c", command], check=True)

    def free_kib(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize // 1024

    def fill(self, leave_kib: int = 0) -> None:
        """Fills the disk, but for `leave_kib`."""
        with (self.path / FILE).open("wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, max(1, (self.free_kib() - leave_kib) * 1024))

    def make_room(self) -> None:
        (self.path / FILE).unlink()

    def close(self) -> None:
        self.holder.kill()
        self.holder.communicate()


@contextmanager
def small_disk(folder: Path, size_kib: int, options: str = "") -> Iterator[SmallDisk]:
    disk = SmallDisk(folder, size_kib, options)
    try:
        yield disk
    finally:
        disk.close()
