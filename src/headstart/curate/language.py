"""The language of a page, before it is taken apart (webmath A1): a quick text of the HTML, and an identifier that can be another."""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from headstart.core.errors import BadInput, MissingDependency, UsageError
from headstart.curate.config import LanguageConfig
from headstart.curate.extract import PageDropped
from headstart.curate.extract.decode import decode
from headstart.curate.tables import Stage, drop, with_column

Identify: TypeAlias = Callable[[str], tuple[str, float]]
"""A text without line breaks -> (code of its language, probability)."""

READ_CHARACTERS = 20_000
"""So much of a page's text decides."""
_HIDDEN = re.compile(r"<(script|style|noscript|svg|math|nav|header|footer)\b|<!--")
_TAG = re.compile(r"<[^<>]*>")
_NO_CHARACTER = re.compile(r"&#[0-9]{8,};?")
"""A number beyond every character's: of one of thousands of digits Python makes no number."""


def quick_text(html: str) -> str:
    """About the text of a page, in one line: scripts, navigation and tags are taken out, without parsing and in linear time."""
    html = html[: 20 * READ_CHARACTERS]
    lower = html.lower()
    if len(lower) != len(html):  # a few capitals have two small letters
        lower = html
    parts, at, unclosed = [], 0, set()
    while found := _HIDDEN.search(lower, at):
        end = "-->" if found[1] is None else f"</{found[1]}"
        close = -1 if end in unclosed else lower.find(end, found.end())
        if close < 0:
            unclosed.add(end)
        parts.append(html[at : found.start() if close >= 0 else found.end()])
        at = found.end() if close < 0 else (lower.find(">", close) + 1 or len(lower))
    text = _NO_CHARACTER.sub("\ufffd", _TAG.sub(" ", " ".join([*parts, html[at:]])))
    return " ".join(entities.unescape(text).split())[:READ_CHARACTERS]


@cache
def packaged() -> Identify:
    """The identifier of py3langid, whose model comes with it. Raises MissingDependency."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise MissingDependency("py3langid", "curate", "Language identification") from None
    classify: Identify = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify
    return classify


def refuse_unknown(config: LanguageConfig) -> None:
    """Raises UsageError for a code that the packaged identifier never gives: every page would be dropped. What a fastText model calls its languages
    is for its owner to know."""
    if config.model is not None or config.keep == LanguageConfig.keep:  # these it knows
        return
    codes: list[str] = packaged().__self__.nb_classes  # type: ignore[attr-defined]
    if unknown := [code for code in config.keep if code not in codes]:
        raise UsageError(f"--language.keep names no language: {', '.join(unknown)}.", f"There are: {', '.join(sorted(codes))}.")


@cache
def fasttext_lid(model: Path) -> Identify:
    """A fastText model such as lid.176.bin, run by the package fasttext. Raises MissingDependency, BadInput."""
    try:
        import fasttext
    except ImportError:
        raise MissingDependency("fasttext-community", "fasttext", "A fastText language model") from None
    try:
        loaded = fasttext.load_model(str(model))
    except ValueError as error:
        raise BadInput(f"cannot be read as a fastText model ({error}).", "Download it again.", file=model) from error

    def identify(text: str) -> tuple[str, float]:
        labels, probabilities = loaded.predict(text)
        return (labels[0].removeprefix("__label__"), float(probabilities[0])) if labels else ("", 0.0)

    return identify


def language(config: LanguageConfig, identify: Identify | None = None) -> Stage:
    """The stage: columns `language` and `language_probability`; pages of other languages, and doubtful ones, are dropped.

    Args:
        identify: another identifier; None: the one that the settings name.
    """

    def stage(table: pa.Table) -> pa.Table:
        known = identify or (packaged() if config.model is None else fasttext_lid(config.model))
        found: list[tuple[str, float] | None] = [None if not text else known(text) for text in _texts(table)]
        reasons = [_reason(one, config) for one in found]
        table = with_column(table, "language", [one and one[0] for one in found], pa.string())
        table = with_column(table, "language_probability", [one and one[1] for one in found], pa.float32())
        return drop(table, reasons)

    return stage


def _texts(table: pa.Table) -> list[str]:
    if "html" in table.column_names:
        pages = zip(table["html"].to_pylist(), table["content_type"].to_pylist(), strict=True)
        return [quick_text(html if isinstance(html, str) else _characters(html or b"", content_type or "")) for html, content_type in pages]
    documents: list[Any] = table["text_list"].to_pylist()
    return [" ".join(" ".join(text for text in texts or () if text)[:READ_CHARACTERS].split()) for texts in documents]


def _characters(html: bytes, content_type: str) -> str:
    """Of a page that did not go through the pre-filter; none where it cannot be read."""
    try:
        return decode(html, content_type)[0]
    except PageDropped:
        return ""


def _reason(found: tuple[str, float] | None, config: LanguageConfig) -> str | None:
    if not config.keep:
        return None
    if found is None:
        return "no text"
    label, probability = found
    if config.keep and label not in config.keep:
        return f"language {label or 'unknown'}"
    return "language in doubt" if probability < config.at_least else None
