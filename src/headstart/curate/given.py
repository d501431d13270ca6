"""The files that a person gives beside the data, read before the first page is: a fault in them would show hours later, and a curation that went so
far takes no other file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headstart.core.errors import BadInput, MissingDependency
from headstart.curate import labels
from headstart.curate.config import CurateConfig
from headstart.curate.decontaminate import read_benchmarks
from headstart.curate.fasttext import load_classifier
from headstart.curate.language import fasttext_lid
from headstart.curate.rules import word_pattern
from headstart.curate.stages import Answers
from headstart.curate.training import FEWEST


def check_given(names: Sequence[str], config: CurateConfig, answers: Answers, say: Callable[[str], None]) -> None:
    """Reads what the stages will read, and says what is looked for of each benchmark.

    Args:
        answers: what is there already was learned from its files.

    Raises:
        BadInput: a file is damaged, holds something else, or too few documents. MissingDependency: what reads it, or fetches, is not installed.
    """
    if "language" in names and config.language.model is not None:
        fasttext_lid(config.language.model)
    for name, model in (("recall", config.recall.model), ("precision", config.precision.model)):
        if name in names and model is not None:
            load_classifier(model)
    if "recall" in names and config.recall.model is None and config.recall.positives is not None and not answers.of("recall").is_file():
        _refuse_few(sum(1 for _ in labels.read_texts(config.recall.positives)), config)
    if "precision" in names and config.precision.model is None and not answers.of("precision").is_file():
        if config.precision.scores is not None:
            labels.from_file(config.precision.scores)
        elif config.precision.endpoint is not None:
            _refuse_missing("aiohttp", "Scores of a language model")
    if "rules" in names and config.rules.nsfw_words is not None:
        word_pattern(config.rules.nsfw_words)
    if "images" in names and config.images.download:
        _refuse_missing("aiohttp", "Fetching images")
        _refuse_missing("PIL", "Fetching images", package="pillow")
    if "decontaminate" in names and config.decontaminate.benchmarks:
        for benchmark, (items, short) in read_benchmarks(config.decontaminate.benchmarks, config.decontaminate.n_gram).items.items():
            say(f"decontaminate: items of {benchmark} that are looked for: {items:,}" + (f"; too short: {short:,}" if short else ""))


def _refuse_few(positives: int, config: CurateConfig) -> None:
    if positives < FEWEST:
        what = f"has {positives} documents; a classifier needs {FEWEST} of each side to learn from."
        raise BadInput(what, "Give more documents of your domain.", file=config.recall.positives)


def _refuse_missing(module: str, why: str, package: str = "") -> None:
    try:
        __import__(module)
    except ImportError:
        raise MissingDependency(package or module, "curate", why) from None
