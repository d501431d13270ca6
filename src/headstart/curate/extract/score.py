"""How many formulas of a page an extraction kept: for the benchmark, the claim, and anyone who wants to compare extractors."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.curate.extract.delimiters import delimiters, formulas
from headstart.curate.extract.tex import normalise

MAX_LENGTH = 5000


def written(text: str) -> list[tuple[str, bool]]:
    """The formulas that stand between delimiters in a plain text, normalised, and whether they are displayed; of any extractor's output."""
    return [(normalise(inner), display) for _, _, inner, display, _ in formulas(text, delimiters(), MAX_LENGTH, lambda: None)]


def in_order(expected: Sequence[object], found: Sequence[object]) -> int:
    """How many of `expected` stand in `found` in the same order (the longest common subsequence)."""
    best = [0] * (len(found) + 1)
    for wanted in expected:
        corner = 0
        for place, have in enumerate(found, 1):
            corner, best[place] = best[place], corner + 1 if wanted == have else max(best[place], best[place - 1])
    return best[-1]
