"""Bounds of the numbers of verbs with few flags, for the command line, which refuses at once, and for Python. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.core.bounds import COUNT, MINUTES, SEED, SEEDS
from headstart.core.errors import UsageError
from headstart.core.places import SETTINGS, Folder, refuse_folder, refuse_other_settings

PEEK = {"count": COUNT, "seed": SEED}
SAMPLE = {"count": COUNT, "seed": SEED}
EMBED = {"shown": COUNT, "neighbours": COUNT, "seed": SEED}
EMBED_FLAGS = frozenset(("--data", "--out", "--text-field", "--shown", "--neighbours", "--seed", "--device", "--json"))
REPLAY = {"step": COUNT}
DEMO = {"minutes": MINUTES, "seeds": SEEDS}

DEMO_FOLDER = Folder("task/task.json", ("source", "split", "labels"), ("task",))
EMBED_FOLDER = Folder(SETTINGS, ("run", "data"))


def vectors_folder(
    run: str | Path, data: Sequence[str | Path], out: str | Path | None, text_field: str | None = None
) -> tuple[Path, Mapping[str, Any]]:
    """Where `embed` writes, and what its `SETTINGS` says.

    Raises:
        UsageError: nothing is given; it cannot be a folder of vectors, or holds those of other records or another run.
    """
    if not data:
        raise UsageError("No data is given.", "Give --data FILE_OR_FOLDER: the records to embed.")
    folder = Path(out) if out is not None else Path("runs") / "embeddings" / Path(run).absolute().name
    if folder.suffix in (".npy", ".parquet", ".npz", ".jsonl") and not folder.is_dir():
        raise UsageError(f"{folder} names a file; embed writes a folder.", f"Give --out {folder.with_suffix('')}: it gets vectors.npy.")
    refuse_folder(folder, ours=EMBED_FOLDER)
    asked = {"run": str(run), "data": [str(entry) for entry in data], **({} if text_field is None else {"text_field": text_field})}
    refuse_other_settings(folder, "vectors", asked)
    return folder, asked
