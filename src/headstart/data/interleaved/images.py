"""Where the images of documents lie on this disk. Nothing is downloaded here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from headstart.core.curation import ANSWERS, images_beside
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, inside, open_regular
from headstart.core.journal import read_journal
from headstart.data import parquet
from headstart.data.image.sources import KINDS
from headstart.data.interleaved.documents import Image, Refused

INDEXES = ("images.jsonl", "images.parquet", ANSWERS)
"""Lists of addresses and files. The last is the log of `headstart curate`'s download: what a kill or a power cut left of it is read as the download
reads it."""
SUFFIXES = tuple(suffix for suffix, kind in KINDS.items() if kind == "picture")


HASH = 64
"""Characters of a SHA-256."""
WORK, EMBEDDED = ".work", "embedded"
"""Folder, in the working folder of a preparation, of the images that came as bytes."""


class ImageFinder:
    """Finds the file of an image.

    Args:
        folder: the folder of images, or None: beside the document's own file; of a curation the folder that its images were fetched into.

    Raises:
        BadInput: the folder is missing, or its index damaged.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and not self.folder.is_dir():
            raise BadInput("is no folder of images.", "Correct --interleaved.images.", file=self.folder)
        self._beside = cache(images_beside)
        self._addresses = cache(_addresses)
        if self.folder is not None:
            self._addresses(self.folder)

    def find(self, name: str, document_file: Path) -> Path | None:
        """The file of an image as a document names it; None where it is not there.

        Raises:
            Refused: the name leads out of the folder that paths count from.
        """
        root = self.folder or document_file.parent
        if "://" in name or name.startswith("data:"):
            fetched = self.folder or self._beside(document_file)
            if fetched is None:
                return None
            root, inner = fetched, self._addresses(fetched).get(name)
            candidates = [inner] if inner is not None else [hashlib.sha256(name.encode()).hexdigest() + suffix for suffix in ("", *SUFFIXES)]
        else:
            candidates = [name]
        for candidate in candidates:
            try:
                path = inside(root, candidate)
                if path.is_file():
                    return path
            except BadInput:
                mend = "Give the folder that the images lie in as --interleaved.images, and paths in it."
                raise Refused(f"names an image {name!r} outside of {root}.", mend) from None
            except OSError:  # no file has so long a name
                continue
        return None


class EmbeddedImages:
    """Files of images that came as bytes, each once, until the store has them.

    Args:
        folder: where they go. Those of a killed preparation are found again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._of_hash = {path.name[:HASH]: path for path in folder.glob("*/*") if not path.name.startswith(".")}

    def keep(self, image: Image, document: str) -> Path:
        """The file of an image; `document`, where it comes from, is part of its name: messages about damage name the file."""
        assert image.data is not None
        digest = image.name.removeprefix("sha256:")
        if digest not in self._of_hash:
            path = self.folder / digest[:2] / f"{digest}-{document[-45:]}"  # a name has at most 255 bytes
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(image.data)
            self._of_hash[digest] = path
        return self._of_hash[digest]


def is_embedded(path: Path) -> bool:
    """Whether a file is one that `EmbeddedImages` wrote: it is gone once the store is finished."""
    return path.parts[-4:-2] == (WORK, EMBEDDED)


def _addresses(folder: Path) -> dict[str, str]:
    """Address -> file in the folder, as its lists say."""
    return {address: file for name in INDEXES if (folder / name).exists() for address, file in _read_index(folder / name)}


def _read_index(path: Path) -> Iterator[tuple[str, str]]:
    """(address, file in the folder) of each image that was fetched."""
    for number, entry in enumerate(_entries(path), 1):
        address, file = (entry.get("url"), entry.get("file")) if isinstance(entry, dict) else (None, None)
        if not isinstance(address, str):
            if path.name == ANSWERS:
                continue
            raise BadInput("names no url.", 'Write {"url": "https://..", "file": "a.png"} in each line.', file=path, record=number)
        if isinstance(file, str) and file:  # without a file it was not fetched
            yield address, file


def _entries(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        try:
            yield from parquet.rows(path, ["url", "file"])
        except parquet.ERRORS as error:
            raise BadInput("is no parquet file with the columns url and file.", "Build it again.", file=path) from error
        return
    if path.name == ANSWERS:
        yield from read_journal(path)
        return
    with open_regular(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadInput(f"is not valid JSON ({error}).", "Build it again.", file=path, record=number) from None
