"""What `finetune` takes: the same fields in Python and on the command line. No torch here: the command line refuses at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import open_regular
from headstart.core.words import did_you_mean
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.recipe import Recipe

IMAGES = "image-classification"
TASKS = ("classification", "regression", "tagging", "question-answering", IMAGES)


@dataclass
class Common:
    """What every task takes."""

    init: Path | None = None
    """A run, an export, a transformers folder; of images also a folder of timm or a checkpoint file."""
    train: Path | None = None
    """Training file: .csv, .tsv, .jsonl or .parquet; CoNLL for tagging; SQuAD JSON for question answering. Of images: a folder with a folder for each
    class, a list of paths and classes, a .parquet, .npz or .tar file with labels."""
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


@dataclass
class FinetuneSettings(Common, FinetuneConfig):
    """Fine-tuning of a text network from a model folder."""

    recipe: Recipe = "auto"
    """small: for networks under 20 M parameters; electra: the official settings as they are; auto: one of the two by the size of the network, and at
    least 100 steps. What you set yourself stays."""


@dataclass
class ImageFinetuneSettings(Common, ImageFinetuneConfig):
    """Fine-tuning of a vision transformer from a model folder."""


def settings_of(task: str) -> type[FinetuneSettings] | type[ImageFinetuneSettings]:
    """The settings that a task takes."""
    return ImageFinetuneSettings if task == IMAGES else FinetuneSettings


def check_task(task: str) -> str:
    """The task itself. Raises UsageError where there is none of this name."""
    if task not in TASKS:
        raise UsageError(f"There is no task '{task}'.", f"{did_you_mean(task, TASKS)}The tasks: {', '.join(TASKS)}.")
    return task


def check(settings: FinetuneSettings | ImageFinetuneSettings) -> None:
    """Refuses, before anything is loaded, what cannot be trained.

    Raises:
        UsageError: something is not given.
        BadInput: something is not there.
    """
    for name in ("init", "train", "test"):
        if getattr(settings, name) is None:
            raise UsageError(f"--{name} is missing.", "example: headstart finetune classification --init RUN --train train.jsonl --test test.jsonl")
    assert settings.init is not None
    images = isinstance(settings, ImageFinetuneSettings)
    if not (settings.init.is_dir() or (images and settings.init.is_file())):
        raise BadInput("is not a folder.", "Give a run, an export or a transformers folder.", file=settings.init)
    for file in (settings.train, settings.test, settings.dev):
        if file is not None and file.is_dir():
            if not images:
                raise BadInput("is a folder.", f"Give a file; of a folder of images the task is {IMAGES}.", file=file)
        elif file is not None:
            open_regular(file).close()
