"""Walking through folders of the user, and names as they can be shown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from headstart.core.curation import DOCUMENTS, data_of, is_curation, refuse_unfinished
from headstart.core.errors import BadInput


def walk(folder: Path) -> Iterator[Path]:
    """All files under `folder` by path. Links to folders are followed; a folder is visited once, so a loop of links ends. Of a hidden folder only its
    own path comes. Of a curation (`headstart curate`) come its documents and images.

    Raises:
        BadInput: a folder cannot be listed, or is a curation that is not finished.
    """
    visited: set[tuple[int, int]] = set()

    def failed(error: OSError) -> None:
        raise BadInput(f"the folder cannot be listed ({error.strerror}).", "Check its permissions.", file=readable(error.filename)) from error

    if (place := folder.absolute()).name == DOCUMENTS and is_curation(place.parent):
        refuse_unfinished(place.parent)
    for here, folders, files in os.walk(folder, followlinks=True, onerror=failed):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        if is_curation(Path(here)):
            refuse_unfinished(Path(here))
        folders[:], files = data_of(Path(here), folders, files)
        hidden = [Path(here, name) for name in folders if name.startswith(".")]
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=os.fsencode)
        yield from (Path(here, name) for name in sorted(files, key=os.fsencode))
        yield from hidden  # counted, not read


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


def readable(path: str | bytes | Path) -> str:
    """The path as valid text: bytes that are not UTF-8 become \\xNN, so that it can stand in JSON and on a terminal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_store(source: str | Path) -> bool:
    """Whether a folder holds a prepared store. A name that is too long for a file is none."""
    return os.path.isfile(os.path.join(source, "manifest.json"))  # noqa: PTH113, PTH118 (pathlib raises for such a name)
