"""The errors a person may see, each with its exit code.

An error is two sentences: what happened and where; what to do. `headstart.cli` prints them without a traceback (`--debug` shows it).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from headstart.core.terminal import printable

MAX_MESSAGE = 4000
"""Characters of a message that are shown: it may quote a record of any length."""


class HeadstartError(Exception):
    """Base of all errors that we raise on purpose. `exit_code` 1 is kept for our own bugs."""

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        self.what, self.mend = printable(_cut(what)), printable(_cut(mend))  # both may quote a name or record from outside
        super().__init__(self.what if not mend else f"{self.what}\n{self.mend}")

    def reword(self, change: Callable[[str], str]) -> None:
        """Says it in other words: a verb that runs another one has other flags."""
        self.what, self.mend = change(self.what), change(self.mend)
        self.args = (self.what if not self.mend else f"{self.what}\n{self.mend}",)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ... ({len(text) - MAX_MESSAGE:,} more characters)"


class UsageError(HeadstartError):
    """A wrong flag, an impossible setting, a changed configuration on resume (exit 2)."""

    exit_code = 2


class OtherStore(UsageError):
    """A store is there, of other files or settings than are wanted."""


class BadInput(HeadstartError):
    """A file or record of the user that cannot be used (exit 3).

    Args:
        what: what is wrong, one sentence.
        mend: how to mend it, one sentence.
        file: the file, if one is to blame.
        record: 1-based line or record number in `file`.
    """

    exit_code = 3

    def __init__(self, what: str, mend: str = "", *, file: str | Path | None = None, record: int | None = None) -> None:
        place = "" if file is None else printable(str(file), one_line=True) + ("" if record is None else f", record {record}") + ": "
        super().__init__(place + what, mend)
        self.reason = what
        self.file = None if file is None else str(file)
        self.record = record


class MissingDependency(HeadstartError):
    """Something this machine lacks (exit 4); the message names the pip line."""

    exit_code = 4

    def __init__(self, package: str, extra: str, why: str) -> None:
        super().__init__(f"{why} needs the package '{package}', which is not installed.", f"Install it with: pip install 'headstart[{extra}]'")


class MachineError(HeadstartError):
    """This machine refused something that a run needs: room, memory, a permission (exit 4). `core.machine` makes it from what the system said."""

    exit_code = 4


class Diverged(HeadstartError):
    """The loss became NaN or infinite (exit 5)."""

    exit_code = 5


class Interrupted(HeadstartError):
    """SIGINT or SIGTERM; a checkpoint was written (exit 130)."""

    exit_code = 130


class FirstRankFailed(HeadstartError):
    """The first process of a distributed run stopped with an error, which it has printed; this one ends with the same exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("The first process of this run stopped.")
        self.exit_code = exit_code
