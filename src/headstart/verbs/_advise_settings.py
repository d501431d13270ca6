"""What `advise` takes: the same fields in Python and on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.builtin import PREFIX


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
    if not settings.data:
        raise UsageError("No data is given.", "Give --data FILE_OR_FOLDER, or --data builtin:python-docs for the documentation on this machine.")
    minutes = settings.budget.minutes
    if minutes is None or not 0 < minutes < float("inf"):
        what = "No budget is given." if minutes is None else f"--budget.minutes is {minutes}."
        raise UsageError(what, "Give the minutes that you have for the answer and the pre-training: --budget.minutes 10.")
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
    return out
