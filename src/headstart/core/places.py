"""Places that a person names for what we write: tried before any work is done, so that nothing is left to be refused hours later."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from headstart.core.config import differences
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import open_regular, read_json, sha256_file
from headstart.core.machine import explained

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_MARK_BYTES = 1 << 16
"""Of a file: so far from its beginning stands what tells that it is ours."""
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
"""How an address begins, also where a path has eaten a stroke; a drive of Windows has one letter."""
SETTINGS = "settings.json"
"""In the folder of a result: what was asked for."""


@dataclass(frozen=True)
class Folder:
    """What tells the folder of a verb's result from everybody else's.

    Attributes:
        file: a JSON file that it holds.
        fields: of that file.
        beside: names or patterns of what a killed call may leave without that file.
    """

    file: str
    fields: tuple[str, ...]
    beside: tuple[str, ...] = ()

    def is_at(self, out: Path) -> bool:
        """Whether such a result, or what a killed call left of one, lies there, and not files of something else."""
        if (out / self.file).is_file():
            try:
                found = read_json(out / self.file)
            except BadInput:
                return False
            return isinstance(found, dict) and all(field in found for field in self.fields)
        names = (path.name for path in out.iterdir())
        return all(name.startswith(".") or any(fnmatchcase(name, pattern) for pattern in self.beside) for name in names)


def refuse_folder(out: str | Path, flag: str = "--out", ours: Folder | None = None) -> None:
    """Refuses a folder that cannot be made or written; folders above it that are missing will be made. Nothing is left there.

    Args:
        ours: refuse too what holds files and is none of these. None: the caller looks itself.

    Raises:
        UsageError: it is a file, lies under one or where nothing may be written, or holds other files. MachineError: the disk is full.
    """
    refuse_address(out, flag)
    if os.path.lexists(out) and not os.path.isdir(out):  # noqa: PTH112 (pathlib raises where a folder above may not be entered)
        raise UsageError(f"{out} is {_what(out)}, and {flag} names a folder.", f"Give {flag} another name, or move it away.")
    above = next(place for place in (Path(out), *Path(out).absolute().parents) if os.path.lexists(place))
    _try(above, f"The folder {out} cannot be {'written' if above == Path(out) else 'made'}", out, f"Give {flag} a folder where you may write.")
    if ours is not None and above == Path(out) and not ours.is_at(above):
        raise UsageError(f"{out} holds other files.", f"Give {flag} a new folder.")


def refuse_address(out: str | Path, flag: str = "--out") -> None:
    """Raises UsageError for an address such as s3://bucket/run, of which a path makes s3:/bucket/run: a folder of that name here is not meant."""
    if ADDRESS.match(str(out)) and not os.path.lexists(out):
        what = f"{flag} names a place on this machine, not an address ({out})."
        raise UsageError(what, "Give a place here; of a run the checkpoints alone may lie elsewhere.")


def refuse_other_settings(out: Path, what: str, asked: Mapping[str, Any]) -> None:
    """Refuses a folder with a result of other settings: somebody may be reading it.

    Args:
        what: the result in words, "a selection".
        asked: what decides it, as `SETTINGS` has it; no such file: nothing lies there.

    Raises:
        UsageError: the settings that differ.
    """
    path = out / SETTINGS
    if not path.is_file():
        return
    before = read_json(path)
    if not isinstance(before, dict):
        raise BadInput("holds no settings of ours.", "Give another --out.", file=path)
    if changed := differences(before, asked):
        listed = "; ".join(f"{name}: {old!r} -> {new!r}" for name, old, new in changed[:6])
        raise UsageError(f"{out} holds {what} with other settings ({listed}).", "Give another --out, or the settings of before.")


def known_by(path: Path, patterns: Sequence[str] = ("*",)) -> str:
    """A file or folder by its name and a hash of all bytes in it, for `SETTINGS`.

    Args:
        patterns: of the names of the files in a folder that count.
    """
    digest = hashlib.sha256()
    found = [path] if not path.is_dir() else sorted({file for pattern in patterns for file in path.rglob(pattern) if file.is_file()})
    for file in found:
        digest.update(f"{file.relative_to(path)} {sha256_file(file)}\n".encode("utf-8", "surrogateescape"))
    return f"{path.name} ({digest.hexdigest()[:12]})"


def refuse_file(out: str | Path, flag: str = "--out", *, made: bool = False, ours: tuple[str, bytes] | None = None) -> None:
    """Refuses a file that cannot be written. Nothing is left there.

    Args:
        made: folders above it that are missing will be made; otherwise its folder must be there.
        ours: `what` and `mark` of `refuse_other_file`.

    Raises:
        UsageError: it is a folder, lies in none or where nothing may be written, or is another file. MachineError: the disk is full.
    """
    refuse_address(out, flag)
    if os.path.isdir(out):  # noqa: PTH112
        raise UsageError(f"{flag} {out} is a folder.", "Give a file's name.")
    folders = Path(out).absolute().parents
    above = next(place for place in folders if os.path.lexists(place))
    if above != folders[0] and not made:
        raise UsageError(f"{flag} {out} lies in a folder that does not exist.", "Make it first, or give a file's name in one that is there.")
    _try(above, f"{out} cannot be written", out, f"Give {flag} a file's name in a folder where you may write.")
    if ours is not None:
        refuse_other_file(out, flag, *ours)


def refuse_other_file(out: str | Path, flag: str, what: str, mark: bytes) -> None:
    """Refuses to write over a file that is not ours.

    Args:
        what: what we write, in words: "report".
        mark: bytes near the beginning of each such file.

    Raises:
        UsageError: a file is there that has something in it, and no mark.
    """
    if not os.path.isfile(out):  # noqa: PTH113
        return
    with open_regular(out) as file:
        head = file.read(_MARK_BYTES)
    if head and mark not in head:
        raise UsageError(f"{out} is there and is no {what} of ours.", f"Give {flag} another name, or move it away.")


def _try(folder: Path, what: str, out: str | Path, mend: str) -> None:
    """Makes a file in the folder and removes it: permissions do not say that a disk is read-only, or that a folder such as /proc takes no files."""
    if not os.path.isdir(folder):  # noqa: PTH112
        raise UsageError(f"{what}: {folder} is {_what(folder)}.", mend)
    try:
        descriptor, name = tempfile.mkstemp(prefix=".headstart-", dir=folder)
    except OSError as error:
        if error.errno in _FULL:
            raise explained(error.errno, out) from None
        why = "takes no files" if error.errno in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP) else f"answers '{error.strerror}'"
        raise UsageError(f"{what}: {folder} {why}.", mend) from None
    os.close(descriptor)
    Path(name).unlink()


def _what(place: str | Path) -> str:
    return "a file" if os.path.exists(place) else "a link that leads nowhere"  # noqa: PTH110
