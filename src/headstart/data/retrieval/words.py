"""The words of a text as retrieval counts them: runs of letters without stop words.

`stopwords_en.txt`: 475 words, INQUERY's 418 united with NLTK's 179 (data/ of Albert-Ma/PROP, Apache-2.0).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Literal

from headstart.core.errors import BadInput
from headstart.core.files import read_bounded

WordPattern = Literal["unicode", "ascii"]
PATTERNS: dict[WordPattern, re.Pattern[str]] = {"unicode": re.compile(r"[^\W\d_]+"), "ascii": re.compile(r"[a-zA-Z]+")}
"""unicode: letters of any script. ascii: the paper's; it cuts a word at an accent, and finds nothing in other scripts."""
ENGLISH, NONE = "english", "none"
MAX_LIST_BYTES = 2**24


def read_stopwords(name: str) -> frozenset[str]:
    """The words that are not counted.

    Args:
        name: "english", "none", or a file with a word a line.

    Raises:
        BadInput: the file cannot be read.
    """
    if name == NONE:
        return frozenset()
    if name == ENGLISH:
        text = files(__package__).joinpath("stopwords_en.txt").read_text(encoding="utf-8")
    else:
        data = read_bounded(Path(name), MAX_LIST_BYTES, "list of stop words")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadInput(f"is not UTF-8 ({error})", "Save it as UTF-8, a word a line.", file=name) from None
    return frozenset(word.strip().casefold() for word in text.splitlines() if word.strip())


def words_of(text: str, pattern: WordPattern = "unicode", stopwords: Iterable[str] = ()) -> list[str]:
    """The words of a text in order; stop words are known whatever their case."""
    without = stopwords if isinstance(stopwords, frozenset) else frozenset(stopwords)
    return [word for word in PATTERNS[pattern].findall(text) if word.casefold() not in without]
