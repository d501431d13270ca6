"""Which points fit the minutes that a person gives: seeds first (the verdict needs them), then the label curve, then earlier checkpoints. Pure."""

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
    main: int  # labels of the points that decide
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
    """The plan for a budget; without one everything.

    Args:
        needs: of each arm.
        seconds: (arm, labels) -> about what one training takes.
        seeds, main: as asked for. Where they do not fit, seeds go down to three, then labels to half and half again, not below `least`.
        counts: of the label curve; None: `curve_counts`.
    """

    def deciding(n_seeds: int, labels: int) -> float:
        return sum(n_seeds * need.sources * len(need.needed) * seconds(arm, labels) for arm, need in enumerate(needs))

    n, labels = seeds, main
    left_out: list[str] = []
    if budget_s is not None:
        while n > min(FEWEST_SEEDS, seeds) and deciding(n, labels) > budget_s:
            n -= 1
        while labels // 2 >= least and deciding(n, labels) > budget_s:
            labels //= 2
    if n < seeds:
        left_out.append(f"{seeds - n} of {seeds} seeds")
    if labels < main:
        left_out.append(f"more than {labels} of {main} labels")
    plan = Plan(n, labels, [], [], n * sum(need.sources * len(need.needed) for need in needs), deciding(n, labels), left_out)

    def fits(points: int, cost: float) -> bool:
        if budget_s is not None and plan.seconds + cost > budget_s:
            return False
        plan.points, plan.seconds = plan.points + points, plan.seconds + cost
        return True

    for count in sorted(curve_counts(labels, least) if counts is None else {count for count in counts if count < labels}):
        if fits(n * sum(need.sources for need in needs), sum(n * need.sources * seconds(arm, count) for arm, need in enumerate(needs))):
            plan.counts.append(count)
        else:
            left_out.append(f"{count} labels")
    for station in sorted({station for need in needs for station in need.further}, reverse=True):
        for arm, need in enumerate(needs):
            if station in need.further:
                if fits(n * need.sources, n * need.sources * seconds(arm, labels)):
                    plan.further.append((arm, station))
                elif "earlier checkpoints" not in left_out:
                    left_out.append("earlier checkpoints")
    return plan
