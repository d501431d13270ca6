"""What `compare` takes: the same fields in Python and on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from headstart.core.bounds import COUNT, MINUTES, SEEDS, refuse_outside
from headstart.core.device_names import check_device
from headstart.core.errors import BadInput, UsageError
from headstart.core.places import Folder, refuse_folder
from headstart.core.words import did_you_mean
from headstart.tasks import recipe
from headstart.tasks.config import TEXT_TASKS, FinetuneConfig, Measure
from headstart.verbs.config import refuse_absent_data

RECIPE = FinetuneConfig(**recipe.SMALL)
"""For every network alike; which rates are tried depends on its size."""
RESULT = Folder("comparison.json", ("kind", "arms"), ("comparison.svg", "points.jsonl"))
"""What --out holds."""


@dataclass
class CompareBudget:
    """What the comparison may take."""

    minutes: float | None = None
    """Minutes on this machine; seeds, numbers of labels and checkpoints are chosen to fit. None: everything."""


@dataclass
class CompareSettings:
    """Several runs on one task, at equal compute."""

    runs: tuple[Path, ...] = ()
    """Run folders, exports or transformers folders. Runs that differ in nothing but their seed are one arm."""
    labels: Path | None = None
    """A .csv, .tsv, .jsonl or .parquet file with labelled records; without it the evidence is weaker."""
    test: Path | None = None
    """A test file; None: every seed has its own random split of the labels."""
    task: str = "classification"
    """classification or regression."""
    text_field: str = "text"
    """Field with the text."""
    second_field: str | None = None
    """Field with the second text of a pair."""
    label_field: str = "label"
    """Field with the class or the number."""
    group_field: str | None = None
    """Field with the document of a record; a document is never in training and test at once."""
    seeds: int = 5
    """Fine-tuning seeds; each draws its own labelled records."""
    counts: tuple[int, ...] = ()
    """Numbers of labels of the curve; none: three below all, each a third of the next."""
    measure: Measure = "finetune"
    """finetune: the whole network; linear-probe: a logistic regression on its frozen features, hundreds of times as fast, another question."""
    budget: CompareBudget = field(default_factory=CompareBudget)
    finetune: FinetuneConfig = field(default_factory=lambda: RECIPE)
    """The recipe, the same for all. With no rates given, two that fit the network's size are tried; with few labels at least 100 steps are made."""
    out: Path | None = None
    """The folder of the comparison; None: runs/comparisons/NAME, NAME being those of the runs."""
    json: bool = False
    """Print comparison.json."""
    debug: bool = False
    """Show tracebacks."""


def check(settings: CompareSettings) -> None:
    """Refuses, before anything is loaded, what cannot be compared.

    Raises:
        UsageError: a setting. BadInput: a folder or file that is not there.
    """
    settings.finetune.check("finetune.")
    refuse_outside(settings, {"seeds": SEEDS, "counts": COUNT, "budget.minutes": MINUTES})
    check_device(settings.finetune.device, "--finetune.device")
    if not settings.runs:
        raise UsageError("No run is given.", "example: headstart compare runs/mlm-tiny-0 runs/electra-tiny-0 --labels labels.jsonl")
    if settings.task not in TEXT_TASKS:
        mend = f"{did_you_mean(settings.task, TEXT_TASKS)}The tasks: {', '.join(TEXT_TASKS)}; `headstart finetune` has others."
        raise UsageError(f"There is no comparison on the task '{settings.task}'.", mend)
    if settings.measure == "linear-probe" and settings.task != "classification":
        raise UsageError("A linear probe is for classification.", "Leave out --measure.")
    if settings.test is not None and settings.labels is None:
        raise UsageError("--test needs --labels.", "Give the labelled training records: --labels FILE.")
    for name in ("text_field", "second_field", "label_field"):
        if getattr(settings.finetune, name) != getattr(RECIPE, name):
            flag = name.replace("_", "-")
            raise UsageError(f"--finetune.{flag} is not used here.", f"Give --{flag}.")
    for folder in settings.runs:
        if not folder.is_dir():
            raise BadInput("is not a folder.", "Give a run, an export or a transformers folder.", file=folder)
    refuse_absent_data([str(file) for file in (settings.labels, settings.test) if file is not None])
    refuse_folder(settings.out or "runs", ours=None if settings.out is None else RESULT)
