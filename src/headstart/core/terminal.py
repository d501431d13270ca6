"""Text from outside on a terminal: what would move the cursor, hide or reverse what stands there is shown as its escape. And terminals that go away:
what is printed then goes nowhere, and the work goes on."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from typing import TextIO

_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line end; \x1b begins the sequences that a terminal obeys
    "\u202a-\u202e\u2066-\u2069"  # marks that turn the direction of writing: "a\u202egnp.exe" would read "aexe.png"
    "\u2028\u2029\ufeff\ud800-\udfff]"  # other line ends, the byte order mark, and halves of surrogate pairs, which no terminal can be sent
)


def printable(text: str, *, one_line: bool = False) -> str:
    """`text` with control characters, marks of direction and lone surrogates as escapes (\\x1b).

    Args:
        one_line: line ends too, so that a file name cannot pretend to be the next message.
    """
    text = _UNPRINTABLE.sub(_escape, text)
    return text.replace("\n", "\\n") if one_line else text


def leave_terminal() -> None:
    """The terminal was closed: what was printed there goes nowhere from now on. Files and pipes still get what is theirs."""
    for stream in (sys.stdout, sys.stderr):
        try:
            at_terminal = stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)  # isatty no longer knows
        except (OSError, ValueError):
            continue
        if at_terminal:
            silence(stream)


def open_closed_streams() -> None:
    """A program may be started without an output (`>&-`). What is printed then goes nowhere; and no file of ours gets the number of the output, into
    which any library may write."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def escape_what_streams_lack() -> None:
    """A character that the output's encoding lacks (a name with an accent in a log of ASCII), or a name that is no UTF-8, is printed as its escape:
    it must not end the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a caller put another object in its place
            stream.reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """What is printed to this stream goes nowhere from now on: its reader is gone, which must not end the work."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        pass
    finally:
        os.close(nowhere)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
