"""Files of conditional generation: sources with their targets, from jsonl, csv, tsv or parquet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.tasks.data import records
from headstart.tasks.generation_config import GenerationConfig

_SLOT = re.compile(r"\s*([^\[\],]+)\[([^\]]*)\]\s*,?")
SHORT_NAMES = {"eatType": "type", "priceRange": "price", "customer rating": "rating", "familyFriendly": "family"}
"""How E2E's slots are written in a source; the others keep their names. At a vocabulary of 1,024 it saves 14 % of the tokens."""
CHECKED_SLOTS = ("name", "near", "food", "eatType", "area")
"""The slots whose values are copied word for word; price, rating and family are phrased freely, and left out of the slot error."""


@dataclass(frozen=True)
class Item:
    """One source and what may be said to it."""

    source: str
    targets: tuple[str, ...]
    context: str | None = None
    values: tuple[str, ...] = ()
    """What an output should contain: of a meaning representation the values of `CHECKED_SLOTS`."""
    record: int = 0
    """Where it begins in its file, counted from 1."""


@dataclass
class GenerationData:
    """Sources in the order of the file."""

    items: list[Item]
    source: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def leak_texts(self) -> list[str]:
        """What must not stand in a training text: the first target of each source."""
        return [item.targets[0] for item in self.items]

    @property
    def n_pairs(self) -> int:
        return sum(len(item.targets) for item in self.items)


def read_generation(path: Any, config: GenerationConfig) -> GenerationData:
    """Records with the same source become one item, in the order of their first.

    Raises:
        BadInput: a field is missing, a target is empty, or a meaning representation cannot be read; with the record.
    """
    if isinstance(path, GenerationData):
        return path
    found: dict[tuple[str, str | None], tuple[int, list[str]]] = {}
    for number, record in records(path):
        source = _text(record, config.source_field, path, number)
        context = None if config.context_field is None else _text(record, config.context_field, path, number)
        found.setdefault((source, context), (number, []))[1].extend(_targets(record, config.target_field, path, number))
    items = []
    for (source, context), (number, targets) in found.items():
        values: tuple[str, ...] = ()
        if config.source_form == "slots":
            slots = read_slots(source, path, number)
            source, values = "; ".join(f"{SHORT_NAMES.get(name, name)}: {value}" for name, value in slots), checked_values(slots)
        items.append(Item(source, tuple(targets), context, values, number))
    return GenerationData(items, str(path))


def read_slots(text: str, path: Any = None, number: int | None = None) -> list[tuple[str, str]]:
    """name[The Vaults], eatType[pub] as pairs. Raises BadInput where it is none."""
    found, at = [], 0
    while match := _SLOT.match(text, at):
        found.append((match[1].strip(), match[2].strip()))
        at = match.end()
    if not found or text[at:].strip():
        mend = "Write slots as name[value], or give --source-form text."
        raise BadInput(f"is no meaning representation ({text[:60]!r})", mend, file=path, record=number)
    return found


def checked_values(slots: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(value.lower() for name, value in slots if name in CHECKED_SLOTS and value)


def refuse_shared(train: GenerationData, other: GenerationData) -> None:
    """Raises BadInput where a source of `other` is one of the training file: the same source in two splits is no test."""
    known = {(item.source, item.context) for item in train.items}
    for item in other.items:
        if (item.source, item.context) in known:
            what = f"has a source that the training file has too ({item.source[:60]!r})"
            raise BadInput(what, "Split the records by source, not by row.", file=other.source or None, record=item.record)


def write_outputs(folder: Path, outputs: Sequence[str], data: GenerationData) -> None:
    """outputs.txt, a line a source, and references.txt, whose groups are separated by empty lines: the form of tuetschek/e2e-metrics."""
    lines = [" ".join(output.split()) for output in outputs]
    groups = ["\n".join(" ".join(target.split()) for target in item.targets) for item in data.items]
    for name, text in (("outputs.txt", "\n".join(lines)), ("references.txt", "\n\n".join(groups))):
        with atomic_write(folder / name) as file:
            file.write(f"{text}\n".encode())


def _targets(record: dict[str, Any], name: str, path: Any, number: int) -> list[str]:
    value = record.get(name)
    targets: list[Any] = value if isinstance(value, list) else [value]
    if not targets or not all(isinstance(target, str) and target.strip() for target in targets):
        fields = ", ".join(list(record)[:8])
        raise BadInput(f"has no text, or an empty one, in '{name}'", f"Its fields are: {fields}.", file=path, record=number)
    return [target.strip() for target in targets]


def _text(record: dict[str, Any], name: str, path: Any, number: int) -> str:
    value = record.get(name)
    if not isinstance(value, str) or not value.strip():
        fields = ", ".join(list(record)[:8])
        raise BadInput(f"has no text in '{name}'", f"Its fields are: {fields}. Name one as --source-field.", file=path, record=number)
    return value.strip()
