"""`--mix FILE.yaml`: the mixture that a model was pre-trained on, and which of its sources the new text stands in for. No torch.

    - {store: old/wikipedia.jsonl, share: 0.045}
    - {store: old/books.jsonl, share: 0.135, name: books}
    - {store: crawl, share: 0.82, replace: true}       # its share goes to the part of --data; `store` says only what it was

It is turned into named parts of --data and shares of --mix, which is what run.json records.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_bounded
from headstart.core.words import first_line, known
from headstart.verbs._parts import parts_of

MAX_BYTES = 2**20
SUFFIXES = (".yaml", ".yml")
_SUM = 1e-6

C = TypeVar("C", bound=Any)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One source of the mixture."""

    name: str
    store: str
    share: float
    replace: bool


def with_mixture(config: C) -> C:
    """The configuration with the parts and shares of its mixture file; as it is where --mix names no file.

    Raises:
        BadInput: the file is no mixture. UsageError: it is not clear which part of --data takes the share.
    """
    if config.mix is None or Path(config.mix).suffix.lower() not in SUFFIXES:
        return config
    entries = read_mixture(Path(config.mix))
    parts = [part for part in parts_of(config.data) if part.train]
    data = list(config.data) if parts_of(config.data) else [f"new={entry}" for entry in config.data]
    new = [part.name for part in parts] or ["new"]
    taken = sum(entry.share for entry in entries if entry.replace)
    if taken and len(new) != 1:
        raise UsageError(f"{config.mix} gives the new text {taken:g}, and --data names {len(new)} parts ({', '.join(new)}).", "Give one part.")
    old = [entry for entry in entries if not entry.replace]
    if clash := [entry.name for entry in old if entry.name in new]:
        raise UsageError(f"'{clash[0]}' is a part of --data and of {config.mix}.", "Give one of them another name.")
    shares = {new[0]: taken} | {entry.name: entry.share for entry in old}
    mix = ",".join(f"{name}={share!r}" for name, share in shares.items())
    return dataclasses.replace(config, data=(*data, *(f"{entry.name}={entry.store}" for entry in old)), mix=mix)


def read_mixture(path: Path) -> list[Entry]:
    """The sources of a mixture file.

    Raises:
        BadInput: it is no list of {store, share, replace}, an entry is wrong, or the shares do not sum to 1.
    """
    mend = "Write a list of {store: FILE, share: 0.18}, one with replace: true for what the new text stands in for."
    try:
        listed = yaml.safe_load(read_bounded(path, MAX_BYTES, "mixture"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"is no YAML ({first_line(error)}).", mend, file=path) from None
    if not isinstance(listed, list) or not listed:
        raise BadInput("is no list of sources.", mend, file=path)
    entries = [_entry(given, number, path, mend) for number, given in enumerate(listed, 1)]
    names = [entry.name for entry in entries]
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"two sources are called '{twice[0]}'.", "Give one another name: name: ...", file=path)
    if abs((total := sum(entry.share for entry in entries)) - 1) > _SUM:
        raise BadInput(f"the shares sum to {total:g}, not to 1.", "Correct them.", file=path)
    return entries


def _entry(given: Any, number: int, path: Path, mend: str) -> Entry:
    if not isinstance(given, dict) or not given.keys() <= {"store", "share", "replace", "name"}:
        raise BadInput("is no source.", mend, file=path, record=number)
    store, share, replace = given.get("store"), given.get("share"), given.get("replace", False)
    if not isinstance(store, str) or not store:
        raise BadInput("has no store.", mend, file=path, record=number)
    if not known(share) or not 0 <= share <= 1:
        raise BadInput(f"has the share {share!r}.", "Give a number from 0 to 1.", file=path, record=number)
    if not isinstance(replace, bool):
        raise BadInput(f"replace is {replace!r}.", "Write true or false.", file=path, record=number)
    name = given.get("name", re.sub(r"[^A-Za-z0-9_-]", "_", Path(store).name.split(".")[0]))
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise BadInput(f"is called {name!r}.", "Give it a name of a letter, then letters, digits, _ or -: name: ...", file=path, record=number)
    return Entry(name, store, float(share), replace)
