"""When a run ends. A budget is given in one unit; the engine turns it into steps once, before step 1, and a resumed run keeps that number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from headstart.core.bounds import FLOPS, MINUTES, STEPS, TOKENS, refuse_outside
from headstart.core.errors import UsageError

BOUNDS = {"steps": STEPS, "tokens": TOKENS, "flops": FLOPS, "minutes": MINUTES}
MAX_STEPS = 1 << 40


@dataclass(frozen=True)
class Budget:
    """The end of a run, in exactly one unit."""

    steps: int | None = None
    """Optimiser updates."""
    tokens: int | None = None
    """Tokens seen (for other data: samples), padding included."""
    flops: float | None = None
    """Training FLOPs, counted on the real step."""
    minutes: float | None = None
    """Wall-clock minutes of training on this machine, turned into steps by the measured speed before step 1."""

    def unit(self) -> str:
        """Which field is set.

        Raises:
            UsageError: none or several are, or no run can have the value.
        """
        given = {field.name: getattr(self, field.name) for field in fields(self) if getattr(self, field.name) is not None}
        if len(given) != 1:
            what = "No budget is given." if not given else f"More than one budget is given: {', '.join(given)}."
            raise UsageError(what, "Give one of --budget.steps, --budget.tokens, --budget.flops, --budget.minutes.")
        refuse_outside(given, BOUNDS, "budget.")
        return next(iter(given))


def steps_within(limit: float, cost: Callable[[int], float]) -> int:
    """The largest number of steps whose total `cost` stays within `limit`; at least 1. `cost` grows with the number of steps."""
    low, high = 1, 2
    while high < MAX_STEPS and cost(high) <= limit:
        low, high = high, high * 2
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= limit else (low, middle)
    return low
