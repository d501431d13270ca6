"""Parts of JSON that may be of any type: what is not as it should be counts as absent. Files of a report may be old, damaged or a stranger's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from headstart.core import words
from headstart.core.terminal import printable
from headstart.verbs._follow import finite

MAX_ITEMS = 200
MAX_TEXT = 2000


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def text(value: Any) -> str:
    """A string, cut to a length that a page can show, marks of direction as escapes; numbers as words; nothing for null."""
    if value is None or isinstance(value, dict | list):
        return ""
    return words.number(value) if isinstance(value, int | float) and not isinstance(value, bool) else printable(str(value)[:MAX_TEXT])


def pair(value: Any) -> tuple[float, float] | None:
    """An interval, None where there is none."""
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = finite(value[0]), finite(value[1])
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def mean_of(values: Iterable[Any]) -> float:
    known = [number for number in map(finite, values) if math.isfinite(number)]
    return sum(known) / len(known) if known else math.nan


def labelled(*facts: tuple[str, Any]) -> list[tuple[str, str]]:
    return [(label, shown) for label, value in facts if (shown := text(value))]
