"""The commands that `advise` ends with, and settings as the command line takes them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from headstart.tasks.config import FinetuneConfig
from headstart.verbs._advise_candidates import Candidate
from headstart.verbs.config import flag

DEFAULTS = {"device": "auto", "text.text_field": "text"}
"""Settings of a candidate that its command need not repeat."""


def pretrain_command(winner: Candidate, flops: float) -> str:
    """Goes on with the winner's run to the end of its budget: the settings of the trial without the stop."""
    settings = {"data": winner.settings["data"], "preset": winner.preset, "seed": winner.settings["seed"]}
    settings |= {name: value for name, value in winner.settings.items() if name not in settings and value != DEFAULTS.get(name)}
    words = [as_flag(name, value) for name, value in (settings | {"budget.flops": f"{flops:g}", "out": winner.run}).items()]
    return " ".join(["headstart", "pretrain", winner.method, *words])


def finetune_command(init: Path, labels: Path | None, config: FinetuneConfig) -> str:
    """Fine-tuning of a run or model with these settings."""
    default = FinetuneConfig()
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    changed = {name: value for name, value in settings.items() if value != getattr(default, name)}
    files = {"init": init, "train": labels or "TRAIN.jsonl", "test": "TEST.jsonl"}
    return " ".join(["headstart", "finetune", "classification", *(as_flag(name, value) for name, value in (files | changed).items())])


def as_flag(name: str, value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, bool):
        group, dot, last = name.rpartition(".")
        return f"--{flag(name if value else f'{group}{dot}no-{last}')}"
    values = value if isinstance(value, list | tuple) else [value]
    return " ".join([f"--{flag(name)}", *(shlex.quote(str(entry)) for entry in values)])
