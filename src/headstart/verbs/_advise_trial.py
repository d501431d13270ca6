"""The trial of `advise`: successive halving (Jamieson and Talwalkar 2016) at equal counted FLOPs, each rung a stop of the full run.

The last rungs keep two candidates, so that the ranking rests on a comparison; rungs double, so that a curve through them reaches far. No rung lies on
the unigram plateau, where a network has forgotten its random features and learned nothing yet: what is measured there ranks random starts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.verbs._advise_candidates import Candidate

TRIAL_SHARE = 0.2
"""Of the budget, spent on the trial's training."""
MOST_RUNGS = 4  # the fewest points that a curve of three parameters is fitted through
FEWEST_STEPS = 10  # at the first rung
OVERHEAD_SHARE = 0.6  # of the trial, at most, may go into starting the runs
LEAST_SHARE = 0.25
MOST_MINUTES = 1e6
RESTART_S = 0.5  # measured: what a continuation adds to its training when nothing is decided anew


@dataclass
class Rung:
    """Where all candidates that are still in stop next."""

    flops: float
    steps: dict[str, int]  # arm -> step
    keep: int  # candidates that are measured here
    seconds: float  # expected, of the slowest `keep`

    def to_json(self) -> dict[str, Any]:
        return {"flops": self.flops, "steps": self.steps, "keep": self.keep, "seconds": self.seconds}


def kept_at(rung: int, candidates: int) -> int:
    """How many candidates run to a rung (from 0): halves, but two to the end."""
    return max(min(2, candidates), math.ceil(candidates / 2**rung))


def plan_rungs(candidates: Sequence[Candidate], trial_s: float) -> list[Rung]:
    """The rungs that fit into `trial_s` seconds, all of them off the plateau; as many as possible up to four, empty if not even one does."""
    for count in range(MOST_RUNGS, 0, -1):
        if sum(c.setup_s for c in candidates) > OVERHEAD_SHARE * trial_s:
            return []
        low, high = 0.0, min(c.cost_until(c.steps, c.flops_per_step) for c in candidates)
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(rung.seconds for rung in rungs_to(candidates, middle, count)) <= trial_s else (low, middle)
        rungs = rungs_to(candidates, low, count)
        if all(rungs[0].steps[c.arm] >= earliest(c) for c in candidates) and all(len(set(steps)) == count for steps in _by_arm(rungs)):
            return rungs
    return []


def earliest(candidate: Candidate) -> int:
    """The first step at which a measurement says something of it."""
    return max(FEWEST_STEPS, candidate.plateau_step or 0)


def plan(candidates: Sequence[Candidate], trial_s: float) -> tuple[list[Candidate], list[Rung], list[Candidate]]:
    """(candidates of the trial, its rungs, those whose plateau is longer than the trial has time for). The last is dropped first whose plateau takes
    longest; without any rung all remain, and there is no trial."""
    kept = sorted(candidates, key=lambda c: c.cost_until(earliest(c), c.seconds_per_step))
    while kept:
        if rungs := plan_rungs(kept, trial_s):
            return [c for c in candidates if c in kept], rungs, [c for c in candidates if c not in kept]
        kept = kept[:-1]
    return list(candidates), [], []


def minutes_for(candidates: Sequence[Candidate], minutes: float, share: float = TRIAL_SHARE) -> float:
    """About the budget of which a fifth holds a trial of all these candidates."""
    longer = 1.0
    while longer * minutes < MOST_MINUTES:
        full = [replace(c, spans=[(phase, math.ceil(longer * stop)) for phase, stop in c.spans]) for c in candidates]
        if plan_rungs(full, share * 60 * longer * minutes):
            break
        longer *= 1.25
    return longer * minutes


def rungs_to(candidates: Sequence[Candidate], last: float, count: int) -> list[Rung]:
    """`count` rungs that double, the last at `last` FLOPs."""
    rungs, before = [], dict.fromkeys((c.arm for c in candidates), 0.0)
    for rung in range(count):
        flops = last / 2 ** (count - 1 - rung)
        keep = kept_at(rung, len(candidates))
        until = {c.arm: c.seconds_until(flops) for c in candidates}
        seconds = _largest([until[c.arm] - before[c.arm] + (RESTART_S if rung else c.setup_s) for c in candidates], keep)
        rungs.append(Rung(flops, {c.arm: c.step_at(flops) for c in candidates}, keep, seconds))
        before = until
    return rungs


def shortened(rung: Rung, before: Rung, candidates: Sequence[Candidate], share: float) -> Rung | None:
    """The rung at `share` of its way from the one before, where it took too long; None where that leaves nothing worth a measurement."""
    flops = before.flops + share * (rung.flops - before.flops)
    steps = {c.arm: c.step_at(flops) for c in candidates}
    if share < LEAST_SHARE or any(steps[arm] <= before.steps[arm] for arm in steps):
        return None
    return Rung(flops, steps, rung.keep, share * rung.seconds)


def _largest(values: Sequence[float], count: int) -> float:
    return sum(sorted(values)[-count:])


def _by_arm(rungs: Sequence[Rung]) -> list[list[int]]:
    return [[rung.steps[arm] for rung in rungs] for arm in rungs[0].steps]
