"""What `curate` takes: the same fields in Python and on the command line."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean
from headstart.curate.config import CurateConfig, defaults
from headstart.curate.stages import RECIPES


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


def settings_of(recipe: str) -> CurateSettings:
    """The settings that a recipe begins with.

    Raises:
        UsageError: there is no such recipe.
    """
    if recipe not in RECIPES:
        raise UsageError(f"There is no recipe or stage '{recipe}'.", f"{did_you_mean(recipe, RECIPES)}There are: {', '.join(RECIPES)}.")
    standard = defaults(recipe)
    return CurateSettings(recipe=recipe, **{field.name: getattr(standard, field.name) for field in dataclasses.fields(CurateConfig)})


def check(settings: CurateSettings) -> None:
    """Refuses impossible settings before anything is read.

    Raises:
        UsageError: what and how to mend it.
    """
    if settings.recipe not in RECIPES:
        settings_of(settings.recipe)
    if not settings.data or settings.out is None:
        raise UsageError("DATA and --out are needed.", "example: headstart curate webmath crawl/*.warc.gz --out corpus")
    shares = {
        "--read.max-bad-share": settings.read.max_bad_share,
        "--language.at-least": settings.language.at_least,
        "--recall.at-least": settings.recall.at_least,
        "--precision.at-least": settings.precision.at_least,
        "--rules.max-punctuation": settings.rules.max_punctuation,
    }
    for flag, share in shares.items():
        if not 0 <= share <= 1:
            raise UsageError(f"{flag} cannot be {share:g}.", "It is a share or probability, from 0 to 1.")
    least = {
        "--workers": 1 if settings.workers is None else settings.workers,
        "--read.max-record-mb": settings.read.max_record_mb,
        "--recall.negatives": settings.recall.negatives,
        "--precision.sample": settings.precision.sample,
        "--precision.rounds": settings.precision.rounds,
        "--images.per-host": settings.images.per_host,
        "--read.tries": settings.read.tries,
    }
    for flag, value in least.items():
        if value < 1:
            raise UsageError(f"{flag} cannot be {value}.", "It is 1 or more.")
    if settings.decontaminate.n_gram < 3:
        raise UsageError(f"--decontaminate.n-gram cannot be {settings.decontaminate.n_gram}.", "It is 3 or more: fewer words quote nothing.")
    sizes = {
        "--page-seconds": settings.page_seconds,
        "--read.timeout-s": settings.read.timeout_s,
        "--images.max-image-mb": settings.images.max_image_mb,
    }
    for flag, size in sizes.items():
        if not 0 < size < math.inf:
            raise UsageError(f"{flag} cannot be {size:g}.", "It is a number, more than 0.")
    if not 0 <= settings.images.delay_s < math.inf:
        raise UsageError(f"--images.delay-s cannot be {settings.images.delay_s:g}.", "It is a number of seconds, 0 or more.")
    if not 0 <= settings.precision.positive_from <= 10:
        raise UsageError(f"--precision.positive-from cannot be {settings.precision.positive_from:g}.", "Scores go from 0 to 10.")
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
    if settings.ray_address is not None and settings.engine != "ray":
        raise UsageError("--ray-address belongs to --engine ray.", "Add --engine ray, or leave it out.")
