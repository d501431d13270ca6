"""Flags from dataclasses (tyro) and from argparse; what they do not take is refused in our two lines: what is wrong, and what to write instead."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from headstart.core.config import field_docs, takes
from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean

T = TypeVar("T")
FIRST = ("adapt", "compare", "evaluate", "fit", "measure", "merge", "probe", "rerank")
"""Verbs that take runs, models or files before their flags."""


class Parser(argparse.ArgumentParser):
    """argparse with our errors; a flag is written in full."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        known = re.findall(r"--[a-z][\w.-]*", self.format_help())
        closest = next(filter(None, (did_you_mean(word, known) for word in re.findall(r"--\w[\w.-]*", message) if word not in known)), "")
        raise UsageError(f"{message[0].upper()}{message[1:]}.", f"{closest}`{self.prog} --help` explains the flags.")


@dataclasses.dataclass(frozen=True)
class Flag:
    """A leaf of a nested dataclass as the command line writes it."""

    name: str  # --optimizer.learning-rate
    hint: Any
    doc: str


def from_dataclass(default: T, argv: list[str], prog: str, description: str) -> T:
    """`default` (a nested dataclass) with what the flags of `argv` say.

    Raises:
        UsageError: a flag that does not exist or a value that it does not take.
        SystemExit: after --help.
    """
    import tyro

    refused = io.StringIO()
    try:
        with contextlib.redirect_stderr(refused):
            return tyro.cli(type(default), args=argv, default=default, prog=prog, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
    raise explained(argv, list(flags_of(default)), refused.getvalue(), prog)


def flags_of(config: Any, prefix: str = "") -> Iterator[Flag]:
    """Every flag of a nested dataclass, switches in both forms (--smoke, --no-smoke)."""
    cls: type = type(config)
    hints, docs = get_type_hints(cls), field_docs(cls)
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from flags_of(value, f"{prefix}{name}.")
            continue
        yield Flag(f"--{prefix}{name}", hints[field.name], docs.get(field.name, ""))
        if hints[field.name] is bool:
            yield Flag(f"--{prefix}no-{name}", bool, docs.get(field.name, ""))


def named(flags: list[str]) -> list[str]:
    """The settings that the command line names: --method.hidden-size 64 is method.hidden_size, --no-smoke is smoke."""
    names = [flag[2:].split("=")[0].replace("-", "_") for flag in flags if flag.startswith("--")]
    return names + [head + rest.removeprefix("no_") for head, rest in ((name[: name.rfind(".") + 1], name[name.rfind(".") + 1 :]) for name in names)]


def explained(argv: list[str], flags: list[Flag], refused: str, prog: str) -> UsageError:
    """What is wrong with `argv`, for which tyro printed `refused`."""
    known = {flag.name: flag for flag in flags}
    given = [(word.split("=")[0].replace("_", "-"), i) for i, word in enumerate(argv) if re.match(r"--\w", word)]
    lists_them = f"`{prog} --help` explains the flags."
    for name, _ in given:
        if members := [flag for flag in known if flag.startswith(f"{name}.")]:
            return UsageError(f"{name} is a group of flags.", f"Name one of it: {', '.join(members)}.")
        if name not in known:
            return UsageError(f"There is no flag {name}.", f"{did_you_mean(name, known)}{lists_them}")
    words = " ".join(re.sub(r"[│╭╮╰╯─]", " ", refused).split())
    blamed = next((known[name] for name in re.findall(r"--\w[\w.-]*", words) if name in known), None)
    for name, place in reversed(given):  # of a flag that is given twice the last counts
        if blamed is None or name != blamed.name:
            continue
        _, equals, value = argv[place].partition("=")
        values = [value] if equals else list(takewhile(lambda word: not word.startswith("--"), argv[place + 1 :]))
        what = f"{name} cannot be '{' '.join(values)}'." if values else f"{name} needs a value."
        choices = get_args(blamed.hint) if get_origin(blamed.hint) is Literal else ()
        return UsageError(what, f"{did_you_mean(' '.join(values), choices)}It takes: {takes(blamed.hint)}. {' '.join(blamed.doc.split())}")
    stray = next((word for word in argv if re.search(rf"Unrecognized options:.*(?<!\S){re.escape(word)}(?!\S)", words)), None)
    first = " What has no flag comes first, before all flags." if prog.split()[1] in FIRST and stray is not None else ""
    return UsageError(words if stray is None else f"'{stray}' belongs to no flag.", lists_them + first)
