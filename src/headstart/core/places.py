"""Places that a person names for what we write: tried before any work is done, so that nothing is left to be refused hours later."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from headstart.core.errors import UsageError
from headstart.core.machine import explained

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def refuse_folder(out: str | Path, flag: str = "--out") -> None:
    """Refuses a folder that cannot be made or written; folders above it that are missing will be made. Nothing is left there.

    Raises:
        UsageError: it is a file, lies under one, or where nothing may be written. MachineError: the disk is full.
    """
    if os.path.lexists(out) and not os.path.isdir(out):  # noqa: PTH112 (pathlib raises where a folder above may not be entered)
        raise UsageError(f"{out} is {_what(out)}, and {flag} names a folder.", f"Give {flag} another name, or move it away.")
    above = next(place for place in (Path(out), *Path(out).absolute().parents) if os.path.lexists(place))
    _try(above, f"The folder {out} cannot be {'written' if above == Path(out) else 'made'}", out, f"Give {flag} a folder where you may write.")


def refuse_file(out: str | Path, flag: str = "--out", *, made: bool = False) -> None:
    """Refuses a file that cannot be written. Nothing is left there.

    Args:
        made: folders above it that are missing will be made; otherwise its folder must be there.

    Raises:
        UsageError: it is a folder, lies in none, or where nothing may be written. MachineError: the disk is full.
    """
    if os.path.isdir(out):  # noqa: PTH112
        raise UsageError(f"{flag} {out} is a folder.", "Give a file's name.")
    folders = Path(out).absolute().parents
    above = next(place for place in folders if os.path.lexists(place))
    if above != folders[0] and not made:
        raise UsageError(f"{flag} {out} lies in a folder that does not exist.", "Make it first, or give a file's name in one that is there.")
    _try(above, f"{out} cannot be written", out, f"Give {flag} a file's name in a folder where you may write.")


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
