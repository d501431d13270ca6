"""Files that were listed, and tables among them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from headstart.core.errors import BadInput
from headstart.core.listing import readable
from headstart.core.places import ADDRESS


class Listed(Protocol):
    """A file that was listed."""

    @property
    def path(self) -> Path: ...


F = TypeVar("F", bound=Listed)


def reached_once(files: Iterable[F], seen: set[str], passed_over: Counter[str]) -> Iterator[F]:
    """The files whose real path is not in `seen`, which they join; the others are counted."""
    for file in files:
        real = os.path.realpath(file.path)
        if real in seen:
            passed_over["reached twice"] += 1
        else:
            seen.add(real)
            yield file


def refuse_twice(header: Sequence[str], used: Iterable[str], file: str | Path) -> None:
    """Raises BadInput where a table has a column that is read twice: either of both could be meant."""
    if twice := [name for name in used if header.count(name) > 1]:
        raise BadInput(f"has two columns {twice[0]!r}.", "Rename the one that is not meant.", file=readable(file))


def absent(path: str | Path) -> BadInput:
    """The error for data that are not there."""
    mend = "Data are files of this machine: mount the store, or copy them here." if ADDRESS.match(str(path)) else "Check the path."
    return BadInput("does not exist.", mend, file=readable(path))


def is_store(source: str | Path) -> bool:
    """Whether a folder holds a prepared store. A name that is too long for a file is none."""
    return os.path.isfile(os.path.join(source, "manifest.json"))  # noqa: PTH113, PTH118 (pathlib raises for such a name)
