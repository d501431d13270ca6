"""The folder that `headstart curate` writes, as those see it who read data: its documents and images are data, what lies beside them is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.files import read_json

ABOUT, COUNTS = "curate.json", "counts.json"
DOCUMENTS, IMAGES = "documents", "images"
ANSWERS = "answers.jsonl"
"""In the folder of images: which address became which file."""


def is_curation(folder: Path) -> bool:
    """Whether `folder` is one, finished or not. A file of the same name that somebody else wrote makes none."""
    return _about(folder) is not None


def shard_name(shard: int, form: str = "parquet") -> str:
    """The file of a shard's documents, in the form of the curation."""
    return f"shard-{shard:05d}.{form}"


def refuse_unfinished(folder: Path) -> None:
    """Data is read from a curation only where all of it is there.

    Raises:
        BadInput: the curation `folder` goes on or was interrupted, kept no document, or lacks a file.
    """
    about = _about(folder)
    assert about is not None
    if not (folder / COUNTS).is_file():
        mend = f"Give the command that curates again, which continues it; `headstart curate --report {folder}` says how far it is."
        raise BadInput("is a curation that is not finished.", mend, file=folder)
    form = about["settings"].get("form", "parquet") if isinstance(about.get("settings"), dict) else "parquet"
    shards = [folder / DOCUMENTS / shard_name(shard, form) for shard in range(len(about["sources"]))]
    if not _kept(folder):
        raise BadInput("is a curation that kept no document.", f"`headstart curate --report {folder}` says which stage dropped them.", file=folder)
    if missing := [shard for shard in shards if not shard.is_file()]:
        raise BadInput("is missing from its curation.", "Put it back, or curate again into another folder.", file=missing[0])


def data_of(parent: Path, folders: list[str], files: list[str]) -> tuple[list[str], list[str]]:
    """Of a folder that is walked through, the folders and files that may be data: all, but in a curation its documents and images alone."""
    parent = parent.absolute()  # "." has no name
    if ABOUT in files and is_curation(parent):
        return [name for name in folders if name in (DOCUMENTS, IMAGES)], []
    if parent.name in (DOCUMENTS, IMAGES) and is_curation(parent.parent):
        return ([], files) if parent.name == DOCUMENTS else (folders, [name for name in files if name != ANSWERS])
    return folders, files


def images_beside(document_file: Path) -> Path | None:
    """The folder of the images that a curation fetched for the documents of this file; None where it is of no curation, or none were fetched."""
    folder = document_file.absolute().parent
    images = folder.parent / IMAGES
    return images if folder.name == DOCUMENTS and (images / ANSWERS).is_file() and is_curation(folder.parent) else None


def holds(folder: Path) -> str | None:
    """Which data of a curation lie in a folder, DOCUMENTS or IMAGES (whose folders are named after hashes); None where it is part of none."""
    folder = folder.absolute()
    places = (place for place in (folder, folder.parent) if place.name in (DOCUMENTS, IMAGES) and is_curation(place.parent))
    return next((place.name for place in places), None)


def _about(folder: Path) -> dict[str, Any] | None:
    file = folder / ABOUT
    if not os.path.isfile(file):  # noqa: PTH113 (pathlib raises where the folder may not be entered; who reads the data says so)
        return None
    try:
        about = read_json(file)
    except BadInput:
        return None
    return about if isinstance(about, dict) and isinstance(about.get("recipe"), str) and isinstance(about.get("sources"), list) else None


def _kept(folder: Path) -> bool:
    """Whether the last stage kept a document."""
    try:
        return bool(read_json(folder / COUNTS)["stages"][-1]["kept"])
    except (KeyError, IndexError, TypeError) as error:
        raise BadInput("is no list of counts.", "Curate again into another folder.", file=folder / COUNTS) from error
