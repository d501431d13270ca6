"""The files that a person gives beside the data, read before the first page is: a fault in them would show hours later, and a curation that went so
far takes no other file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from fnmatch import fnmatch
from itertools import zip_longest
from pathlib import Path
from typing import Any

from headstart.core.curation import DOCUMENTS
from headstart.core.errors import BadInput, MissingDependency
from headstart.curate import labels
from headstart.curate.addresses import Source, find_sources
from headstart.curate.config import CurateConfig, ReadConfig
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


# what is given again, to a curation that goes on


def settings_given(config: CurateConfig, known: Mapping[str, Any], is_over: Callable[[str], bool]) -> tuple[dict[str, Any], set[str]]:
    """(settings as JSON has them; stages whose files are gone). A file stands there by its path and size, so that another one is noticed. Of a stage
    that is over it is not read any more, and may be gone: it counts as what it was.

    Args:
        known: the settings that the curation began with, none if it begins; is_over: of a stage, whose name its settings have.

    Raises:
        BadInput: a file is not there.
    """
    gone: set[str] = set()

    def plain(value: Any, was: Any, group: str) -> Any:
        if isinstance(value, dict):
            before: Any = was if isinstance(was, dict) else {}
            return {name: plain(inner, before.get(name), group or name) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            before = was if isinstance(was, list) else []
            return [plain(inner, old, group) for inner, old in zip_longest(value, before[: len(value)])]
        if not isinstance(value, Path):
            return value
        if value.exists():
            return [str(value), value.stat().st_size]
        if not isinstance(was, list) or was[:1] != [str(value)] or not is_over(group):
            raise BadInput("is not there.", "Check the path.", file=value)
        gone.add(group)
        return was

    return plain(asdict(config), known, ""), gone


def input_again(addresses: Sequence[str], known: Sequence[Sequence[Any]], config: ReadConfig, is_over: Callable[[str], bool]) -> list[Source]:
    """The input of a curation that goes on. Once all of it is read ("read" is over) its files may be gone, where the addresses still name them; those
    of another curation may not, for its images lie beside them and are taken over at the end.

    Args:
        known: address and size of each file that it began with.

    Raises:
        BadInput: an address names nothing.
    """
    before = [Source(*one) for one in known]
    gone = {one for one in before if "://" not in one.address and not Path(one.address).exists() and Path(one.address).parent.name != DOCUMENTS}
    if not gone or not is_over("read"):
        return find_sources(addresses, config)
    found: list[Source] = []
    named: set[Source] = set()
    for address in addresses:
        named |= (here := {one for one in gone if _names(address, one.address)})
        if not here:
            found += find_sources([address], config)
            continue
        with suppress(BadInput):  # nothing of it is left
            found += find_sources([address], config)
    return before if named | set(found) == set(before) else list(dict.fromkeys(found))


def _names(address: str, file: str) -> bool:
    """Whether an address is this file of the machine, its folder, or a glob that takes it."""
    if "://" in address:
        return False
    path = Path(address).expanduser().resolve()
    return str(path) == file or path in Path(file).parents or fnmatch(file, str(path))
