"""Files that are whole or absent: written beside their place, flushed to disk, renamed.

A process may be killed at any moment; what is found under its final name afterwards is complete.

A folder that is opened may come from someone else. What is read of it is a regular file inside it (`own_file`), its size is known before its bytes
are read (`read_bounded`), and nothing is written through a link (`locked`, `atomic_write`).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from headstart.core.errors import BadInput, HeadstartError
from headstart.core.machine import refuse_limits, writing

MAX_JSON_BYTES = 256 * 2**20
"""`read_json` refuses larger files. The largest of ours is the manifest of a store: about 250 bytes an input file."""

MAX_JSON_VALUES = 2**24
"""Commas in one JSON text. Three bytes ("[],") become an object of 56 in memory, so its size alone bounds little."""


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends without an error, and not at all otherwise.

    The temporary file lies in the same folder (a rename is atomic only within one file system) and carries the process id, so that two writers
    never share one.

    Raises:
        MachineError: the disk is full, gone, or not ours to write.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        temporary.unlink(missing_ok=True)  # of a killed process with this id
        try:
            with temporary.open("xb") as file:  # made anew: a link that lies in wait under this name is not followed
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: str | Path) -> Iterator[Path]:
    """A new folder that takes its place, and that of an older one, when the block ends without an error, and not at all otherwise. What a killed
    process left beside it is removed.

    Raises:
        MachineError: the disk is full, gone, or not ours to write.
    """
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.writing")
    new = beside / folder.name
    with writing(folder):
        shutil.rmtree(beside, ignore_errors=True)
        new.mkdir(parents=True)
        try:
            yield new
            for path in new.rglob("*"):
                if path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            if os.path.lexists(folder):
                folder.rename(beside / "before")
            new.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def called_by(new: Path, place: Path) -> Iterator[None]:
    """Within the block an error of ours speaks of what becomes of a new folder, not of where it lies meanwhile (`whole_folder`)."""
    try:
        yield
    except HeadstartError as error:
        error.reword(lambda text: text.replace(str(new), str(place)))
        raise


@contextmanager
def locked(path: str | Path, work: str) -> Iterator[None]:
    """Hold the lock file `path` (made with its folder): one process at a time, the others wait and say for what. The lock ends with its process,
    however that ends.

    Raises:
        BadInput: `path` is a link, which might empty a file elsewhere, or no file.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput("is a file where a folder belongs.", "Remove it, or give another place.", file=path.parent) from None
    with open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"waiting for another process that {work} ({path})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_lock(path: Path) -> BinaryIO:
    """A lock file, made where it is missing, never through a link.

    Raises:
        BadInput: it is a link or no file. OSError: as `open`.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise BadInput("is a link or a folder where a lock file belongs.", "Remove it.", file=path) from None
        raise
    return os.fdopen(descriptor, "r+b", buffering=0)


def own_file(folder: Path, name: str) -> Path:
    """The path of a file that `folder` must hold.

    Raises:
        BadInput: it is missing, no regular file, or outside: an absolute name, "..", or a link that leads away. A folder that a stranger made could
            otherwise have any file of this machine read, and copied into what is published later.
    """
    path = inside(folder, name)
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return path
    except OSError as error:
        raise BadInput(f"cannot be read ({error.strerror}).", "Check the folder, or build it again.", file=path) from None
    raise BadInput("is not a regular file.", "Check the folder, or build it again.", file=path)


def inside(folder: Path, name: str) -> Path:
    """The path of an entry of `folder`, there or not yet.

    Raises:
        BadInput: it leads out of the folder.
    """
    path = folder / name
    try:
        root, real = os.path.realpath(folder), os.path.realpath(path)
    except ValueError:  # a NUL byte
        raise BadInput(f"names a file {name!r}, which cannot be.", "Build it again.", file=folder) from None
    if not real.startswith(root.rstrip("/") + "/"):
        raise BadInput("leads out of its folder.", f"Put the file itself there instead of a link to {real}.", file=path)
    return path


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, opened for reading; a pipe or device is refused, not waited for.

    Raises:
        BadInput: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        refuse_limits(error, path)
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"cannot be read ({reason}).", "Check the path, or build it again.", file=path) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadInput("is not a regular file.", "Give a file; copy what a pipe or device holds into one.", file=path)
    return os.fdopen(descriptor, "rb")


def read_bounded(path: str | Path, limit: int, what: str) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Args:
        what: the kind of file, for the message: "JSON file".

    Raises:
        BadInput: it cannot be read, or is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > limit else file.read(limit + 1)  # /proc says 0 for what is large
    if size > limit or len(data) > limit:
        what = f"has {max(size, len(data)):,} bytes; a {what} has at most {limit:,}."
        raise BadInput(what, "It is damaged or not ours; build it again.", file=path)
    return data


def reserve(path: Path) -> None:
    """Takes the room of a file from the disk now, before it is written through a memory map: a file that was only made long has none, and a page that
    the disk then refuses kills the process (SIGBUS).

    Raises:
        MachineError: there is not enough.
    """
    with writing(path), path.open("r+b") as file:
        if size := os.fstat(file.fileno()).st_size:
            os.posix_fallocate(file.fileno(), 0, size)


def sync_folder(folder: Path) -> None:
    """Flush the folder's entries: without it a rename may be lost in a power cut although the file's bytes are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file under `folder` and the entries of every folder, before it gets the name that says it is whole."""
    for path in (*folder.rglob("*"), folder):
        sync_folder(path)


def sha256_file(path: str | Path) -> str:
    """Hexadecimal SHA-256 of the file's bytes, read in blocks."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, whole or not at all. NaN is refused: other languages cannot read it. Half characters (a file name that is
    not UTF-8) are escaped."""
    try:
        data = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        data = json.dumps(value, indent=1, allow_nan=False).encode()
    with atomic_write(path) as file:
        file.write(data + b"\n")


def read_json(path: str | Path, limit: int = MAX_JSON_BYTES) -> Any:
    """The parsed file. Raises BadInput when it is missing, no regular file, larger than `limit` bytes, or not JSON (which has no NaN)."""
    data = read_bounded(path, limit, "JSON file of ours")
    try:
        refuse_many_values(data)
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not valid JSON ({error}).", "It is damaged; build it again.", file=path) from error


def refuse_many_values(text: bytes | str) -> None:
    """Raises ValueError for JSON of more than `MAX_JSON_VALUES` values."""
    if len(text) > MAX_JSON_VALUES and (text.count(b",") if isinstance(text, bytes) else text.count(",")) > MAX_JSON_VALUES:
        raise ValueError(f"more than {MAX_JSON_VALUES:,} values")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads(..., object_pairs_hook=unique_keys)`: a key that comes twice is a ValueError. Its first value would be lost without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} comes twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
