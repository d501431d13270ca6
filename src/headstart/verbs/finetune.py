"""`finetune`: a downstream task from a run, an export or any transformers folder, always beside a random start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.config import replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import read_run
from headstart.core.terminal import printable
from headstart.engine.export_hashes import verify_export
from headstart.engine.text_method import model_folder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.finetune import Result
from headstart.tasks.finetune import finetune as run_task
from headstart.verbs._exports import newest_export

TASKS = ("classification", "regression", "tagging", "question-answering")


@dataclass
class FinetuneSettings(FinetuneConfig):
    """Fine-tuning from a model folder."""

    init: Path | None = None
    """A run, an export, or a transformers folder."""
    train: Path | None = None
    """Training file: .csv, .tsv, .jsonl or .parquet; CoNLL for tagging; SQuAD JSON for question answering."""
    test: Path | None = None
    """Test file, used once."""
    dev: Path | None = None
    """Development file: choices are made on it, never on the test file."""
    seeds: int = 5
    """Fine-tuning seeds."""
    baseline: bool = True
    """Also train the same network from random initialisation."""
    out: Path | None = None
    """Folder for the result and the best model."""
    json: bool = False
    """Print the result as JSON."""
    debug: bool = False
    """Show tracebacks."""


def finetune(task: str, init: str | Path, train: str | Path, test: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> Result:
    """Fine-tunes `init` on `train` and scores it on `test`.

    Args:
        task: classification, regression, tagging or question-answering.
        init: a run, an export or a transformers folder.
        settings: fields of `FinetuneSettings`.

    Raises:
        BadInput: a file cannot be used.
        UsageError: a setting is wrong.
    """
    return finetune_with(task, replace_nested(FinetuneSettings(), {"init": init, "train": train, "test": test, **settings}), say=say)


def finetune_with(task: str, settings: FinetuneSettings, *, say: Callable[[str], None] = print) -> Result:
    """As `finetune`, from settings."""
    if task not in TASKS:
        raise UsageError(f"There is no task '{task}'.", f"The tasks: {', '.join(TASKS)}.")
    for name in ("init", "train", "test"):
        if getattr(settings, name) is None:
            raise UsageError(f"--{name} is missing.", "example: headstart finetune classification --init RUN --train train.jsonl --test test.jsonl")
    assert settings.init is not None
    config = FinetuneConfig(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(FinetuneConfig)})
    result = run_task(
        task,
        backbone_folder(settings.init),
        settings.train,
        settings.test,
        dev=settings.dev,
        config=config,
        seeds=settings.seeds,
        baseline=settings.baseline,
        report=lambda line: say(printable(line)),
        out=settings.out,
    )
    for line in result.lines():  # classes and tags are named as the files spell them
        say(printable(line))
    return result


def backbone_folder(init: Path) -> Path:
    """The transformers folder that holds the backbone of a run, an export or a plain folder.

    Raises:
        BadInput: the folder is none of these.
        UsageError: the run has exported nothing yet.
    """
    if (init / "run.json").is_file():
        read_run(init)
        return model_folder(newest_export(init))
    if not init.is_dir():
        raise BadInput("is not a folder.", "Give a run, an export or a transformers folder.", file=init)
    verify_export(init)
    return model_folder(init)
