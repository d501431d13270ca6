"""Which images are meant: files, folders (recursive, sorted), globs and lists become one ordered list of input files.

- The class of a file is the name of the folder that it lies in, where that is below the folder that was given: photos/cat/1.jpg, train/cat/1.jpg.
- A list (.txt, or .csv and .tsv with a header) names one image a line, with its class after it; paths count from the list's own folder.
- Order is by path, so it is the same on every machine. Files that are passed over are counted, never silently lost.
"""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from headstart.core.curation import DOCUMENTS, holds
from headstart.core.errors import BadInput
from headstart.core.files import read_bounded
from headstart.core.listing import readable, walk
from headstart.data.image.band_files import cut_name, first_band, tile_of
from headstart.data.image.config import ImageConfig
from headstart.data.listing import absent, reached_once, refuse_twice

Kind = Literal["picture", "bands", "npz", "parquet", "tar"]

KINDS: dict[str, Kind] = {
    ".jpg": "picture", ".jpeg": "picture", ".jpe": "picture", ".jfif": "picture", ".png": "picture", ".webp": "picture", ".bmp": "picture",
    ".gif": "picture", ".tif": "picture", ".tiff": "picture", ".ppm": "picture", ".pgm": "picture", ".pbm": "picture", ".pnm": "picture",
    ".jp2": "picture", ".avif": "picture", ".npy": "picture", ".npz": "npz", ".parquet": "parquet", ".tar": "tar",
}  # fmt: skip
LISTS = (".txt", ".csv", ".tsv")
MAX_LIST_BYTES = 2**30


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Attributes:
        path: what is opened.
        name: how it is called in messages and in the store; valid UTF-8 whatever the path holds.
        kind: one image ("picture"), the files of its bands ("bands"), or a file of many.
        size, mtime_ns: as found when it was listed; -1 and 0 if it could not even be looked at.
        label: class of its image, by folder or list; None: not known.
        parts: of a tile in several files, that of each band.
    """

    path: Path
    name: str
    kind: Kind
    size: int
    mtime_ns: int
    label: str | None = None
    parts: tuple[InputFile, ...] = ()


@dataclass
class Inputs:
    """What the sources hold: the files to read, in order, and how many were passed over, by reason."""

    files: list[InputFile] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def find_images(sources: Sequence[str | Path], config: ImageConfig | None = None) -> Inputs:
    """List the input files of `sources`. A file that is reached twice is read once.

    Args:
        config: `image_field` and `label_field` name the columns of .csv and .tsv lists, `band_files` the files of a tile.

    Raises:
        BadInput: a source does not exist, has an unknown suffix, or is a folder or glob without a single image; a list is damaged.
    """
    inputs = Inputs()
    seen: set[str] = set()
    for source in sources:
        found = Inputs()
        _find(str(source), found, config or ImageConfig())
        files = found.files
        if config is not None and config.band_files:
            files = _tiles(files, config.band_files, inputs.passed_over)
        inputs.files += reached_once(files, seen, inputs.passed_over)
        inputs.passed_over += found.passed_over
    if not inputs.files:
        raise BadInput("no input files.", "Give at least one file, folder or glob with --data.")
    return inputs


def known_suffixes() -> str:
    return " ".join(KINDS)


def _find(source: str, found: Inputs, config: ImageConfig) -> None:
    path = Path(source)
    if path.is_dir():
        of_curation = cache(holds)
        for file in walk(path):
            inner, held = file.relative_to(path).parts, of_curation(file.parent)
            if held == DOCUMENTS:
                found.passed_over["documents of a curation"] += 1
            else:
                own = 1 + _is_tile_folder(file, config.band_files)  # folders between a file and that of its class
                _take(file, found, readable(inner[-1 - own]) if len(inner) > own and held is None else None)
    elif os.path.lexists(path):
        suffix = path.suffix.lower()
        if suffix in LISTS:
            found.files += _listed(path, config)
        elif suffix in KINDS:
            found.files.append(_described(path, KINDS[suffix], None))
        else:
            raise BadInput("unknown kind of image file.", f"Known suffixes: {known_suffixes()}; lists: {' '.join(LISTS)}.", file=readable(path))
    elif glob.has_magic(source):
        for name in sorted(glob.glob(source, recursive=True), key=os.fsencode):  # noqa: PTH207 (pathlib takes no absolute pattern)
            if not Path(name).is_dir():
                _take(Path(name), found, None)
    else:
        raise absent(path)
    if not found.files:
        others = ", ".join(f"{count} {reason}" for reason, count in found.passed_over.most_common(5)) or "nothing"
        raise BadInput(f"no images found (found {others}).", f"Put files with one of these suffixes there: {known_suffixes()}.", file=readable(path))


def _take(path: Path, found: Inputs, label: str | None) -> None:
    kind = KINDS.get(path.suffix.lower())
    if path.name.startswith("."):
        found.passed_over["hidden"] += 1
    elif kind is None:
        found.passed_over[readable(path.suffix) or "without suffix"] += 1
    else:
        found.files.append(_described(path, kind, label))


def _is_tile_folder(file: Path, endings: Sequence[str]) -> bool:
    """Whether a file's folder is that of a single tile."""
    cut = cut_name(file, endings) if endings else None
    return cut is not None and tile_of(file, cut[0]) == file.parent


