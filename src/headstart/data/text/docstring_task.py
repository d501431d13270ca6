"""A labelled task that every Python installation carries: which package does a docstring sentence come from?

- Classes: the packages with the most usable sentences. A sentence is usable if it has 6 to 40 words, reads as prose, does not hold the name of its
  own package, and occurs in that package only (packages carry copies of each other).
- Split by module: no module gives both training and test sentences, and no test sentence occurs in any other module.
- Test modules are named in keep_out.txt: pre-train on `builtin:python-docs?exclude=.../keep_out.txt` and nothing of the test text was seen.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, write_json
from headstart.data.permute import combine, permute
from headstart.data.text.builtin import SPEC, Document
from headstart.data.text.encode import content_hash

MIN_WORDS, MAX_WORDS = 6, 40
MAX_PER_MODULE = 20
"""Test sentences from one module, so that no large module decides the result."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"(])")
_NOT_PROSE = re.compile(r">>>|\.\.\. |-{3,}|={3,}|[|{}\\<>]|^\s*[:@*#-]|^\w+\s*:|::$")


@dataclass
class DocstringTask:
    """The files of the task, and what they hold."""

    labels: list[str]
    train: list[Path]
    """One file a seed: a different draw of training sentences. Records have "text", "label", "module"."""
    test: Path
    """The same for every seed."""
    keep_out: Path
    """Modules with test sentences, one a line."""


def docstring_task(
    documents: Iterable[Document], out: Path, n_classes: int = 12, train_per_class: int = 40, test_per_class: int = 200, n_seeds: int = 5
) -> DocstringTask:
    """Write the task of `documents` (those of `builtin_documents`) into `out`. Equal documents give equal files.

    Raises BadInput if fewer than two packages have enough sentences.
    """
    modules = _usable_sentences(documents)
    split = {package: _split_by_module(by_module, train_per_class, test_per_class) for package, by_module in modules.items()}
    sizes = {package: sum(map(len, modules[package].values())) for package, halves in split.items() if halves is not None}
    labels = sorted(sorted(sizes, key=lambda package: (-sizes[package], package))[:n_classes])
    if len(labels) < 2:
        raise BadInput(
            f"{len(labels)} installed packages have {train_per_class} training and {test_per_class} test sentences, two are needed.",
            "Install more packages, or ask for fewer sentences.",
            file=SPEC,
        )
    out.mkdir(parents=True, exist_ok=True)
    halves = {label: half for label in labels if (half := split[label]) is not None}
    task = DocstringTask(labels, [out / f"train-{seed}.jsonl" for seed in range(n_seeds)], out / "test.jsonl", out / "keep_out.txt")
    _write(task.test, [record for label in labels for record in halves[label][1]])
    for seed, path in enumerate(task.train):
        _write(path, [record for index, label in enumerate(labels) for record in _draw(halves[label][0], train_per_class, seed, index)])
    with atomic_write(task.keep_out) as file:
        file.write("".join(sorted({f"{record['module']}\n" for label in labels for record in halves[label][1]})).encode())
    counts = {label: {"sentences": sizes[label], "train_pool": len(halves[label][0]), "test": len(halves[label][1])} for label in labels}
    split_rule = "by module; test modules are in keep_out.txt"
    write_json(out / "task.json", {"source": SPEC, "split": split_rule, "labels": labels, "counts": counts, "train_per_class": train_per_class})
    return task


Record = dict[str, str]


def _usable_sentences(documents: Iterable[Document]) -> dict[str, dict[str, list[str]]]:
    """package -> module -> its sentences; sentences that occur in several packages or several modules are left out."""
    homes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for document in documents:
        if "/" not in document.module:  # a module, not a documentation file
            for sentence in prose_sentences(document.text):
                if document.package.lower() not in sentence.lower():
                    homes[sentence][document.package, document.module] += 1
    modules: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for sentence, places in homes.items():
        if len(places) == 1:
            ((package, module),) = places
            modules[package][module].append(sentence)
    return modules


def prose_sentences(text: str) -> Iterator[str]:
    """The sentences of a docstring's paragraphs that read as prose."""
    for paragraph in re.split(r"\n\s*\n", text):
        joined = " ".join(paragraph.split())
        if not _NOT_PROSE.search(joined):
            for sentence in _SENTENCE_END.split(joined):
                if MIN_WORDS <= len(sentence.split()) <= MAX_WORDS and sentence.endswith((".", "!", "?")):
                    yield sentence


def _split_by_module(by_module: dict[str, list[str]], train: int, test: int) -> tuple[list[Record], list[Record]] | None:
    """(training pool, test) records of one package: whole modules go to the test side, by the hash of their name, until it has enough."""
    order = sorted(by_module, key=lambda module: (content_hash(module.encode()), module))
    test_records: list[Record] = []
    for count, module in enumerate(order, 1):
        package = module.split(".")[0]
        test_records += [{"text": sentence, "label": package, "module": module} for sentence in by_module[module][:MAX_PER_MODULE]]
        if len(test_records) >= test:
            pool = [{"text": sentence, "label": package, "module": rest} for rest in order[count:] for sentence in by_module[rest]]
            return (pool, test_records[:test]) if len(pool) >= train else None
    return None


def _draw(pool: list[Record], count: int, seed: int, label: int) -> list[Record]:
    chosen = permute(np.arange(count), len(pool), combine(seed, label))
    return [pool[index] for index in chosen]


def _write(path: Path, records: list[Record]) -> None:
    with atomic_write(path) as file:
        file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode())
