"""The two classifiers as stages (webmath A3, A7): the texts they see, and how they are trained from a corpus."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow as pa

from headstart.curate.fasttext import Classifier, FastTextConfig, load_classifier, settings_for, train
from headstart.curate.tables import Stage, drop, texts_of, with_column

LONGEST_TOKEN = 100
_TOKEN = re.compile(r"\\[A-Za-z]+|\d+(?:[.,]\d+)*|[^\W\d_]+|(?P<run>[-_])(?P=run)*|[\\$^{}=+*/<>().,!?]")


def plain(text: str) -> str:
    """The text as the first classifier sees it: one line."""
    return " ".join(text.split())


def cleaned(text: str, lemmatise: Callable[[str], str] | None = None) -> str:
    """The text as the second classifier sees it (A7): lower-case words, numbers as <NUM>, a LaTeX command one token, each of the signs of formulas a
    token of its own, runs of - or _ as one; other signs and tokens of over 100 characters are gone."""
    tokens = []
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token[0].isdigit():
            tokens.append("<NUM>")
        elif found["run"]:
            tokens.append(found["run"])
        elif len(token) <= LONGEST_TOKEN:
            word = token.lower()
            tokens.append(lemmatise(word) if lemmatise is not None and word.isalpha() else word)
    return " ".join(tokens)


def stem(word: str) -> str:
    """A short list of English endings: equations -> equation, theories -> theory, solving -> solv. For `lemmatise`, where no lemmatiser is wanted."""
    for ending, instead in (("sses", "ss"), ("ies", "y"), ("ing", ""), ("ed", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("ss", "us", "is")):
            return word[: len(word) - len(ending)] + instead
    return word


VIEWS: dict[str, Callable[[str], str]] = {"plain": plain, "cleaned": cleaned, "cleaned and stemmed": lambda text: cleaned(text, stem)}


def scored(classify: Classifier | Path, view: Callable[[str], str], column: str, at_least: float) -> Stage:
    """A stage: the probability of the domain as a column; documents below `at_least` are dropped, one at it stays.

    Args:
        classify: a classifier, or the file of one, which each process reads once.
    """

    def stage(table: pa.Table) -> pa.Table:
        model = _loaded(classify) if isinstance(classify, Path) else classify
        probabilities = model.positive(view(text) for text in texts_of(table))
        # Compared as the 32-bit numbers that are stored: .4 stays at .4.
        reasons = [None if keep else "below the threshold" for keep in probabilities >= probabilities.dtype.type(at_least)]
        return drop(with_column(table, column, probabilities, pa.float32()), reasons)

    return stage


@cache
def _loaded(path: Path) -> Classifier:
    return load_classifier(path)


def learn(
    positive: Sequence[str], negative: Sequence[str], view: Callable[[str], str], config: FastTextConfig | None, seed: int, warn: Callable[[str],
    None]
) -> Classifier:
    """A classifier of documents, with the settings for so many (`settings_for`).

    Raises:
        BadInput: a side has no document.
    """
    chosen = replace(settings_for(len(positive) + len(negative), config, warn), seed=seed)
    return train([view(text) for text in positive], [view(text) for text in negative], chosen)