def _tiles(files: Sequence[InputFile], endings: Sequence[str], passed_over: Counter[str]) -> list[InputFile]:
    """The tiles that these files are of, in their order: of each all bands that are asked for, there or not. What is no picture stays."""
    found: dict[Path, InputFile] = {}
    for file in files:
        cut = cut_name(file.path, endings) if file.kind == "picture" else None
        if file.kind != "picture":
            found[file.path] = file
        elif cut is None:
            passed_over["files of no band that is asked for"] += 1
        elif first_band(file.path, cut[0], endings) not in found:
            tile = described_tile(file.path, cut[0], endings, file.label)
            found[tile.path] = tile
    if files and not found:
        mend = f"--image.band-files is {' '.join(endings)}: give what the names end in, without the suffix."
        raise BadInput("no file is of a band that is asked for.", mend, file=files[0].name)
    return list(found.values())


def described_tile(path: Path, rest: str, endings: Sequence[str], label: str | None = None) -> InputFile:
    """The tile that a file is of one band of.

    Args:
        rest: of the file's name, as `cut_name` says.
    """
    paths = [path.with_name(f"{rest}{ending}{path.suffix}") for ending in endings]
    parts = tuple(_described(path, "picture", None) for path in paths)
    size, changed = sum(max(part.size, 0) for part in parts), max(part.mtime_ns for part in parts)
    return InputFile(paths[0], readable(tile_of(path, rest)), "bands", size, changed, label, parts)


def _described(path: Path, kind: Kind, label: str | None) -> InputFile:
    try:
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a dangling link, a loop of links: the reader reports it as bad input, with the others
        size, mtime_ns = -1, 0
    return InputFile(path, readable(path), kind, size, mtime_ns, label)


def _listed(path: Path, config: ImageConfig) -> Iterator[InputFile]:
    """The images that a list names."""
    try:
        text = read_bounded(path, MAX_LIST_BYTES, "list of images").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput("is not UTF-8.", "Convert the file, for example: iconv -f LATIN1 -t UTF-8.", file=readable(path)) from error
    entries = _lines(text, path) if path.suffix.lower() == ".txt" else _table(text, path, config)
    for number, name, label in entries:
        if not name or "\0" in name:
            raise BadInput("names no image.", "Write one path a line.", file=readable(path), record=number)
        image = path.parent / name
        kind = KINDS.get(image.suffix.lower())
        if kind is None:
            raise BadInput(f"{name!r} is no image by its suffix.", f"Known suffixes: {known_suffixes()}.", file=readable(path), record=number)
        yield _described(image, kind, label)


def _lines(text: str, path: Path) -> Iterator[tuple[int, str, str | None]]:
    """(line, path, class) of a .txt list: `path`, `path class`, or `path<TAB>class`. A line that as a whole ends in a known suffix is a path."""
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line:
            continue
        name, tab, label = line.partition("\t")
        if not tab and Path(line).suffix.lower() not in KINDS:
            name, _, label = line.rpartition(" ")
            if not name:
                raise BadInput(f"{line[:80]!r} is no image by its suffix.", "Write one path a line, a class after it.", file=path, record=number)
        yield number, name.strip(), label.strip() or None


def _table(text: str, path: Path, config: ImageConfig) -> Iterator[tuple[int, str, str | None]]:
    """(line, path, class) of a list with a header."""
    column = config.image_field or "image"
    rows = csv.DictReader(text.splitlines(), delimiter="," if path.suffix.lower() == ".csv" else "\t", strict=True)
    try:
        names = rows.fieldnames or []
        if column not in names:
            there = ", ".join(repr(name) for name in names[:8])
            mend = "Name the column that holds the paths with --image.image-field. The first line must be a header."
            raise BadInput(f"has no column {column!r} (its columns: {there}).", mend, file=readable(path))
        refuse_twice(names, (column, config.label_field), path)
        for row in rows:
            yield rows.line_num, (row[column] or "").strip(), (row.get(config.label_field) or "").strip() or None
    except csv.Error as error:
        raise BadInput(f"is no valid table ({error}).", "Quote fields with double quotes.", file=readable(path), record=rows.line_num) from error
