"""Which files are meant: files, folders (recursive, sorted), globs and the built-in corpus become one ordered list of input files.

Order is by path, so it is the same on every machine. Files that are passed over (other suffixes, hidden files) are counted, never silently lost.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headstart.core.errors import BadInput
from headstart.core.listing import readable, walk
from headstart.data.languages.language import is_language, parse_spec
from headstart.data.listing import absent, reached_once
from headstart.data.text import builtin

Format = Literal["txt", "document", "jsonl", "csv", "tsv", "parquet", "builtin"]
Compression = Literal["gzip", "zstd"]

FORMATS: dict[str, Format] = {
    ".txt": "txt", ".text": "txt", ".md": "document", ".markdown": "document", ".rst": "document",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
BYTES_A_SENTENCE = 20
"""About what one of a language with known statistics takes, before it is written."""
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class InputFile:
    """One file to read.

    Attributes:
        path: what is opened.
        name: how it is called in messages and manifests; valid UTF-8 whatever the path holds.
        format, compression: how it is read.
        size, mtime_ns: as found when it was listed; -1 and 0 if it could not even be looked at.
        listing: of a built-in corpus, the hash of the installed files that it is made of.
    """

    path: Path
    name: str
    format: Format
    compression: Compression | None
    size: int
    mtime_ns: int
    listing: str = ""


@dataclass
class Inputs:
    """What the sources hold: the files to read, in order, and how many were passed over, by reason.

    Attributes:
        of_sources: how many of the files come from each source.
    """

    files: list[InputFile] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    of_sources: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(max(file.size, 0) for file in self.files)


def find_inputs(sources: Sequence[str | Path]) -> Inputs:
    """List the input files of `sources`. A file that is reached twice is read once.

    Raises:
        BadInput: a source does not exist, has an unknown suffix, or is a folder or glob without a single file that can be read.
    """
    inputs = Inputs()
    seen: set[str] = set()
    for source in sources:
        found = Inputs()
        if is_language(str(source)):
            spec = parse_spec(str(source))
            found.files = [InputFile(Path(source), str(source), "builtin", None, BYTES_A_SENTENCE * spec.sentences, 0, spec.listing)]
        elif str(source).startswith(builtin.PREFIX):
            packages = builtin.package_files(str(source))
            size, listing = sum(file.size for file in packages), builtin.listing_sha256(packages)
            found.files = [InputFile(Path(source), str(source), "builtin", None, size, 0, listing)]
        else:
            _find(str(source), found)
        files = list(reached_once(found.files, seen, inputs.passed_over))
        inputs.files += files
        inputs.of_sources.append(len(files))
        inputs.passed_over += found.passed_over
    if not inputs.files:
        raise BadInput("no input files.", "Give at least one file, folder or glob with --data.")
    return inputs


def _find(source: str, found: Inputs) -> None:
    path = Path(source)
    if path.is_dir():
        for file in walk(path):
            _take(file, found)
        mend = f"Put files with one of these suffixes there: {known_suffixes()}."
    elif os.path.lexists(path):
        if format_of(path) is None:
            raise BadInput("unknown kind of text file.", f"Known suffixes: {known_suffixes()}.", file=readable(path))
        _take(path, found)
        mend = ""
    elif glob.has_magic(source):
        for name in sorted(glob.glob(source, recursive=True), key=os.fsencode):  # noqa: PTH207 (pathlib takes no absolute pattern)
            if not Path(name).is_dir():
                _take(Path(name), found)
        mend = f"Check the pattern; known suffixes: {known_suffixes()}."
    else:
        raise absent(path)
    if not found.files:
        others = ", ".join(f"{count} {reason}" for reason, count in found.passed_over.most_common(5)) or "nothing"
        raise BadInput(f"no text files found (found {others}).", mend, file=readable(path))


def _take(path: Path, found: Inputs) -> None:
    known = format_of(path)
    if path.name.startswith("."):
        found.passed_over["hidden"] += 1
    elif known is None:
        found.passed_over[readable(path.suffix) or "without suffix"] += 1
    else:
        found.files.append(_describe(path, *known))


def _describe(path: Path, format: Format, compression: Compression | None) -> InputFile:
    try:
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a dangling link, a loop of links: the reader reports it as bad input, with the others
        size, mtime_ns = -1, 0
    return InputFile(path, readable(path), format, compression, size, mtime_ns)


def format_of(path: Path) -> tuple[Format, Compression | None] | None:
    """Format and compression by suffix, None if unknown. A compressed parquet file is unknown: parquet compresses inside."""
    *_, before, last = ["", "", *(suffix.lower() for suffix in path.suffixes)]
    compression = COMPRESSIONS.get(last)
    format = FORMATS.get(before if compression else last)
    if format is None or (compression and format == "parquet"):
        return None
    return format, compression


def known_suffixes() -> str:
    return " ".join(FORMATS) + " (each but .parquet also with .gz or .zst)"
