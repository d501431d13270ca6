"""`peek`: what lies in a prepared store, to look at before anything is trained on it: documents and training rows decoded, or images and a contact
sheet of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.core.bounds import refuse_outside
from headstart.core.errors import UsageError
from headstart.core.run import read_run
from headstart.data.listing import is_store
from headstart.verbs._kinds import KINDS, kind_of_store
from headstart.verbs._look_settings import PEEK


def peek(store: str | Path, *, count: int = 3, seed: int = 0, sheet: str | Path | None = None) -> Any:
    """Draws documents and rows of every set of rows made of the store, or images; the same seed draws the same.

    Args:
        store: a prepared store, or a run (its store is shown).
        count: documents, and rows of each set; or images.
        sheet: of images a .png file to write: a contact sheet.

    Returns:
        `data.text.describe.Peek` or `data.image.describe.Peek`.

    Raises:
        BadInput: it is neither.
        UsageError: the run has several stores, or none yet; or a contact sheet of what are no pictures is asked for.
    """
    refuse_outside({"count": count, "seed": seed}, PEEK)
    folder = store_folder(Path(store))
    kind = kind_of_store(folder)
    if sheet is not None and kind.WITHOUT_PICTURES:
        raise UsageError(f"{folder} holds {kind.WITHOUT_PICTURES}, which has no contact sheet.", "Leave out --sheet.")
    return kind.peek(folder, count, seed, None if sheet is None else Path(sheet))


def store_folder(folder: Path) -> Path:
    """The folder itself, or the store of the run that it is."""
    if not (folder / "run.json").is_file():
        if folder.exists() and not is_store(folder):
            raise UsageError(f"{folder} is no prepared store.", f"Make one: headstart prepare METHOD --data {folder} --out STORE")
        return folder
    stores = [entry["store"] for entry in read_run(folder).get("data", [])]
    if len(stores) != 1:
        mend = f"Give one of them: {', '.join(stores)}." if stores else "Let it begin first."
        raise UsageError(f"The run {folder} has {len(stores)} stores.", mend)
    return Path(stores[0])


def lines(found: Any) -> Iterator[str]:
    """What a person reads. Nothing of the data reaches the terminal as a command to it."""
    yield from KINDS[found.kind].peek_lines(found)
