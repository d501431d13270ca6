"""What a store of any kind is checked for when it is opened. It may come from someone else: nothing in it is executed or unpickled, no path in its
manifest is opened, and sizes are checked before anything is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import own_file, read_json, sha256_file
from headstart.data.arrays import map_array

REBUILD = "The store is damaged or not ours; delete the folder and prepare it again."


def checked_manifest(folder: Path, kind: str, version: int, of: str, is_sound: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """manifest.json of a finished store.

    Args:
        kind, version: what it must state.
        of: the kind in words, "a store of texts".
        is_sound: whether what is read of a manifest has the types that it is read as; KeyError, TypeError, ValueError or AttributeError: it has not.

    Raises:
        BadInput: it is missing, unfinished, damaged or of another kind or format version.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        if (folder / ".work").is_dir():
            raise BadInput("its preparation was interrupted.", "Start the command that prepares it again: it continues.", file=folder)
        raise BadInput("is no store: it has no manifest.json.", "Prepare one: headstart prepare METHOD --data ... --out STORE.", file=folder)
    manifest = read_json(own_file(folder, "manifest.json"))
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise BadInput(f"is not the manifest of {of}.", "Give the folder of one.", file=path)
    if manifest.get("format_version") != version:
        raise BadInput(f"has store format {manifest.get('format_version')}, this version reads {version}.", "Prepare the store again.", file=path)
    try:
        sound = is_sound(manifest)
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        raise BadInput("lacks or spoils an entry.", REBUILD, file=path)
    return manifest


def stated_array(folder: Path, manifest: Mapping[str, Any], name: str) -> np.ndarray:
    """The array NAME.npy, memory-mapped and read-only. Raises BadInput where shape or type are not those that the manifest states."""
    array, stated = map_array(folder, name, REBUILD), manifest["arrays"][name]
    if list(array.shape) != stated["shape"] or str(array.dtype) != stated["dtype"]:
        what = f"is {array.dtype}{list(array.shape)}, the manifest says {stated['dtype']}{stated['shape']}."
        raise BadInput(what, REBUILD, file=folder / f"{name}.npy")
    return array


def refuse_unfit(folder: Path, checks: Mapping[str, bool]) -> None:
    """Raises BadInput for the first array of which `checks` (name -> whether it fits) says no."""
    for name, fits in checks.items():
        if not fits:
            raise BadInput("does not fit the other arrays of the store.", REBUILD, file=folder / f"{name}.npy")


def verify_hashes(folder: Path, hashes: Iterable[tuple[str, str]]) -> None:
    """Reads whole files; `hashes`: name and SHA-256 of each. Raises BadInput at the first difference."""
    for name, stated in hashes:
        if sha256_file(folder / name) != stated:
            raise BadInput("differs from its hash in the manifest.", REBUILD, file=folder / name)


def hashes_of_arrays(manifest: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, str]]:
    """File name and SHA-256 of these arrays."""
    return [(f"{name}.npy", manifest["arrays"][name]["sha256"]) for name in names]


def numbers_of(split: str, held_out: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """int64: numbers of the documents or images of `split`, "train" or "held_out", in order; `dropped` ones belong to neither."""
    if split not in ("train", "held_out"):
        raise ValueError(f"split is 'train' or 'held_out', not {split!r}")
    return np.flatnonzero((held_out if split == "held_out" else ~held_out) & ~dropped)
