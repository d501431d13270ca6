"""What a machine refuses: room on a disk, a permission, a folder that is gone, file descriptors. The person is told what was being written and how to
go on; of most verbs the same command then continues.

Libraries say it in their own ways (safetensors and tokenizers raise errors of their own with the number in the text, threads and distributed
checkpoints wrap them), so the whole chain of an error is looked through.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.core.errors import HeadstartError, MachineError, UsageError

CONTINUES, STARTS_AGAIN = "it continues.", "it starts again."
"""How the mends end; the command line changes one for the other where a verb does not go on."""
_AGAIN = f"then give the same command: {CONTINUES}"
_MENDS = {
    errno.ENOSPC: f"Make room on that disk, {_AGAIN}",
    errno.EDQUOT: f"Make room within your quota, {_AGAIN}",
    errno.EFBIG: f"Raise the limit on file sizes (ulimit -f), {_AGAIN}",
    errno.EROFS: f"Make that disk writable again, {_AGAIN}",
    errno.EACCES: f"Give back the permission to write there, {_AGAIN}",
    errno.EPERM: f"Give back the permission to write there, {_AGAIN}",
    errno.ENOENT: f"It was removed or moved while it was in use. Put it back, {_AGAIN}",
    errno.ENOTDIR: f"It was replaced while it was in use. Put it back, {_AGAIN}",
    errno.ESTALE: f"The server of that disk forgot it. Mount it anew, {_AGAIN}",
    errno.EIO: f"That disk does not answer. Look at it, {_AGAIN}",
    errno.EMFILE: f"Raise the limit on open files (ulimit -n 4096), {_AGAIN}",
    errno.ENFILE: f"Close other programs, {_AGAIN}",
    errno.ENOMEM: f"Free some memory, or raise the limit of this process (ulimit -v, its container), {_AGAIN}",
}
_LIMITS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_ANYWHERE = set(_MENDS) - {errno.ENOENT, errno.ENOTDIR}  # a missing file is the machine's doing only where we were writing
_NO_MEMORY = ("failed to map segment", "allocate memory", "cannot allocate", "bad_alloc")  # the loader of libraries, torch, C++
_IN_TEXT = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")  # numpy, of an array that a full disk took in part


def refuse_limits(error: BaseException, place: str | Path) -> None:
    """Called where an error is about to be taken for a fault of the file `place`. A file that cannot be opened because this process may open no more,
    or has no memory left, is sound: nobody must be told to delete it, no checkpoint must be passed over, no record quarantined.

    Raises:
        MachineError: it was a limit of this process.
    """
    number = errno.ENOMEM if isinstance(error, RuntimeError) and "allocate memory" in str(error) else (refusal(error) or (0, None))[0]
    if number in _LIMITS:
        raise MachineError(f"{place} could not be read: {os.strerror(number)}.", _MENDS[number]) from error


def refusal(error: BaseException, *, writing: bool = False) -> tuple[int, str | None] | None:
    """(errno, the file that the system names) if the machine refused something; None for any other error.

    Args:
        writing: the error came from writing files of ours, where also a folder that is gone is the machine's doing.
    """
    known = set(_MENDS) if writing else _ANYWHERE
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        at = waiting.pop(0)
        if at is None or id(at) in seen:
            continue
        seen.add(id(at))
        if isinstance(at, OSError) and at.errno in known:
            return at.errno, None if at.filename is None else os.fsdecode(at.filename)
        if _SHORT_WRITE.search(str(at)):
            return errno.ENOSPC, None
        if not isinstance(at, HeadstartError | OSError):
            for number in (int(a or b) for a, b in _IN_TEXT.findall(str(at))):
                if number in known:
                    return number, None
            if os.strerror(errno.ENOSPC) in str(at):
                return errno.ENOSPC, None
        waiting += [at.__cause__, at.__context__]
    return None


def explained(number: int, place: str | Path | None) -> MachineError:
    """The error for the person: what the machine said about `place`, if it is known, and what to do."""
    said = os.strerror(number)
    return MachineError(f"{said}." if place is None else f"{place} could not be written: {said}.", _MENDS[number])


def ordinary(error: Exception) -> HeadstartError | None:
    """The error for the person, of one that a library raised although nobody made a mistake in a program: a name that no file system takes, or a
    process that may not have the memory to begin (`ulimit -v`). None for any other."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return UsageError(f"{error.filename}: {os.strerror(error.errno)}.", "Give another path.")
    if "Symlink loop from" in text:  # pathlib, before Python 3.13
        return UsageError(f"{text.removeprefix('Symlink loop from ')}: {os.strerror(errno.ELOOP)}.", "Give another path.")
    if isinstance(error, ValueError) and "embedded null byte" in text:
        return UsageError("A path holds a NUL byte.", "Give another path.")
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return MachineError(f"{os.strerror(errno.ENOMEM)}.", _MENDS[errno.ENOMEM])
    if refused := refusal(error):
        return explained(*refused)
    return None


@contextmanager
def writing(place: str | Path) -> Iterator[None]:
    """Within the block `place` is written; what the machine refuses is raised as a MachineError that names the file, or `place` where the system
    names none."""
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:
        refused = refusal(error, writing=True)
        if refused is None:
            raise
        number, name = refused
        raise explained(number, place if name is None or Path(name).name.startswith(".") else name) from error
