"""docs/commands.md: every verb with its example and flags, read from its module."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from headstart.cli.main import VERBS
from tools.pages.results import cell


def commands_block() -> str:
    """A section for each verb, in the order of `headstart --help`."""
    return "\n\n".join(section(verb, what) for verb, what in VERBS.items())


def section(verb: str, what: str) -> str:
    """What the verb does, an example, its flags."""
    module: Any = importlib.import_module(f"headstart.cli.{verb}")
    parts = [f"## {verb}", f"{what[0].upper()}{what[1:]}.", f"```bash\n{module.EXAMPLE}\n```"]
    if hasattr(module, "add_arguments"):
        parser = argparse.ArgumentParser(add_help=False)
        module.add_arguments(parser)
        parts.append(flags(parser))
    else:
        settings = {"pretrain": "settings.md#pretrain", "finetune": "settings.md#finetune"}
        page = f"[Settings]({settings[verb]}) lists its flags; so does" if verb in settings else "Its flags:"
        subject = {"finetune": "TASK", "pretrain": "METHOD", "prepare": "METHOD"}.get(verb)
        parts.append(f"{page} `headstart {verb} {f'{subject} ' if subject else ''}--help`.")
    return "\n\n".join(part for part in parts if part)


def flags(parser: argparse.ArgumentParser) -> str:
    """The arguments of a parser as a table; empty when it has none."""
    rows = []
    for action in parser._actions:
        name = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{str(action.metavar or action.dest).upper()}`"
        standard = "-" if action.default in (None, False, [], argparse.SUPPRESS) or action.required else f"`{action.default}`"
        text = (action.help or "") % {**vars(action), "prog": parser.prog} if action.help else ""
        rows.append(f"| {name} | {standard} | {cell(text)} |")
    return "\n".join(["| argument | default | what it is |", "| --- | --- | --- |", *rows]) if rows else ""
