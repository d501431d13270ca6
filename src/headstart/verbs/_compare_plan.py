"""Which points fit the minutes that a person gives. Pure.

What gives way, in this order: earlier checkpoints, which only the plot shows; seeds, down to the three that an interval needs; the label curve. All
labels stay: a training of few costs what one of many does (`tasks.recipe.FEWEST_STEPS`), so fewer would save no time and weaken the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headstart.tasks.metrics import FEWEST_SEEDS

CURVE_RATIO = 3
CURVE_POINTS = 3


@dataclass(frozen=True)
class Need:
    """What an arm could be measured at."""

    sources: int
    needed: tuple[int, ...]  # exports (from the end) that the verdict reads
    further: tuple[int, ...]  # others, for the plot


@dataclass
class Plan:
    """What will be measured."""

    seeds: int
    main: int  # labels of the points that decide: all
    counts: list[int]  # smaller numbers of labels, with the final exports
    further: list[tuple[int, int]]  # (arm, export) beyond those that the verdict reads
    points: int = 0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)


def curve_counts(main: int, least: int) -> list[int]:
    """Numbers of labels below `main`, each a third of the next, at most three and none below `least`."""
    found: list[int] = []
    count = main
    while len(found) < CURVE_POINTS and (count := round(count / CURVE_RATIO)) >= least:
        found.append(count)
    return found[::-1]


def make_plan(
    needs: Sequence[Need],
    seconds: Callable[[int, int], float],
    *,
    seeds: int,
    main: int,
    least: int,
    counts: Sequence[int] | None,
    budget_s: float | None,
) -> Plan:
    """The plan for a budget; without one everything. Its `seconds` are more than the budget where not even the least fits.

    Args:
        needs: of each arm.
        seconds: (arm, labels) -> about what one training takes.
        seeds: as asked for; where they do not fit, down to three.
        main: labels of the points that decide.
        least: fewest labels of the curve.
        counts: of the label curve; None: `curve_counts`.
    """
    curve = sorted(curve_counts(main, least) if counts is None else {count for count in counts if count < main})
    fewest = min(FEWEST_SEEDS, seeds)

    def deciding(n_seeds: int) -> float:
        return sum(n_seeds * need.sources * len(need.needed) * seconds(arm, main) for arm, need in enumerate(needs))

    def a_count(n_seeds: int, count: int) -> float:
        return sum(n_seeds * need.sources * seconds(arm, count) for arm, need in enumerate(needs))

    def most_seeds(smaller: Sequence[int]) -> int:
        """As many as fit beside these numbers of labels, at least the fewest."""
        fitting = (n for n in range(seeds, fewest, -1) if budget_s is None or deciding(n) + sum(a_count(n, count) for count in smaller) <= budget_s)
        return next(fitting, fewest)

    n = most_seeds(curve)
    if budget_s is not None and curve and deciding(n) + a_count(n, curve[0]) > budget_s:
        n = most_seeds([])  # not one of them fits: the time is the verdict's
    left_out = [f"{seeds - n} of {seeds} seeds"] if n < seeds else []
    plan = Plan(n, main, [], [], n * sum(need.sources * len(need.needed) for need in needs), deciding(n), left_out)

    def fits(points: int, cost: float) -> bool:
        if budget_s is not None and plan.seconds + cost > budget_s:
            return False
        plan.points, plan.seconds = plan.points + points, plan.seconds + cost
        return True

    for count in curve:
        if fits(n * sum(need.sources for need in needs), a_count(n, count)):
            plan.counts.append(count)
        else:
            left_out.append(f"the points with {count} labels")
    for station in sorted({station for need in needs for station in need.further}, reverse=True):
        for arm, need in enumerate(needs):
            if station in need.further:
                if fits(n * need.sources, n * need.sources * seconds(arm, main)):
                    plan.further.append((arm, station))
                elif "earlier checkpoints" not in left_out:
                    left_out.append("earlier checkpoints")
    return plan
