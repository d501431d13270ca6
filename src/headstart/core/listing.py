"""Walking through folders of the user, and names as they can be shown."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


def readable(path: str | bytes | Path) -> str:
    """The path as valid text: bytes that are not UTF-8 become \\xNN, so that it can stand in JSON and on a terminal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
