"""Figures and names as a person reads them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

MINUS, NARROW = "\u2212", "\u202f"  # a true minus sign; a narrow space that does not break


def known(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that a float can hold; a file may say anything."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def number(value: Any, digits: int = 4) -> str:
    """Four significant digits; '-' for what is no finite number."""
    if not known(value):
        return "–"
    if isinstance(value, int) and abs(value) < 10**15:
        return f"{value:,}".replace("-", MINUS)
    text = f"{value:,.0f}" if 10 ** (digits - 1) <= abs(value) < 10**9 else f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def signed(value: float, digits: int = 3) -> str:
    """+0.041 or −0.041."""
    if not math.isfinite(value):
        return "–"
    return f"{value:+.{digits}g}".replace("-", MINUS)


def change(value: float, digits: int = 4) -> str:
    """+0.0410 or -0.0410; what rounds to nothing is +0.0000, on whichever side of it."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def counted(value: Any) -> str:
    """1.2 M, 3.4 k: what is counted in large numbers."""
    if not known(value):
        return "–"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{NARROW}{unit}"
    return f"{value:.4g}"


def plural(count: int, noun: str) -> str:
    """1 share, 2 shares. The noun may be a unit that stands in the plural: rows."""
    one = noun if noun.endswith("ss") else noun.removesuffix("s")
    return f"{count:,} {one if count == 1 else f'{one}s'}"


def agree(count: int, one: str, several: str) -> str:
    """The word that goes with so many: agree(1, "is", "are") is "is"."""
    return one if count == 1 else several


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line a row, the columns below each other."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def flops(value: Any) -> str:
    """1.8 × 10¹² FLOPs, without the word."""
    if not known(value) or value <= 0:
        return "–"
    power = math.floor(math.log10(value))
    mantissa = value / 10.0**power if power < 300 else 1.0
    return f"{mantissa:.2g}{NARROW}×{NARROW}10" + str(power).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def gibibytes(value: Any) -> str:
    return f"{value / 2**30:.2f}{NARROW}GiB" if known(value) else "–"


def duration(seconds: Any) -> str:
    """12 s, 3 min 20 s, 2 h 05 min."""
    if not known(seconds) or seconds < 0:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}{NARROW}s" if seconds < 10 else f"{seconds:.0f}{NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min" + (f" {rest:02}{NARROW}s" if minutes < 10 and rest else "")
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}{NARROW}h {minutes:02}{NARROW}min"


def rounded_up(value: float) -> str:
    """Two digits that are not less: 7.41 is 7.5, 123 is 130."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{float(f'{math.ceil(value / digit - 1e-9) * digit:.6g}'):.15g}"


def share(value: Any) -> str:
    return f"{100 * value:.3g}{NARROW}%" if known(value) else "–"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """"Did you mean X? " for the closest of `names`, with the space that separates it from what follows; "" when none is close. The last part of
    a dotted name is compared too: --minutes is close to --budget.minutes."""
    names = list(names)
    spelt = {_spelling(other).rpartition(".")[2]: other for other in reversed(names)} | {_spelling(other): other for other in names}
    close = difflib.get_close_matches(_spelling(name), spelt, n=1, cutoff=0.65)
    return f"Did you mean {spelt[close[0]]}? " if close else ""


def _spelling(name: str) -> str:
    """A name or flag as it is compared: --Batch_Size like batch-size."""
    return name.lower().replace("_", "-").lstrip("-")


_OBJECT = re.compile(r"\s*<[^<>]* object at 0x[0-9a-f]+>")


def first_line(error: BaseException) -> str:
    """What a library says of its failure, for a sentence of ours: the first line, at most 200 characters, without the full stop and without the
    addresses of objects, which tell a person nothing and are others in every process."""
    line = _OBJECT.sub("", (str(error).strip().splitlines() or [""])[0]).rstrip(".: ")[:200]
    return line or type(error).__name__
