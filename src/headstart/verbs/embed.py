"""`embed`: vectors of a person's records from the backbone of a run, and the nearest neighbours of a few of them: people look before they read.

    OUT/vectors.npy       float32 [n, dim], in the order of the records
    OUT/records.jsonl     {"record": name} of each
    OUT/neighbours.jsonl  {"record", "neighbours": [{"record", "cosine"}]} of those that are shown
    OUT/neighbours.png    of images: the same to look at
    OUT/settings.json     the run and the data; vectors of others do not replace them
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.bounds import refuse_outside
from headstart.core.config import several
from headstart.core.errors import UsageError
from headstart.core.files import atomic_write, locked, write_json
from headstart.core.flags import in_words_of
from headstart.core.places import SETTINGS, refuse_other_settings
from headstart.core.progress import Reporter
from headstart.core.words import plural
from headstart.data.permute import draw
from headstart.engine.device import use_device
from headstart.engine.method import Method
from headstart.verbs._kinds import kind_of
from headstart.verbs._look_settings import EMBED, EMBED_FLAGS, vectors_folder
from headstart.verbs._texts import read_records as read_texts
from headstart.verbs.sample import load_run

BATCH = 64
PICTURE = "neighbours.png"
ROUNDING = 1e-6
"""By which the cosine of equal vectors in float32 may miss 1."""


@dataclass
class Embedded:
    """What `embed` found.

    Attributes:
        folder: where it lies.
        names: of the records.
        vectors: float32 [n, dim].
        neighbours: of those that are shown: (record, its nearest others with their cosines), by number.
    """

    folder: Path
    names: list[str]
    vectors: np.ndarray
    neighbours: list[tuple[int, list[tuple[int, float]]]]


@in_words_of(EMBED_FLAGS)
def embed(
    run: str | Path,
    data: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    text_field: str | None = None,
    shown: int = 8,
    neighbours: int = 5,
    seed: int = 0,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Embedded:
    """Embeds every record of `data` with the newest export of a run.

    Args:
        run: a run folder.
        data: files, folders or globs of the kind that the run was trained on.
        out: where the vectors go; None: runs/embeddings/NAME.
        text_field: of texts, the field with the text; None: that of the run's data.
        shown: records whose neighbours are shown, drawn by `seed`.
        neighbours: how many of each.

    Raises:
        BadInput: not a run, or a record cannot be used.
        UsageError: nothing is given, a number is impossible, or `out` holds vectors of another run or other data.
    """
    data = several(data)
    refuse_outside({"shown": shown, "neighbours": neighbours, "seed": seed}, EMBED)
    folder, asked = vectors_folder(run, data, out, text_field)
    method, store, _ = load_run(Path(run))
    kind, where = kind_of(method), use_device(device)
    if text_field is not None and method.data_group != "text":
        raise UsageError(f"--text-field is of texts, and {run} is a run of {method.card.slug}.", "Leave it out.")
    read = kind.read_records if text_field is None else partial(read_texts, text_field=text_field)
    names, vectors = embed_records(method.to(where).eval(), read(data, store), where)
    with locked(folder / ".lock", "writes vectors into this folder"):
        refuse_other_settings(folder, "vectors", asked)  # of a call that was faster
        write_json(folder / SETTINGS, asked)
        (folder / PICTURE).unlink(missing_ok=True)  # of other neighbours; one record has none
        with atomic_write(folder / "vectors.npy") as file:
            np.save(file, vectors, allow_pickle=False)
        write_lines(folder / "records.jsonl", ({"record": name} for name in names))
        found = nearest(vectors, draw(len(names), shown, seed).tolist(), neighbours)
        write_lines(
            folder / "neighbours.jsonl",
            (
                {"record": names[index], "neighbours": [{"record": names[other], "cosine": round(cosine, 6)} for other, cosine in others]}
                for index, others in found
            ),
        )
        say(f"{plural(len(names), 'vector')} of {plural(vectors.shape[1], 'number')}: {folder / 'vectors.npy'}, in the order of records.jsonl.")
        if method.embedding_note:
            say(f"NOTE: {method.embedding_note}.")
        if collapsed(vectors):
            why = "The model has collapsed, or the records are all alike."
            say(f"WARNING: all {len(names):,} vectors point the same way: every cosine is 1, and the neighbours mean nothing. {why}")
        if found[0][1]:
            wanted = {index for number, others in found for index in (number, *(other for other, _ in others))}
            records = {index: record for index, (_, record) in enumerate(read(data, store)) if index in wanted}
            rows = [[(names[index], records[index], cosine) for index, cosine in [(number, 1.0), *others]] for number, others in found]
            for line in kind.show_neighbours(rows, store, folder):
                say(line)
    return Embedded(folder, names, vectors, found)


@torch.no_grad()
def embed_records(method: Method, records: Iterator[tuple[str, Any]], device: torch.device) -> tuple[list[str], np.ndarray]:
    """Names of the records, and float32 [n, dim]; a batch is in memory at a time."""
    names: list[str] = []
    parts: list[Tensor] = []
    with Reporter("embed", unit="records") as progress:
        while chunk := list(islice(records, BATCH)):
            names += [name for name, _ in chunk]
            batch = method.encode([record for _, record in chunk])
            parts.append(method.embed({name: value.to(device) for name, value in batch.items()}).float().cpu())
            progress.advance(len(chunk))
    return names, torch.cat(parts).numpy()


def collapsed(vectors: np.ndarray) -> bool:
    """Whether [n, dim] all point the same way, so that no cosine tells anything: n is more than 1, and each is 1 within rounding."""
    unit = F.normalize(torch.from_numpy(vectors), dim=1)
    return len(unit) > 1 and bool((unit @ unit.mean(0) > 1 - ROUNDING).all() or not unit.any())


def nearest(vectors: np.ndarray, of: Sequence[int], count: int) -> list[tuple[int, list[tuple[int, float]]]]:
    """The nearest others by cosine of some rows of [n, dim], nearest first."""
    unit = F.normalize(torch.from_numpy(vectors), dim=1)
    cosines = unit[list(of)] @ unit.T  # [shown, n]
    cosines[torch.arange(len(of)), torch.tensor(of)] = -torch.inf
    values, indices = cosines.topk(min(count, len(vectors) - 1), dim=1)
    return [(row, list(zip(others, near, strict=True))) for row, others, near in zip(of, indices.tolist(), values.tolist(), strict=True)]


def write_lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """A .jsonl, whole or not at all."""
    with atomic_write(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")
