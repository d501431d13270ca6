"""What `curate` takes: the same fields in Python and on the command line."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from headstart.core.bounds import ABOVE_0, COUNT, COUNT_FROM_0, FROM_0, MOST, SEED, Bounds, refuse_outside
from headstart.core.config import differences
from headstart.core.errors import UsageError
from headstart.core.places import refuse_folder
from headstart.core.words import did_you_mean
from headstart.curate.config import CurateConfig, defaults
from headstart.curate.stages import RECIPES, recipe

PROBABILITY = Bounds(0, 1, "It is a share or probability, from 0 to 1.")
BOUNDS = {
    **dict.fromkeys(("language.at_least", "recall.at_least", "precision.at_least", "read.max_bad_share", "rules.max_punctuation"), PROBABILITY),
    **dict.fromkeys(("workers", "read.max_record_mb", "read.tries", "recall.negatives", "precision.sample", "precision.rounds"), COUNT),
    **dict.fromkeys(("prefilter.max_bytes", "prefilter.max_url", "images.per_host"), COUNT),
    **dict.fromkeys(("prefilter.min_bytes", "rules.lorem_under", "rules.min_words"), COUNT_FROM_0),
    **dict.fromkeys(("images.max_documents", "images.max_images", "images.min_side"), COUNT_FROM_0),
    **dict.fromkeys(("page_seconds", "read.timeout_s", "images.max_image_mb"), ABOVE_0),
    **dict.fromkeys(("recall.seed", "precision.seed"), SEED),
    "images.delay_s": FROM_0,
    "precision.positive_from": Bounds(0, 10, "Scores go from 0 to 10."),
    "decontaminate.n_gram": Bounds(3, MOST, "It is 3 or more: fewer words quote nothing."),
}


@dataclass
class CurateSettings(CurateConfig):
    """From a web crawl to a corpus: a recipe, or one of its stages."""

    recipe: str = "webmath"
    """webmath (mathematical pages with images), text (plain text), or one stage: prefilter, language, extract, recall, near-duplicates, urls, rules,
    private, precision, decontaminate, images, galleries."""
    data: tuple[str, ...] = ()
    """WARC files (.gz), JSON lines with html or text (.gz, .zst) or Parquet: paths, folders (also of another curation), globs, s3:// or https://
    addresses."""
    out: Path | None = None
    """Folder of the curation; the same command continues it."""
    engine: Literal["embedded", "ray"] = "embedded"
    """Who runs the plan: this machine, or a Ray cluster that sees the same folders."""
    ray_address: str | None = None
    """Of the cluster; None: a local one is started."""
    workers: int | None = None
    """Processes at a time; None: one a core, on a cluster one a core of it."""
    keep_work: bool = False
    """Leave the documents between the passes in OUT/work."""
    report: Path | None = None
    """A folder of a curation, or a part of one: only write its page, what each stage kept and dropped, to --out (default: FOLDER/report.html)."""
    json: bool = False
    """Print the counts as JSON."""
    debug: bool = False
    """Show tracebacks."""

    def config(self) -> CurateConfig:
        """What decides the output."""
        return CurateConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(CurateConfig)})


def settings_of(name: str) -> CurateSettings:
    """The settings that a recipe begins with.

    Raises:
        UsageError: there is no such recipe.
    """
    if name not in RECIPES:
        if "/" in name or Path(name).suffix:
            raise UsageError(f"'{name}' is no recipe, which comes first.", f"example: headstart curate webmath {name} --out corpus")
        raise UsageError(f"There is no recipe or stage '{name}'.", f"{did_you_mean(name, RECIPES)}There are: {', '.join(RECIPES)}.")
    standard = defaults(name)
    return CurateSettings(recipe=name, **{field.name: getattr(standard, field.name) for field in dataclasses.fields(CurateConfig)})


def check(settings: CurateSettings) -> None:
    """Refuses impossible settings before anything is read.

    Raises:
        UsageError: what and how to mend it.
    """
    refuse_outside(settings, BOUNDS)
    if settings.recipe not in RECIPES:
        settings_of(settings.recipe)
    if not settings.data or settings.out is None:
        raise UsageError("DATA and --out are needed.", "example: headstart curate webmath crawl/*.warc.gz --out corpus")
    if settings.recipe == "decontaminate" and not settings.decontaminate.benchmarks:
        raise UsageError("The stage decontaminate needs --decontaminate.benchmarks.", "Give files of test items: .jsonl, .txt or .parquet.")
    if settings.recipe == "private" and not settings.private.mask:
        raise UsageError("The stage private does nothing with --private.no-mask.", "Leave the flag out.")
    if settings.recipe == "galleries" and settings.images.galleries == "keep":
        raise UsageError("The stage galleries does nothing with --images.galleries keep.", "Leave the flag out.")
    if settings.precision.endpoint is not None and not settings.precision.endpoint_model:
        raise UsageError("--precision.endpoint needs --precision.endpoint-model.", "Name the model that the server offers.")
    if settings.precision.endpoint is not None and not settings.precision.endpoint.startswith(("http://", "https://")):
        raise UsageError(f"--precision.endpoint cannot be {settings.precision.endpoint}.", "Give its whole address: http://localhost:8000/v1.")
    if not (settings.out / "curate.json").is_file():  # one that goes on may have begun with any
        _refuse_idle(settings)
    if settings.ray_address is not None and settings.engine != "ray":
        raise UsageError("--ray-address belongs to --engine ray.", "Add --engine ray, or leave it out.")
    refuse_folder(settings.out)


STAGES = {
    **{name: (name,) for name in ("prefilter", "language", "recall", "urls", "rules", "private", "precision", "decontaminate")},
    **dict.fromkeys(("math", "page_seconds"), ("extract",)),
    **dict.fromkeys(("with_images", "images"), ("extract", "images", "galleries")),
    "near": ("near-duplicates",),
}
"""Of settings and groups of them: the stages that read them."""
INSTEAD = {
    "recall.model": ("recall.positives",),
    "precision.model": ("precision.scores", "precision.endpoint"),
    "precision.scores": ("precision.endpoint",),
}
"""Where the first is given the others are not looked at."""
NEEDS = {"recall": "--recall.positives or --recall.model", "decontaminate": "--decontaminate.benchmarks"}
"""Of stages that a recipe has: what they are for nothing without."""


def _refuse_idle(settings: CurateSettings) -> None:
    """Raises UsageError for a setting that nothing would look at."""
    given = {name: value for name, _, value in differences(asdict(defaults(settings.recipe)), asdict(settings.config()))}
    has, works = RECIPES[settings.recipe], recipe(settings.recipe, settings.config())
    for name, value in given.items():
        stages, flag = STAGES.get(name.partition(".")[0], ()), _flag(name, value)
        if stages and not set(stages) & set(has):
            raise UsageError(f"{flag} is of the stage {stages[0]}, which '{settings.recipe}' does not have.", "Leave it out.")
        need = "--with-images" if name.startswith("images.") and not settings.with_images else NEEDS.get(stages[0]) if stages else None
        if need and (need == "--with-images" or stages[0] not in works):
            raise UsageError(f"{flag} does nothing without {need}.", "Give that, or leave it out.")
    for name, others in INSTEAD.items():
        if name in given and (idle := next((other for other in others if other in given), None)):
            raise UsageError(f"--{idle} does nothing beside --{name}.", "Give one of them.")


def _flag(name: str, value: object) -> str:
    """A setting as the command line writes it: images.https that is off is --images.no-https."""
    group, dot, last = name.replace("_", "-").rpartition(".")
    return f"--{group}{dot}{'no-' if value is False else ''}{last}"
