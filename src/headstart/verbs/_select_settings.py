"""What `select` takes: the same fields in Python and on the command line. No NumPy here, so that a wrong flag is refused at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.bounds import ABOVE_0, BELOW_1, COUNT, COUNT_FROM_0, FROM_0, Bounds, refuse_outside
from headstart.core.config import plain
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json, sha256_file
from headstart.core.places import SETTINGS, refuse_folder, refuse_other_settings
from headstart.verbs.config import refuse_absent_data

BOUNDS = {
    "quota": Bounds(0, float("inf"), "Give a number of tokens, or a share up to 1.", above=True, below=True),
    "min_words": COUNT_FROM_0,
    "min_count": COUNT,
    "drop_lowest": BELOW_1,
    "lower": FROM_0,
    "upper": ABOVE_0,
}

FREE = ("out", "json", "debug")
WRITTEN = ("selected.jsonl", "scores.parquet", "scorer", "report.json")
REPORTED = ("pool", "scorer", "fates")


@dataclass
class SelectSettings:
    """The best part of a pool of texts, by how probable a model of good text finds each."""

    pool: tuple[str, ...] = ()
    """Files, folders or globs of texts to choose from; records of .jsonl may have `id` and `source`."""
    reference: tuple[str, ...] = ()
    """Files of good text of the kind that is wanted: a word trigram of it scores the pool. Its own documents are taken out of the pool."""
    scorer: Path | None = None
    """Instead of training one: a scorer folder of an earlier call, or an ARPA or binary file of KenLM (which needs the package kenlm)."""
    scores: tuple[Path, ...] = ()
    """Instead of scoring: .parquet files with columns id, perplexity, words, tokens, of earlier calls on parts of the pool or of another tool."""
    quota: float | None = None
    """How much is taken: tokens, or at most 1 for a share of the pool's tokens. None: the pool is scored, nothing is chosen."""
    out: Path | None = None
    """The folder of the result; None: runs/selections/NAME, NAME being that of the pool."""
    tokenizer: Path | None = None
    """What counts training tokens: a tokenizer.json, a model folder, an export or a store. None: the scorer's words are counted instead."""
    text_field: str = "text"
    """Field or column that holds the text."""
    min_words: int = 50
    """Documents with fewer words go; words as the scorer counts them."""
    near_duplicates: bool = True
    """Drop near duplicates: more than half of a document's windows of 13 words are in documents kept before. Takes 8 bytes of memory a word."""
    drop_lowest: float = 0.0
    """Share of the documents with the lowest perplexity that go: it loves boilerplate. The paper drops none."""
    lower: float | None = None
    """Lowest perplexity that is taken."""
    upper: float | None = None
    """Highest perplexity that is taken."""
    min_count: int = 2
    """How often a word must come in the reference to be known."""
    kenlm_words: bool = True
    """Give KenLM our words, lower-cased, punctuation apart; off: the text as it is, cut at white space, for a model that was trained on such."""
    json: bool = False
    """Print report.json."""
    debug: bool = False
    """Show tracebacks."""


def check(settings: SelectSettings) -> None:
    """Refuses, before a file is read, what cannot be.

    Raises:
        UsageError: a setting. BadInput: a file that is not there.
    """
    refuse_outside(settings, BOUNDS)
    if not settings.pool:
        raise UsageError("No pool is given.", "example: headstart select --pool pool.jsonl --reference reference.jsonl --quota 0.25")
    ways = [bool(settings.scores), settings.scorer is not None]
    if sum(ways) > 1:
        raise UsageError("--scorer and --scores both say how probable a text is.", "Give one of them.")
    if not any(ways) and not settings.reference:
        raise UsageError("Nothing says what good text is.", "Give --reference FILES, --scorer FOLDER or --scores FILES.")
    if settings.quota is not None and settings.quota > 1 and settings.quota != int(settings.quota):
        raise UsageError(f"--quota is {settings.quota:g}.", "Give a whole number of tokens, or a share up to 1.")
    if settings.lower is not None and settings.upper is not None and not settings.lower < settings.upper:
        raise UsageError(f"--lower is {settings.lower:g}, --upper {settings.upper:g}.", "Give a lowest perplexity below the highest.")
    beside = [str(path) for path in (settings.scorer, *settings.scores, settings.tokenizer) if path is not None]
    refuse_absent_data((*settings.pool, *settings.reference, *beside))
    folder = selection_folder(settings)
    refuse_folder(folder)
    _refuse_others(folder)
    refuse_other_settings(folder, "a selection", asked(settings))


def selection_folder(settings: SelectSettings) -> Path:
    """Where the selection goes."""
    return settings.out or Path("runs") / "selections" / Path(settings.pool[0]).name.split(".")[0]


def asked(settings: SelectSettings) -> dict[str, Any]:
    """What decides the selection. Files are known by name and size: the folder that holds all of it may be moved, or copied to another machine."""
    found = {name: value for name, value in plain(settings).items() if name not in FREE}
    found |= {name: [_known(entry) for entry in found[name]] for name in ("pool", "reference", "scores")}
    if settings.tokenizer is not None:
        files = (settings.tokenizer, settings.tokenizer / "tokenizer.json", settings.tokenizer / "export" / "tokenizer.json")
        found["tokenizer"] = next((sha256_file(file) for file in files if file.is_file()), found["tokenizer"])
    return found


def _known(entry: str) -> str:
    return f"{Path(entry).name} ({Path(entry).stat().st_size:,} bytes)" if os.path.isfile(entry) else entry  # noqa: PTH113 (a pattern may be no path)


def _refuse_others(folder: Path) -> None:
    """A plan and a claim let `select` write among files of theirs, so only what it would replace is looked at. A selection of before there were
    `SETTINGS` has a report.json with `REPORTED`."""
    if (folder / SETTINGS).is_file() or not any((folder / name).exists() for name in WRITTEN):
        return
    try:
        found = read_json(folder / "report.json")
    except BadInput:
        found = None
    if not (isinstance(found, dict) and all(name in found for name in REPORTED)):
        raise UsageError(f"{folder} holds other files.", "Give --out a new folder.")
