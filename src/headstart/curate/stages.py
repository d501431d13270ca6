"""The stages by name: what each does, what it asks of the whole corpus first, and how it is made in a worker."""

from __future__ import annotations

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.curate import webmath
from headstart.curate.config import CurateConfig
from headstart.curate.tables import Stage

ABOUT = {
    "read": "records of the input to pages",
    "prefilter": "addresses, lengths and character sets",
    "language": "the languages that are kept",
    "extract": "HTML to interleaved texts and images, with LaTeX",
    "recall": "first classifier: keeps nearly everything of the domain",
    "signatures": "MinHash signatures, for the next stage",
    "near-duplicates": "near-duplicates within and between snapshots",
    "urls": "the same address in several snapshots",
    "rules": "lorem ipsum, punctuation, NSFW words, Unicode errors",
    "private": "personal data is masked",
    "precision": "second classifier: keeps what is clearly of the domain",
    "decontaminate": "quotations of benchmarks",
    "images": "image addresses that show nothing of the document",
    "galleries": "images beyond the texts of a document",
}
PAGE_STAGES = ("prefilter", "extract")
"""Work on HTML; passed over where the input is documents already."""
RECIPES: dict[str, tuple[str, ...]] = {
    "webmath": webmath.STAGES,
    "text": (
        "prefilter", "language", "extract", "recall", "signatures", "near-duplicates", "urls", "rules", "private", "decontaminate", "images",
        "galleries",
    ),
}  # fmt: skip
RECIPES |= {name: (name,) for name in ABOUT if name not in ("read", "signatures", "near-duplicates")}
RECIPES["near-duplicates"] = ("signatures", "near-duplicates")


def recipe(name: str, config: CurateConfig) -> tuple[str, ...]:
    """The stages of a recipe, without those that its settings leave nothing to do."""
    idle = {
        "decontaminate": not config.decontaminate.benchmarks,
        "private": not config.private.mask,
        "images": not config.with_images,
        "galleries": not config.with_images or config.images.galleries == "keep",
        "recall": name == "text" and config.recall.model is None and config.recall.positives is None,
    }
    return tuple(stage for stage in RECIPES[name] if name == stage or not idle.get(stage, False))


def asks_first(name: str, config: CurateConfig) -> bool:
    """Whether a stage needs to know the whole corpus before it can look at a document."""
    if name in ("recall", "precision"):
        return (config.recall if name == "recall" else config.precision).model is None
    return name in ("near-duplicates", "urls", "images")


@dataclass(frozen=True)
class Answers:
    """Files with what the whole corpus answered, under the folder of a curation."""

    folder: Path

    def of(self, stage: str) -> Path:
        """The file of a stage's answer."""
        return self.folder / {"recall": "recall.safetensors", "precision": "precision.safetensors"}.get(stage, f"{stage}.parquet")

    @property
    def scores(self) -> Path:
        """What an endpoint answered, as it came."""
        return self.folder / "scores.jsonl"

    @property
    def fetched(self) -> Path:
        """Which images were fetched."""
        return self.folder / "fetched.parquet"


def make(name: str, config: CurateConfig, answers: Answers, shard: int) -> Stage:
    """A stage, for the documents of one shard."""
    return _MAKERS[name](config, answers, shard)


def _prefilter(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.pages import prefilter

    return prefilter(config.prefilter)


def _language(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.language import language

    return language(config.language)


def _extract(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.pages import extraction

    wanted = _extraction_config(config)
    return extraction(wanted, _timed(wanted))


def _extraction_config(config: CurateConfig) -> Any:
    from headstart.curate.extract import ExtractConfig

    return ExtractConfig(math=config.math, images=config.with_images, min_side=config.images.min_side, seconds=config.page_seconds)


@cache
def _timed(config: Any) -> Any:
    """One extractor a process: it starts a child that is killed at the time limit."""
    from headstart.curate.extract.timed import TimedExtractor

    extractor = TimedExtractor(config)
    extractor.__enter__()
    atexit.register(extractor.close)
    return extractor


def _signatures(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.duplicates import signed

    return signed


def _removed(stage: str) -> Callable[[CurateConfig, Answers, int], Stage]:
    def make(config: CurateConfig, answers: Answers, shard: int) -> Stage:
        from headstart.curate.duplicates import removed

        own = [("order", ">=", shard << 32), ("order", "<", (shard + 1) << 32)]
        return removed(pq.read_table(answers.of(stage), filters=own))

    return make


def _recall(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.classify import plain, scored

    return scored(config.recall.model or answers.of("recall"), plain, "math_prob", config.recall.at_least)


def _precision(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.classify import VIEWS, scored

    settings = config.precision
    return scored(settings.model or answers.of("precision"), VIEWS[settings.view], "quality_prob", settings.at_least)


def _rules(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.rules import rules

    return rules(config.rules)


def _private(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.rules import private

    return private(config.private)


def _decontaminate(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.decontaminate import decontaminate

    return decontaminate(config.decontaminate)


def _images(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.images import image_filter

    frequent, arrived = _addresses(answers.of("images")), frozenset(fetched(answers)) if config.images.download else None
    return image_filter(config.images, frequent, arrived)


def _galleries(config: CurateConfig, answers: Answers, shard: int) -> Stage:
    from headstart.curate.images import thin_galleries

    return thin_galleries


@cache
def _addresses(path: Path) -> frozenset[str]:
    return frozenset(pq.read_table(path)["url"].to_pylist())


@cache
def fetched(answers: Answers) -> dict[str, dict[str, Any]]:
    """Of the images that were fetched: address -> sha256, width, height, file."""
    table: pa.Table = pq.read_table(answers.fetched, filters=[("status", "==", "fetched")])
    return {row.pop("url"): row for row in table.to_pylist()}


_MAKERS: dict[str, Callable[[CurateConfig, Answers, int], Stage]] = {
    "prefilter": _prefilter,
    "language": _language,
    "extract": _extract,
    "recall": _recall,
    "signatures": _signatures,
    "near-duplicates": _removed("near-duplicates"),
    "urls": _removed("urls"),
    "rules": _rules,
    "private": _private,
    "precision": _precision,
    "decontaminate": _decontaminate,
    "images": _images,
    "galleries": _galleries,
}
