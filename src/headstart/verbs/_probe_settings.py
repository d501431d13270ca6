"""What `probe` takes: the same fields in Python and on the command line. No torch here, so that a wrong flag is refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.core.places import Folder, refuse_folder, refuse_other_settings
from headstart.tasks.frozen_config import FrozenConfig
from headstart.verbs.config import refuse_absent_data

RESULT = Folder("probe.json", ("metric", "models", "data"))
"""What --out holds."""


@dataclass
class Given:
    """What is measured, and on what."""

    models: tuple[Path, ...] = ()
    """Runs, exports or folders of transformers; of images also checkpoint files. They come first on the command line."""
    train: Path | None = None
    """Labelled records to learn from: .csv, .tsv, .jsonl or .parquet; of images a folder with a folder for each class, a list, a .parquet, .npz
    or .tar file."""
    test: Path | None = None
    """Labelled records to measure on, of the same form."""


@dataclass
class ProbeSettings(FrozenConfig, Given):
    """What frozen networks know of labelled records, without fine-tuning: linear probe, nearest neighbours, RankMe."""

    out: Path | None = None
    """Folder for probe.json; None: the figures are only printed."""
    json: bool = False
    """Print the result as JSON."""
    debug: bool = False
    """Show tracebacks."""


def check(settings: ProbeSettings) -> None:
    """Refuses, before torch is imported, what cannot be.

    Raises:
        UsageError: a setting. BadInput: a file that is not there.
    """
    check_device(settings.device)
    settings.check()
    if not settings.models:
        raise UsageError("No model is given.", "example: headstart probe runs/mlm-tiny-0 --train train.jsonl --test test.jsonl")
    for model in settings.models:
        if not model.exists():
            raise UsageError(f"{model} does not exist.", "Give a run, an export, or a transformers folder on this disk.")
    for flag, path in (("--train", settings.train), ("--test", settings.test)):
        if path is None:
            raise UsageError(f"{flag} is not given.", f"Give {flag} FILE: records with a class each.")
    refuse_absent_data((str(settings.train), str(settings.test)))
    if settings.train == settings.test:
        raise UsageError("--train and --test are one file.", "Give records that the probe did not learn from.")
    if settings.out is not None:
        refuse_folder(settings.out, ours=RESULT)
        refuse_other_settings(settings.out, "a probe", asked(settings))


def asked(settings: ProbeSettings) -> dict[str, Any]:
    """What decides the result: an earlier one of the same may be replaced."""
    return {"models": [str(model) for model in settings.models], "train": str(settings.train), "test": str(settings.test)}
