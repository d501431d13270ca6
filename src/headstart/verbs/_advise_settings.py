"""What `advise` takes: the same fields in Python and on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headstart import catalog, methods
from headstart.core.bounds import MINUTES, SEED, refuse_outside
from headstart.core.config import replace_nested
from headstart.core.device_names import check_device
from headstart.core.errors import BadInput, UsageError
from headstart.core.places import refuse_folder
from headstart.core.words import did_you_mean
from headstart.data.text.builtin import PREFIX
from headstart.verbs.config import check_numbers, preset_config

OWN_FLAGS = ("data", "out", "init", "seed", "device", "preset", "smoke", "dry_run", "resume", "json", "debug")


@dataclass
class AdviseBudget:
    """What may be spent in all."""

    minutes: float | None = None
    """Minutes on this machine, in all: a fifth for the answer (training and measuring), the rest for the winner's run, which goes on from its trial.
    Preparing the data once comes beside."""


@dataclass
class AdviseSettings:
    """Which pre-training helps on this data."""

    data: tuple[str, ...] = ()
    """Files, folders, prepared stores, or builtin:python-docs."""
    labels: Path | None = None
    """A .csv, .tsv, .jsonl or .parquet file with labelled records of the task that matters; without it the evidence is weaker."""
    budget: AdviseBudget = field(default_factory=AdviseBudget)
    """The answer and the pre-training that is advised on."""
    init: Path | None = None
    """A run, an export or a transformers folder of yours: continuing from it becomes an arm, and so does taking it as it is."""
    out: Path | None = None
    """The folder of the advice; None: runs/advice/NAME, NAME being that of the data folder."""
    methods: tuple[str, ...] = ()
    """Only these methods (`--methods mlm causal-lm`, or with commas); none: all that fit the data."""
    preset: str | None = None
    """Size of the networks, where a method has it. None: tiny; of images, what their number and size choose for `pretrain` too."""
    seed: int = 0
    """Decides initialisation, order and splits."""
    text_field: str = "text"
    """Field with the text, of the data and of the labelled file."""
    label_field: str = "label"
    """Field with the class."""
    device: str = "auto"
    """auto, cpu or cuda."""
    pretrain: tuple[str, ...] = ()
    """Further settings of every candidate's run: `--pretrain text.vocab_size=8000 batch=64`."""
    json: bool = False
    """Print advice.json."""
    debug: bool = False
    """Show tracebacks."""


def checked(settings: AdviseSettings) -> Path:
    """The folder of the advice; refuses settings that no advice can have before anything is written."""
    refuse_outside(settings, {"budget.minutes": MINUTES, "seed": SEED})
    if not settings.data:
        raise UsageError("No data is given.", "Give --data FILE_OR_FOLDER, or --data builtin:python-docs for the documentation on this machine.")
    check_device(settings.device)
    check_candidates(settings)
    if settings.budget.minutes is None:
        raise UsageError("No budget is given.", "Give the minutes that you have for the answer and the pre-training: --budget.minutes 10.")
    first = settings.data[0]
    name = first.removeprefix(PREFIX) if first.startswith(PREFIX) else Path(first).resolve().name.split(".")[0]
    out = settings.out or Path("runs") / "advice" / (re.sub(r"[^\w-]+", "-", name).strip("-") or "data")
    for entry in map(Path, settings.data):
        if entry.is_dir() and out.resolve().is_relative_to(entry.resolve()):
            raise UsageError(f"The advice {out} would lie inside the data folder {entry}.", "Give --out a folder elsewhere.")
    if settings.labels is not None and not settings.labels.is_file():
        mend = "Give a .csv, .tsv, .jsonl or .parquet file with labelled texts; leave it out where the data are images."
        raise BadInput("does not exist, or is no file.", mend, file=settings.labels)
    if not (out / "advice.json").exists() and out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise UsageError(f"{out} holds other files.", "Give a new folder for the advice.")
    refuse_folder(out)
    return out


def wanted_methods(settings: AdviseSettings) -> list[str]:
    """The methods that --methods names, with or without commas."""
    return [slug for entry in settings.methods for slug in entry.split(",") if slug]


def check_candidates(settings: AdviseSettings) -> None:
    """Refuses, before data is read, a method, a preset or a setting of --pretrain that no candidate could have.

    Raises:
        UsageError: the first one.
    """
    wanted = [catalog.card(slug).slug for slug in wanted_methods(settings)]
    trained = [slug for slug in (*catalog.BASELINES, *catalog.CARDS) if (catalog.implementation(slug) or "").startswith(f"{methods.__name__}.")]
    known = {slug: methods.settings(slug) for slug in wanted or trained}
    presets = {name for method in known.values() for name in method.presets}
    if settings.preset is not None and settings.preset not in presets:
        mend = f"{did_you_mean(settings.preset, presets)}`headstart show METHOD` lists its presets."
        raise UsageError(f"No method that is tried has a preset '{settings.preset}'.", mend)
    given = run_settings(settings.pretrain)
    refused: list[UsageError] = []
    for method in known.values():
        try:
            check_numbers(replace_nested(preset_config(method, next(iter(method.presets)))[1], given, where="--pretrain"))
            return
        except UsageError as error:
            refused.append(error)
    raise refused[0]


def run_settings(entries: Sequence[str]) -> dict[str, Any]:
    """name=value as settings of `pretrain`; a value is read as YAML reads it.

    Raises:
        UsageError: an entry that is none, or a setting that the trial itself decides.
    """
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name in OWN_FLAGS or name.startswith(("budget", "trainer.stop")):
            raise UsageError(f"--pretrain {entry} cannot be set here.", "Give name=value, as text.vocab_size=8000; advise has flags for the rest.")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--pretrain {entry}: the value cannot be read.", "Give name=value.") from None
    return found
