"""Rules on a document (webmath A6), and the masking of personal data.

Most rules of C4 and OBELICS are not here on purpose: C4's rule on curly brackets drops every page with LaTeX.
"""

from __future__ import annotations

import ipaddress
import re
import string
from functools import cache
from importlib import resources
from pathlib import Path

import pyarrow as pa

from headstart.core.errors import BadInput
from headstart.curate.config import PrivateConfig, RulesConfig
from headstart.curate.tables import Stage, drop, texts_of, with_column, without_formulas
from headstart.data.tables import decoded

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_HEADING = re.compile(r"^#+ ", re.MULTILINE)
_BROKEN = re.compile("[\ufffd\ud800-\udfff]")
NO_WORD = "Write one word a line."


def punctuation_share(text: str) -> float:
    """ASCII punctuation characters / characters; 0 of an empty text."""
    return (len(text) - len(text.translate(_PUNCTUATION))) / len(text) if text else 0.0


def prose(text: str) -> str:
    """The text without formulas, and without the marks of headings, which are ours."""
    return _HEADING.sub("", without_formulas(text))


def rules(config: RulesConfig) -> Stage:
    """The stage. A document goes by the first rule that it breaks."""
    nsfw = word_pattern(config.nsfw_words)

    def broken(text: str, language: str | None, words: int | None) -> str | None:
        if _BROKEN.search(text):
            return "Unicode error"
        if len(text) < config.lorem_under and "lorem ipsum" in text.lower():
            return "lorem ipsum"
        counts = config.punctuation != "off" and language in ("en", None)
        if counts and punctuation_share(prose(text) if config.punctuation == "text" else text) > config.max_punctuation:
            return "punctuation"
        if nsfw.search(text.casefold()):
            return "NSFW word"
        return "too few words" if config.min_words and (words or 0) < config.min_words else None

    def stage(table: pa.Table) -> pa.Table:
        columns = (texts_of(table), table["language"].to_pylist(), table["words"].to_pylist())
        return drop(table, [broken(*row) for row in zip(*columns, strict=True)])

    return stage


@cache
def word_pattern(path: Path | None) -> re.Pattern[str]:
    """Whole words of a list, case-folded; lines that begin with # are comments.

    Raises:
        BadInput: the file has no word.
    """
    if path is None:
        text = (resources.files("headstart.curate") / "nsfw_words.txt").read_text(encoding="utf-8")
    else:
        text = decoded(path, NO_WORD)
    words = [line.strip().casefold() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not words:
        raise BadInput("has no word.", NO_WORD, file=path)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(words, key=len, reverse=True)))})(?!\w)")


# personal data

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@])")
_IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
_PHONE = re.compile(r"(?<![\w.+])\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d{2,8}(?:[ .\-]\d{2,8}){1,4}(?![\w.]\d|\w)")
_MASKS = (_EMAIL, "<EMAIL>"), (_PHONE, "<PHONE>")


def masked(text: str) -> str:
    """The text with e-mail addresses, public IP addresses and international telephone numbers replaced by <EMAIL>, <IP>, <PHONE>."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return _IP.sub(lambda found: "<IP>" if _public(found[0]) else found[0], text)


def _public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def private(config: PrivateConfig) -> Stage:
    """The stage: masks; drops nothing."""

    def stage(table: pa.Table) -> pa.Table:
        if config.mask:
            lists = [[None if text is None else masked(text) for text in texts] for texts in table["text_list"].to_pylist()]
            table = with_column(table, "text_list", lists, pa.list_(pa.string()))
        return drop(table, [None] * table.num_rows)

    return stage
