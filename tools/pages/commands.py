"""docs/commands.md: every verb with its example and flags, read from its module."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
from typing import Any

from headstart.cli.main import VERBS
from headstart.core.config import field_docs
from headstart.tasks.config import FinetuneConfig
from tools.pages import settings
from tools.pages.results import cell

SETTINGS: dict[str, tuple[str, ...]] = {
    "adapt": ("_adapt_settings", "AdaptSettings"),
    "advise": ("advise", "AdviseSettings"),
    "compare": ("compare", "CompareSettings"),
    "curate": ("_curate_settings", "CurateSettings"),
    "fit": ("_fit_settings", "FitSettings"),
    "select": ("_select_settings", "SelectSettings"),
    "evaluate": ("_evaluate_settings", "EvaluateSettings"),
    "merge": ("_merge_settings", "MergeSettings"),
    "rerank": ("_rerank_settings", "RerankSettings"),
    "measure": ("_measure_settings", "SharpnessSettings", "ExactLossSettings"),
    "plan": ("_plan_settings", "CptSettings", "SweepSettings"),
    "probe": ("_probe_settings", "ProbeSettings"),
}
"""Verb -> module of `verbs` and dataclass of its flags; of a verb with several forms one for each."""

WHICH = {"measure": ("sharpness", "loss-exact"), "plan": ("cpt", "dcpt")}
"""The forms of a verb, in the order of their dataclasses."""

ELSEWHERE = {
    "pretrain": "[Settings](settings.md#pretrain) lists its flags; so does `headstart pretrain METHOD --help`.",
    "finetune": "[Settings](settings.md#finetune) lists its flags; so does `headstart finetune TASK --help`.",
    "prepare": "`--data`, `--out STORE`, `--preset`, and the [settings of the data](settings.md#-text); so says `headstart prepare METHOD --help`.",
    "profile": "Its flags are those of `pretrain`: [Settings](settings.md#pretrain).",
}
"""Verb -> where its flags are listed."""


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
    elif verb in SETTINGS:
        name, *classes = SETTINGS[verb]
        for form, settings_class in zip(WHICH.get(verb, ("",)), classes, strict=True):
            parts += [f"### {verb} {form}"] if form else []
            parts.append(groups(getattr(importlib.import_module(f"headstart.verbs.{name}"), settings_class)))
    else:
        parts.append(ELSEWHERE[verb])
    return "\n\n".join(part for part in parts if part)


def groups(cls: type) -> str:
    """The flags of a dataclass, its groups after its own; fine-tuning recipes are listed once, in the settings."""
    parts = [settings.table(cls)]
    for field in dataclasses.fields(cls):
        value = getattr(cls(), field.name)
        if isinstance(value, FinetuneConfig):
            parts.append(f"`--{field.name}.NAME`: {field_docs(cls)[field.name]} [What there is](settings.md#how).")
        elif dataclasses.is_dataclass(value):
            parts.append(settings.table(type(value), field.name))
    return "\n\n".join(parts)


def flags(parser: argparse.ArgumentParser) -> str:
    """The arguments of a parser as a table; empty when it has none."""
    rows = []
    for action in parser._actions:
        name = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{str(action.metavar or action.dest).upper()}`"
        standard = "-" if action.default in (None, False, [], argparse.SUPPRESS) or action.required else f"`{action.default}`"
        text = (action.help or "") % {**vars(action), "prog": parser.prog} if action.help else ""
        rows.append(f"| {name} | {standard} | {cell(text)} |")
    return "\n".join(["| argument | default | what it is |", "| --- | --- | --- |", *rows]) if rows else ""
