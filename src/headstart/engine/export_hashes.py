"""The hashes of an export: a model whose bytes were changed since is refused, not trained on.

A small file lies in the export; the export beside a checkpoint is in the checkpoint's own manifest. A folder that has neither is someone else's, or
of an older version, and is taken as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.files import open_regular, own_file, read_json, sha256_file, write_json
from headstart.core.progress import Reporter
from headstart.engine.checkpoint_places import MANIFEST, MAX_MANIFEST_BYTES

HASHES = "hashes.json"
FORMAT_VERSION = 1
_NOT_HASHED = {HASHES, "README.md"}  # a person may write into a card
_MEND = "The command of its run makes it again from the last checkpoint; of a copy, copy it again."
_BLOCK = 1 << 22


def write_hashes(folder: Path) -> None:
    """Hashes the files of an export that was just written."""
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    hashes = {name: sha256_file(folder / name) for name in names if Path(name).name not in _NOT_HASHED}
    write_json(folder / HASHES, {"format_version": FORMAT_VERSION, "sha256": hashes})


def verify_export(folder: Path) -> None:
    """Compares a model folder with the hashes that were written with it, if there are any. Reads each file once.

    Args:
        folder: an export, one of the model folders in it, or an export beside a checkpoint.

    Raises:
        BadInput: a file is missing or changed.
    """
    for name, sha256 in _stated(folder):
        try:
            same = sha256_file(own_file(folder, name)) == sha256
        except (BadInput, OSError):
            same = False
        if not same:
            raise BadInput(f"is damaged: {name} is not what was written.", _MEND, file=folder)


def copy_export(folder: Path, to: Path) -> int:
    """Copies a model folder, each file compared with its hash while it is copied: those that were written with it, and its cards; of a folder without
    hashes, every file. Nothing is read through a link that leads out of it.

    Args:
        folder: as for `verify_export`.
        to: a new folder.

    Returns:
        the number of files.

    Raises:
        BadInput: a file is missing or changed.
    """
    stated: dict[str, str | None] = dict(_stated(folder))
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if not path.is_dir())
    names = stated | {name: None for name in found if (not stated or Path(name).name == "README.md") and name != HASHES}
    files = {name: own_file(folder, name) for name in names}
    with Reporter("copy", sum(file.stat().st_size for file in files.values()) / 1e6, "MB") as progress:
        for name, file in files.items():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256()
            with open_regular(file) as source, (to / name).open("xb") as target:
                while block := source.read(_BLOCK):
                    digest.update(block)
                    target.write(block)
                    progress.advance(len(block) / 1e6)
            if names[name] not in (None, digest.hexdigest()):
                raise BadInput(f"is damaged: {name} is not what was written.", _MEND, file=folder)
    return len(files)


def _stated(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, SHA-256) of each file that `folder` should hold."""
    for root, file, prefix in (
        (folder, HASHES, ""),
        (folder.parent, HASHES, f"{folder.name}/"),  # export/discriminator
        (folder.parent, MANIFEST, "export/" if folder.name == "export" else None),  # step-00000020/export
        (folder.parent.parent, MANIFEST, f"export/{folder.name}/" if folder.parent.name == "export" else None),
    ):
        if prefix is None or not (root / file).is_file():
            continue
        found: Any = read_json(own_file(root, file), MAX_MANIFEST_BYTES)
        hashes = found.get("sha256") if isinstance(found, dict) else None
        if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
            if file == MANIFEST:
                continue  # not a checkpoint's
            raise BadInput("lacks its fields.", "Remove it to use the folder unchecked.", file=root / file)
        for name, value in hashes.items():
            if name.startswith(prefix) and Path(name).name not in _NOT_HASHED:
                yield name.removeprefix(prefix), value
        return
