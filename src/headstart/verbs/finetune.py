"""`finetune`: a downstream task from a run, an export or any transformers folder, always beside a random start."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from headstart.core.config import dotted, plain, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import locked
from headstart.core.places import known_by, refuse_other_settings
from headstart.core.run import read_run
from headstart.core.terminal import printable
from headstart.core.words import counted
from headstart.engine.device import resolve_device
from headstart.engine.text_method import model_folder
from headstart.interop.vit import is_vision
from headstart.tasks import recipe
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.dense import finetune_dense
from headstart.tasks.dense_config import CONFIGS, DenseConfig
from headstart.tasks.finetune import Result
from headstart.tasks.finetune import finetune as run_task
from headstart.tasks.generation import finetune_generation
from headstart.tasks.generation_config import GenerationConfig
from headstart.tasks.image_classification import finetune_images
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.kept import Kept
from headstart.tasks.kinds import TASKS
from headstart.tasks.recipe import network_size
from headstart.tasks.reranking import finetune_reranking
from headstart.tasks.reranking_config import RerankingConfig
from headstart.verbs._exports import given_model, newest_export
from headstart.verbs._finetune_settings import (
    DENSE,
    IMAGES,
    AnySettings,
    FinetuneSettings,
    GenerationSettings,
    ImageFinetuneSettings,
    RerankingSettings,
    check,
    check_task,
    settings_of,
)

FINE_TUNING = "a fine-tuning"
NETWORK = ("*.safetensors", "*.bin", "*.pth", "*.pt", "*config.json", "tokenizer*", "vocab*", "merges*")
"""Of a model folder: what decides the network and what it reads."""


def finetune(task: str, init: str | Path, train: str | Path, test: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> Result:
    """Fine-tunes `init` on `train` and scores it on `test`.

    Args:
        task: classification, regression, tagging, question-answering, reranking, generation or image-classification; of dense tasks
            segmentation, dense-regression, depth, stereo or flow.
        init: a run, an export or a transformers folder; of images also a checkpoint file.
        settings: fields of `FinetuneSettings`; of images of `ImageFinetuneSettings`, of generation of `GenerationSettings`, of re-ranking of
            `RerankingSettings`, of dense tasks of `SegmentationSettings`, `StereoSettings` ...

    Raises:
        BadInput: a file cannot be used.
        UsageError: a setting is wrong.
    """
    chosen = replace_nested(settings_of(check_task(task))(), {"init": init, "train": train, "test": test, **settings})
    return finetune_with(task, chosen, given=dotted(settings), say=say)


def finetune_with(
    task: str,
    settings: AnySettings,
    *,
    given: Iterable[str] = (),
    say: Callable[[str], None] = print,
) -> Result:
    """As `finetune`, from settings.

    Args:
        given: the fields that the person set, which no recipe changes.
    """
    check_task(task)
    check(settings)
    resolve_device(settings.device)  # one that is not there is refused before a file is read

    def tell(line: str) -> None:
        say(printable(line))  # classes and tags are named as the files spell them

    model, config, train, run = _job(task, settings, frozenset(given), tell)
    shared: dict[str, Any] = {"dev": settings.dev, "seeds": settings.seeds, "baseline": settings.baseline, "report": tell}
    if settings.out is None:
        result = run(model, train, settings.test, config=config, **shared)
    else:
        asked = _asked(task, settings, model, config)
        refuse_other_settings(settings.out, FINE_TUNING, asked)
        with locked(settings.out / ".lock", "fine-tunes into this folder"):
            refuse_other_settings(settings.out, FINE_TUNING, asked)  # of a call that was faster
            result = run(model, train, settings.test, config=config, out=settings.out, kept=Kept(settings.out, asked), **shared)
    for line in result.lines():
        tell(line)
    return result


def _job(
    task: str, settings: AnySettings, given: frozenset[str], say: Callable[[str], None]
) -> tuple[Path, Any, Any, Callable[..., Result]]:
    """(model, config, training data, what trains)"""
    assert settings.init is not None
    if isinstance(settings, ImageFinetuneSettings):
        return _vision_model(settings.init), _config(ImageFinetuneConfig, settings), settings.train, finetune_images
    if isinstance(settings, GenerationSettings):
        return backbone_folder(settings.init), _config(GenerationConfig, settings), settings.train, finetune_generation
    if isinstance(settings, RerankingSettings):
        return backbone_folder(settings.init), _config(RerankingConfig, settings), settings.train, finetune_reranking
    if isinstance(settings, DenseConfig):
        return _vision_model(settings.init), _config(CONFIGS[task], settings), settings.train, partial(finetune_dense, task)
    folder = backbone_folder(settings.init)
    if is_vision(folder):
        raise UsageError(f"The model in {folder} reads images, the task {task} texts.", f"The tasks of images: {', '.join((IMAGES, *DENSE))}.")
    config, train = suited(task, folder, settings, _config(FinetuneConfig, settings), given, say)
    return folder, config, train, partial(run_task, task)


def _asked(task: str, settings: AnySettings, model: Path, config: Any) -> dict[str, Any]:
    """What decides each training, whichever seeds and arms are asked for. Files are known by what they hold."""
    inputs = {"train": settings.train, "test": settings.test, "dev": settings.dev}
    known = {"model": known_by(model, NETWORK), **{name: None if path is None else known_by(path) for name, path in inputs.items()}}
    files = {name: known_by(path) for name in ("documents", "qrels", "run") if isinstance(path := getattr(config, name, None), Path)}
    return {"task": task, **known, **plain(config), **files}


def _config(wanted: type, settings: AnySettings) -> Any:
    """The task's own settings among those of the verb."""
    return wanted(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(wanted)})


def _vision_model(init: Path) -> Path:
    """The folder or file of a vision transformer."""
    folder = backbone_folder(init) if init.is_dir() else init
    if folder.is_dir() and not is_vision(folder):
        raise UsageError(f"The model in {folder} reads no images.", "Give a vision transformer, or take a task of texts.")
    return folder


def suited(
    task: str, folder: Path, settings: FinetuneSettings, config: FinetuneConfig, given: frozenset[str], say: Callable[[str], None]
) -> tuple[FinetuneConfig, Any]:
    """(the config with what the recipe says of this network and so many labels, the training data); says what was chosen, and by whom."""
    parameters = network_size(folder)
    name = recipe.chosen(settings.recipe, parameters)
    changed = {field: value for field, value in recipe.settings(name, parameters).items() if field not in given}
    config = dataclasses.replace(config, **changed)
    train = TASKS[task](config, settings.train).train
    if settings.recipe == "auto" and "epochs" not in given:
        config = dataclasses.replace(config, epochs=recipe.epochs(config, len(train)))
    rates = " or ".join(f"{rate:g}" for rate in config.rates)
    shown = {"learning_rate": f"rate {rates}", "epochs": f"{config.epochs:g} epochs", "batch": f"batch {config.batch}"}
    shown |= {"optimizer": config.optimizer, "layer_decay": f"layer decay {config.layer_decay:g}"}
    yours = [field for field in shown if field in given or (field == "learning_rate" and config.learning_rates)]
    say(f"Recipe {name} ({counted(parameters)} parameters, {len(train):,} labelled records): {', '.join(shown.values())}.")
    say(f"  Set by you: {', '.join(yours) or 'nothing'}; the rest by --recipe {settings.recipe}, and any flag wins.")
    return config, train


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
    return given_model(init)
