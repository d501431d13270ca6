"""What `finetune` takes: the same fields in Python and on the command line. No torch here: the command line refuses at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from headstart.core.device_names import check_device
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import open_regular
from headstart.core.places import SETTINGS, Folder, refuse_folder
from headstart.core.words import did_you_mean
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.dense_config import DenseConfig, DenseRegressionConfig, DepthConfig, FlowConfig, SegmentationConfig, StereoConfig
from headstart.tasks.generation_config import GenerationConfig, check_generation
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.recipe import Recipe
from headstart.tasks.reranking_config import RerankingConfig

IMAGES = "image-classification"
GENERATION = "generation"
RERANKING = "reranking"
DENSE = ("segmentation", "dense-regression", "depth", "stereo", "flow")
TASKS = ("classification", "regression", "tagging", "question-answering", RERANKING, GENERATION, IMAGES, *DENSE)

RESULT = Folder("result.json", ("task", "metric", "model", "arms"), (SETTINGS, "trainings.jsonl"))
"""What --out holds."""


@dataclass
class Common:
    """What every task takes."""

    init: Path | None = None
    """A run, an export, a transformers folder; of images also a folder of timm or a checkpoint file."""
    train: Path | None = None
    """Training file: .csv, .tsv, .jsonl or .parquet; CoNLL for tagging; SQuAD JSON for question answering; sources and targets for
    generation; queries for reranking. Of images: a folder with a folder for each
    class, a list of paths and classes, a .parquet, .npz or .tar file with labels. Of dense tasks: a folder or list of images and targets."""
    test: Path | None = None
    """Test file, used once."""
    dev: Path | None = None
    """Development file: choices are made on it, never on the test file."""
    seeds: int = 5
    """Fine-tuning seeds."""
    baseline: bool = True
    """Also train the same network from random initialisation."""
    out: Path | None = None
    """Folder for the result and the model of the first seed. Each training is kept there: the same command goes on, also with more seeds."""
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


@dataclass
class GenerationSettings(Common, GenerationConfig):
    """Fine-tuning of a decoder from a model folder."""


@dataclass
class RerankingSettings(Common, RerankingConfig):
    """Fine-tuning of an encoder as a re-ranker from a model folder."""


@dataclass
class SegmentationSettings(Common, SegmentationConfig):
    """A class of every pixel, from a vision transformer."""


@dataclass
class DenseRegressionSettings(Common, DenseRegressionConfig):
    """Numbers of every pixel, from a vision transformer."""


@dataclass
class DepthSettings(Common, DepthConfig):
    """Depth from one image, from a vision transformer."""


@dataclass
class StereoSettings(Common, StereoConfig):
    """Disparity from two rectified views, from CroCo's encoder and decoder."""


@dataclass
class FlowSettings(Common, FlowConfig):
    """Flow from two views, from CroCo's encoder and decoder."""


DenseSettings: TypeAlias = SegmentationSettings | DenseRegressionSettings | DepthSettings | StereoSettings | FlowSettings
AnySettings: TypeAlias = FinetuneSettings | ImageFinetuneSettings | GenerationSettings | RerankingSettings | DenseSettings


def settings_of(task: str) -> type[AnySettings]:
    """The settings that a task takes."""
    own: dict[str, type[AnySettings]] = {IMAGES: ImageFinetuneSettings, GENERATION: GenerationSettings, RERANKING: RerankingSettings}
    own |= zip(DENSE, (SegmentationSettings, DenseRegressionSettings, DepthSettings, StereoSettings, FlowSettings), strict=True)
    return own.get(task, FinetuneSettings)


def check_task(task: str) -> str:
    """The task itself. Raises UsageError where there is none of this name."""
    if task not in TASKS:
        raise UsageError(f"There is no task '{task}'.", f"{did_you_mean(task, TASKS)}The tasks: {', '.join(TASKS)}.")
    return task


def check(settings: AnySettings) -> None:
    """Refuses, before anything is loaded, what cannot be trained.

    Raises:
        UsageError: something is not given, or a number that no fine-tuning can have; images and dense tasks refuse theirs when they are made.
        BadInput: something is not there.
    """
    if isinstance(settings, FinetuneSettings | RerankingSettings):
        settings.check()
    elif isinstance(settings, GenerationSettings):
        check_generation(settings)
    check_device(settings.device)
    for name in ("init", "train", "test"):
        if getattr(settings, name) is None:
            raise UsageError(f"--{name} is missing.", "example: headstart finetune classification --init RUN --train train.jsonl --test test.jsonl")
    assert settings.init is not None
    images = isinstance(settings, ImageFinetuneSettings | DenseConfig)
    if not (settings.init.is_dir() or (images and settings.init.is_file())):
        raise BadInput("is not a folder.", "Give a run, an export or a transformers folder.", file=settings.init)
    beside: tuple[Path | None, ...] = ()
    if isinstance(settings, RerankingSettings):
        beside = (settings.documents, settings.qrels, settings.run)
    for file in (settings.train, settings.test, settings.dev, *beside):
        if file is not None and file.is_dir():
            if not images:
                raise BadInput("is a folder.", f"Give a file; of a folder of images the task is {IMAGES}.", file=file)
        elif file is not None:
            open_regular(file).close()
    if settings.dev is not None and settings.test is not None and settings.dev.samefile(settings.test):
        what = "--dev and --test are the same file: the choices would be made on the records that judge them."
        raise UsageError(what, "Give other records as --dev.")
    if settings.out is not None:
        refuse_folder(settings.out, ours=RESULT)
        if (settings.out / "result.json").exists() and not (settings.out / SETTINGS).exists():  # of an earlier version
            raise UsageError(f"{settings.out} holds a fine-tuning that does not say of what it is.", "Give another --out.")
