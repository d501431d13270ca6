"""Files of a language for other programs, in the layout of the official scripts: a corpus, labelled tasks, a grammar."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from headstart.core.files import atomic_write
from headstart.data.languages.grammar import Grammar
from headstart.data.languages.language import Ints, Language

MOST_DRAWS = 64
"""Rounds of draws after which a language has no more distinct sentences to give."""


def write_corpus(language: Language, path: Path, count: int, seed: int = 0) -> None:
    """corpus.txt: a sentence a line, and a blank line between sentences, so that each is a document (`--text.document-split blank-line`)."""
    sentences = language.draw(count, np.random.default_rng([seed, 4]))
    with atomic_write(path) as file:
        file.write("\n\n".join(language.spell(sentences)).encode() + b"\n")


def distinct_sentences(language: Language, count: int, shortest: int, rng: np.random.Generator) -> Ints | None:
    """The first `count` distinct sentences of at least so many words, in the order of their first draw; None where the language has fewer."""
    found = np.empty((0, language.longest), dtype=np.int64)
    for _ in range(MOST_DRAWS):
        drawn = language.draw(4 * count, rng)
        both = np.concatenate([found, drawn[language.lengths(drawn) >= shortest]])
        found = both[np.sort(np.unique(both, axis=0, return_index=True)[1])]
        if len(found) >= count:
            return found[:count]
    return None


def write_task(language: Language, task: str, path: Path, sentences: Ints) -> None:
    """task_A.csv: text, label; for the task `classification` of `finetune`."""
    label = language.tasks[task]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["text", "label"])
    writer.writerows((spelled, label.classes[int(of)]) for spelled, of in zip(language.spell(sentences), label.of(sentences), strict=True))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def write_grammar(grammar: Grammar, path: Path) -> None:
    """As JSON where the name ends so, otherwise in NLTK's text form; `read_grammar` is the inverse."""
    text = json.dumps(grammar.to_json(), indent=1) + "\n" if path.suffix == ".json" else grammar.to_text()
    with atomic_write(path) as file:
        file.write(text.encode())
