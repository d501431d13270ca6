"""What the preparations of all kinds of store have in common: where a store may be written, that a finished one is opened instead, the folder that a
killed preparation goes on with, and how the store is put in place at the end."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from headstart.core.errors import BadInput, OtherStore, UsageError
from headstart.core.files import atomic_write, locked, read_json, sha256_file, sync_folder, write_json

logger = logging.getLogger(__name__)

Store = TypeVar("Store")

ALWAYS = ("manifest.json", "quarantine.jsonl", ".work", ".lock")
"""Names in a store of any kind."""


def opened_or_built(
    out: Path,
    sources: Sequence[str | Path],
    *,
    names: Iterable[str],
    open_store: Callable[[Path], Store],
    differences: Callable[[Store], list[str]],
    build: Callable[[], None],
) -> Store:
    """The store in `out`: what a finished preparation left there, or what `build` writes; one process at a time.

    Args:
        names: what may lie in the folder beside `ALWAYS`.
        open_store: opens a finished store.
        differences: what of its inputs and settings is not as asked for, in words.
        build: writes the store, manifest.json last; goes on with what a killed process left in `.work`.

    Raises:
        UsageError: `out` lies inside a source folder or holds other files; OtherStore: a store of other inputs or settings.
        BadInput: something of the store is a link.
    """
    _check_place(out, sources, {*ALWAYS, *names})
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / ".lock", "prepares this store"):
        for leftover in out.glob(".*.tmp"):  # of a killed process
            leftover.unlink()
        if (out / "manifest.json").exists():
            store = open_store(out)
            if differs := differences(store):
                raise OtherStore(
                    f"the store {out} was made from other inputs or settings: {'; '.join(differs)}.",
                    "Give another folder; or, if no run is to continue on this one, delete it to build it again.",
                )
            shutil.rmtree(out / ".work", ignore_errors=True)  # of a process that was killed after its last step but one
            return store
        build()
        return open_store(out)


def begin_work(work: Path, plan: Mapping[str, Any], beside: Sequence[Path] = ()) -> None:
    """The folder of a preparation: that of an earlier one with the same plan, otherwise a new one, and that is said.

    Args:
        work: the folder.
        plan: what decides the bytes of the parts, as JSON has it.
        beside: folders that are of no use without it.
    """
    before = read_json(work / "plan.json") if (work / "plan.json").exists() else None
    if work.exists() and before != plan:
        if isinstance(before, dict):
            logger.warning("what was begun in %s is of another preparation (%s): it begins anew", work.parent, "; ".join(_other(before, plan)))
        for folder in (*beside, work):  # the plan last: a kill in between leaves nothing that it would not find
            shutil.rmtree(folder, ignore_errors=folder != work)
    work.mkdir(exist_ok=True)
    write_json(work / "plan.json", plan)


def _other(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of two plans differs, in words: a setting with its values, of anything else (lists of files, hashes) the name."""
    found = []
    for name, (old, new) in changed_settings(before, now).items():
        found += in_words(changed_settings(old, new)) if isinstance(old, dict) and isinstance(new, dict) else [f"other {name.replace('_', ' ')}"]
    return found


def write_arrays(work: Path, arrays: Mapping[str, np.ndarray], names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> type, shape and hash of arrays, as the manifest states them. What is mapped from a file of `work` is written already."""
    entries = {}
    for name in names:
        path, array = work / f"{name}.npy", arrays[name]
        if not isinstance(array, np.memmap):
            with atomic_write(path) as file:
                np.save(file, array, allow_pickle=False)
        entries[name] = {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": sha256_file(path)}
    return entries


def put_in_place(work: Path, out: Path, files: Iterable[str], manifest: Mapping[str, Any]) -> None:
    """Moves files of `work` into the store. The manifest comes last: its presence means that the store is complete."""
    for name in files:
        (work / name).replace(out / name)
    sync_folder(out)
    write_json(out / "manifest.json", manifest)
    shutil.rmtree(work)


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Setting -> (what a store was made with, what is asked for), where they differ."""
    return {name: (before.get(name), now.get(name)) for name in sorted({*before, *now}) if before.get(name) != now.get(name)}


def in_words(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    """size 32 -> 64, for each."""
    return [f"{name} {before!r} -> {now!r}" for name, (before, now) in changes.items()]


def _check_place(out: Path, sources: Sequence[str | Path], ours: set[str]) -> None:
    """Refuse to write into the user's data or over something that is not ours."""
    place = out.resolve()
    for source in sources:
        if Path(source).is_dir() and place.is_relative_to(Path(source).resolve()):
            mend = "Give a folder elsewhere: nothing is written into your data."
            raise UsageError(f"the store {out} would lie inside the data folder {source}.", mend)
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir() if not path.name.endswith(".tmp")} - ours):
        raise UsageError(f"{out} holds other files.", "Give a new folder for the store.")
    for name in sorted(ours):  # what is written or deleted there
        if (out / name).is_symlink():
            raise BadInput("is a link, through which a store is not written.", "Give --out a folder on the other disk.", file=out / name)
