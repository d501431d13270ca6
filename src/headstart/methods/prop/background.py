"""p(w|C): what a word has before a document is read, from the corpus or from a table of the language."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.data.tables import records, wrong_delimiter
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.statistics import Statistics
from headstart.objectives.word_sets import keep_probability


@dataclass(frozen=True)
class Background:
    """Of each word of a corpus, in its order."""

    probability: np.ndarray
    """float64 [words]: p(w|C), 0 for words that are never drawn. It is not normalised: what rare words would have is missing."""
    keep: np.ndarray
    """float64 [words]: see `keep_probability`."""


def background_of(found: Statistics, config: PropConfig) -> Background:
    """The background of a corpus, or, with `config.statistics`, that of the table.

    Raises:
        BadInput: the table cannot be used.
    """
    if config.statistics is not None:
        df, ctf, total_df, total_ctf = _of_table(found, config.statistics)
    else:
        df, ctf = found.df.astype(np.float64), found.ctf.astype(np.float64)
        total_df, total_ctf = df.sum(), ctf.sum()
    known = np.where(np.isnan(ctf), df, ctf)  # of a table without counts the documents decide what is rare
    share = df / max(total_df, 1.0) if config.background == "df" else np.nan_to_num(ctf) / max(total_ctf, 1.0)
    writable = np.diff(found.piece_ends) > 0
    frequency = np.nan_to_num(ctf) / max(total_ctf, 1.0)
    return Background(np.where((known >= config.least_count) & writable, share, 0.0), keep_probability(frequency, config.subsampling))


@lru_cache(maxsize=2)
def _table(path: str, changed: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """word -> (df, ctf; NaN where it is not said)."""
    words: dict[str, tuple[float, float]] = {}
    for number, record in records(path):
        if missing := [name for name in ("word", "df") if name not in record]:
            mend = wrong_delimiter(path, record) or "Each record needs word and df, and may have ctf."
            raise BadInput(f"has no field {missing[0]!r}, only {', '.join(map(repr, list(record)[:8]))}", mend, file=path, record=number)
        if not isinstance(word := record["word"], str) or not word:
            raise BadInput("has no word", "Correct or remove the record.", file=path, record=number)
        if word in words:
            raise BadInput(f"has the word {word!r} a second time", "Remove one of them, or add them.", file=path, record=number)
        words[word] = (_count(record["df"], "df", path, number), _count(record.get("ctf"), "ctf", path, number))
    return words


def _count(value: object, name: str, path: str, number: int) -> float:
    if name == "ctf" and value in (None, ""):
        return math.nan
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found < math.inf or isinstance(value, bool):
        raise BadInput(f"the field {name!r} is {value!r}, which counts nothing", "Give a number from 0.", file=path, record=number)
    return found


def _of_table(found: Statistics, path: str) -> tuple[np.ndarray, np.ndarray, float, float]:
    """(df, ctf of the corpus's words, 0 for those that the table lacks; sums of both over the whole table)."""
    status = Path(path).stat() if Path(path).exists() else None
    table = _table(path, (0, 0) if status is None else (status.st_size, status.st_mtime_ns))
    values = np.array([table.get(word, (0.0, 0.0)) for word in found.words], np.float64).reshape(-1, 2)
    all_values = np.array(list(table.values()), np.float64).reshape(-1, 2)
    if len(found.words) and not values[:, 0].any():
        raise BadInput(f"has none of the {len(found.words):,} words of the corpus.", "Is it of another language, or of other case?", file=path)
    return values[:, 0], values[:, 1], float(all_values[:, 0].sum()), float(np.nansum(all_values[:, 1]))
