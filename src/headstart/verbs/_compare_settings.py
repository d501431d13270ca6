"""What `compare` takes: the same fields in Python and on the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from headstart.tasks.config import FinetuneConfig
from headstart.tasks.label_curve import Measure
from headstart.verbs.demo import FINETUNE

RECIPE = dataclasses.replace(FINETUNE, learning_rates=(), max_length=None)
"""That of `demo`; which rates are tried depends on the size of the network."""


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
