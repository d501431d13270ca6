"""Files that are whole or absent: written beside their place, flushed to disk, renamed.

A process may be killed at any moment; what is found under its final name afterwards is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from headstart.core.errors import BadInput

MAX_JSON_BYTES = 256 * 2**20
"""`read_json` refuses larger files: a manifest is data from outside, and its size is checked before it is read."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends without an error, and not at all otherwise.

    The temporary file lies in the same folder (a rename is atomic only within one file system) and carries the process id, so that two writers
    never share one.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, work: str) -> Iterator[None]:
    """Hold the lock file `path` (made with its folder): one process at a time, the others wait and say for what. The lock ends with its process,
    however that ends."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another process that {work} ({path})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries: without it a rename may be lost in a power cut although the file's bytes are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of the file's bytes, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all. NaN is refused: other languages cannot read it."""
    data = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode()
    with atomic_write(path) as file:
        file.write(data + b"\n")


def read_json(path: str | Path) -> Any:
    """The parsed file. Raises BadInput when it is missing, larger than `MAX_JSON_BYTES`, or not JSON."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise BadInput(f"the file has {size:,} bytes, more than any JSON file of ours.", "It is damaged or not ours; build it again.", file=path)
        return json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}).", "Check the path, or build it again.", file=path) from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not valid JSON ({error}).", "It is damaged; build it again.", file=path) from error
