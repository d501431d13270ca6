"""Named parts of the data: `--data new=new.jsonl old=old.jsonl --mix new=0.7,old=0.3`, and what is measured apart. No torch: refused at once.

    NAME=PATH             text of the part NAME; several entries with one name are one part
    NAME:held-out=PATH    its held-out text, where that is a file of its own: NAME=PATH is then trained on whole. Alone: NAME is only measured

A path that exists as it is written is no name: a file may be called a=b.txt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean

OLD = "old"
"""The part that stands for what a model of --init was trained on: where that is one of our runs, its store."""
_ENTRY = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)(:held-out)?=(.+)", re.DOTALL)
_SUM = 1e-6


@dataclass(frozen=True)
class NamedData:
    """What --data says of one part."""

    name: str
    train: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()


def split_entry(entry: str) -> tuple[str, bool, str] | None:
    """(name, whether it is held-out text, path) of an entry that has a name."""
    found = None if os.path.lexists(entry) else _ENTRY.fullmatch(entry)
    return None if found is None else (found[1], found[2] is not None, found[3])


def path_of(entry: str) -> str:
    """An entry without its name."""
    found = split_entry(entry)
    return entry if found is None else found[2]


def parts_of(data: Sequence[str]) -> list[NamedData]:
    """The named parts in the order in which --data first names them; none where it names nothing.

    Raises:
        UsageError: some entries have a name and some have not, or a part is measured on what it is trained on.
    """
    found = [split_entry(entry) for entry in data]
    if not any(found):
        return []
    if nameless := [entry for entry, names in zip(data, found, strict=True) if names is None]:
        if "=" in nameless[0]:
            what = f"{nameless[0]} of --data cannot be read as NAME=PATH, and no such path exists."
            raise UsageError(what, "A name begins with a letter and has letters, digits, - and _; a path follows it: new=FILE.")
        raise UsageError(f"Some entries of --data have a name, and {nameless[0]} has none.", f"Give it one: NAME={nameless[0]}.")
    parts: dict[str, NamedData] = {}
    for name, held_out, path in filter(None, found):
        part = parts.get(name, NamedData(name))
        parts[name] = NamedData(name, part.train, (*part.held_out, path)) if held_out else NamedData(name, (*part.train, path), part.held_out)
    for part in parts.values():
        if both := [path for path in part.train if path in part.held_out]:
            what = f"'{part.name}' of --data is trained on {both[0]} and measured on it."
            raise UsageError(what, f"Give other text as {part.name}:held-out=, or leave that out: a share of the documents is held out.")
    if not any(part.train for part in parts.values()):
        raise UsageError("All of --data is held-out text.", "Give something to train on: new=FILE.")
    return list(parts.values())


def mix_of(mix: str | None) -> dict[str, float] | None:
    """Name -> share of --mix.

    Raises:
        UsageError: it cannot be read, or is no mixture.
    """
    if mix is None:
        return None
    shares: dict[str, float] = {}
    for entry in mix.split(","):
        name, equals, value = entry.strip().partition("=")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if not equals or not 0 <= share < float("inf"):
            raise UsageError(f"--mix {mix} cannot be read at '{entry.strip()}'.", "Give each part a share: --mix new=0.7,old=0.3.")
        if name in shares:
            raise UsageError(f"--mix {mix} gives '{name}' two shares.", "Give each part one: --mix new=0.7,old=0.3.")
        shares[name] = share
    if abs(sum(shares.values()) - 1) > _SUM:
        raise UsageError(f"The shares of --mix {mix} sum to {sum(shares.values()):g}, not to 1.", "Give shares of the tokens: --mix new=0.7,old=0.3.")
    return shares


def check_parts(data: Sequence[str], mix: str | None, has_init: bool) -> None:
    """Raises UsageError where names and shares do not fit each other. The part `old` may come from the run of --init."""
    shares, parts = mix_of(mix), parts_of(data)
    if shares is None:
        return
    if not parts:
        raise UsageError("--mix names parts, and --data has no names.", f"Name its entries: --data {' '.join(f'{name}=FILE' for name in shares)}.")
    trained = {part.name for part in parts if part.train} | ({OLD} if has_init and OLD not in {part.name for part in parts if part.train} else set())
    if strange := [name for name in shares if name not in trained]:
        mend = did_you_mean(strange[0], sorted(trained)) + f"Give {strange[0]}=FILE in --data."
        raise UsageError(f"--mix gives a share to '{strange[0]}', which --data does not have to train on.", mend)
    if silent := [part.name for part in parts if part.train and part.name not in shares]:
        raise UsageError(f"--mix gives no share to '{silent[0]}'.", f"Give {silent[0]}=0 to measure it only, or leave it out of --data.")
