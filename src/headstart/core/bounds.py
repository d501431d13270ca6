"""Numbers that a person sets, within bounds: a verb names the bounds of its numbers once, and the first one outside is refused by its flag before
anything heavy is loaded or a file is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.core.config import flatten
from headstart.core.errors import UsageError


@dataclass(frozen=True)
class Bounds:
    """The numbers from `low` to `high`. NaN lies within none.

    Args:
        mend: the sentence for a number outside.
        above: `low` itself lies outside.
        below: `high` itself lies outside.
    """

    low: float
    high: float
    mend: str
    above: bool = False
    below: bool = False

    def hold(self, number: float) -> bool:
        return (self.low < number if self.above else self.low <= number) and (number < self.high if self.below else number <= self.high)


ABOVE_0 = Bounds(0, math.inf, "Give a number above 0.", above=True, below=True)
FROM_0 = Bounds(0, math.inf, "Give 0 or more.", below=True)
FINITE = Bounds(-math.inf, math.inf, "Give a finite number.", above=True, below=True)
SHARE = Bounds(0, 1, "Give a share from 0 to 1.")
SHARE_ABOVE_0 = Bounds(0, 1, "Give a share above 0, up to 1.", above=True)
BELOW_1 = Bounds(0, 1, "Give a number from 0 up to, but not, 1.", below=True)
MOST = (1 << 31) - 1
COUNT = Bounds(1, MOST, f"Give at least 1, at most {MOST:,}.")
COUNT_FROM_0 = Bounds(0, MOST, f"Give at least 0, at most {MOST:,}.")
SEEDS = Bounds(1, 10_000, "Give at least 1, at most 10,000; three or more give an interval.")
EPOCHS = Bounds(0, 1e6, "Give a number above 0, at most 1,000,000.", above=True)
SEED = Bounds(0, 1 << 63, "Give a number of at least 0 that fits 64 bits.", below=True)
MINUTES = Bounds(0, 10 * 365 * 24 * 60, "Give minutes above 0, at most 5,256,000: ten years.", above=True)
STEPS = Bounds(1, 10**10, "Give at least 1, at most 10,000,000,000: at a millisecond each they take four months.")
TOKENS = Bounds(0, 1e15, "Give a number above 0, at most 1e15: more than all text on the web.", above=True)
FLOPS = Bounds(0, 1e30, "Give a number above 0, at most 1e30: a thousand times the largest training that is published.", above=True)


def refuse_outside(settings: Any, bounds: Mapping[str, Bounds], of: str = "", free: frozenset[str] = frozenset()) -> None:
    """Refuses the first number that lies outside its bounds; a number without bounds must be finite.

    Args:
        settings: a (nested) dataclass, or name -> value.
        bounds: dotted name of a field -> where its number, or each of its numbers, must lie. None is within any.
        of: what stands before the name in the flag: "finetune." for --finetune.epochs.
        free: fields that take any number, NaN too.

    Raises:
        UsageError: the flag, its value, what to give.
    """
    for name, value in (settings if isinstance(settings, Mapping) else flatten(settings)).items():
        within = bounds.get(name, FINITE)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool) and name not in free and not within.hold(number):
                raise UsageError(f"{_flag(of + name)} is {_shown(number)}.", within.mend)


def _flag(name: str) -> str:
    """A dotted field name as the command line writes it: --optimizer.learning-rate."""
    return f"--{name.replace('_', '-')}"


def _shown(number: float) -> str:
    """A number as a person wrote it: 0.5, -3, nan."""
    return str(number).removesuffix(".0")
