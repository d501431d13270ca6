"""The trial of `advise`: successive halving (Jamieson and Talwalkar 2016) at equal counted FLOPs, each rung a stop of the full run; and how
thoroughly the arms are measured there, so that training and measuring together keep the time that the person gave.

- The last rungs keep two candidates, so that the ranking rests on a comparison; rungs double, so that a curve through them reaches far.
- No arm is measured on the unigram plateau, where a network has forgotten its random features and learned nothing yet: what is measured there ranks
  random starts. A candidate that leaves it late joins at the first rung past it.
- Where time is short, measuring gives way first where it costs the verdict least: what the head start is worth in labels, then the choice of a
  learning rate, then rungs, then splits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from headstart.tasks.label_curve import DEV_SHARE
from headstart.verbs._advise_candidates import Candidate
from headstart.verbs._advise_verdict import GIVEN, RANDOM

TRIAL_SHARE = 0.2
"""Of the budget, for the answer: measuring speeds, training and measuring. The rest is the winner's run."""
MEASURING_SHARE = 0.6
"""Of the trial, at most, for measuring: more splits do not help a network that has learned too little."""
OVERHEAD_SHARE = 0.6  # of the trial, at most, may go into starting the runs
FEWEST_STEPS = 10  # at the first rung
LEAST_SHARE = 0.25
MOST_MINUTES = 1e6
RESTART_S = 0.5  # measured: what a continuation adds to its training when nothing is decided anew
CURVE_SPLITS = 5


@dataclass(frozen=True)
class Effort:
    """How thoroughly the arms are measured."""

    splits: int
    """Of the labelled records; without labels random halves of the documents."""
    rungs: int
    """At most. Four, the fewest points that a curve of three parameters is fitted through, or fewer."""
    rates: int = 1
    """Learning rates of fine-tuning that each arm tries once."""
    curve: int = 0
    """Numbers of labels, below all, that the label curve of a random start is measured with."""
    documents: int = 0
    """Without labels: held-out documents, at most."""


ON_LABELS = (
    Effort(10, 4, rates=2, curve=2),
    Effort(5, 4, rates=2, curve=2),
    Effort(5, 4, curve=2),
    Effort(5, 4, curve=1),
    Effort(5, 2, curve=1),
    Effort(5, 2),
    Effort(5, 1),
    Effort(4, 1),  # a corrected interval is 2.4 standard deviations wide with ten splits, 3.0 with five, 3.6 with four, 5.0 with three
)
ON_DOCUMENTS = (
    Effort(10, 4, documents=1000),
    Effort(10, 4, documents=300),
    Effort(10, 2, documents=300),
    Effort(10, 1, documents=100),
)


@dataclass(frozen=True)
class Prices:
    """What measuring costs here, in seconds."""

    labelled: bool
    a_score: float
    """One fine-tuning and its test; without labels one document."""
    a_point: float = 0.0
    """What each measured network costs besides: it is read, and the records are tokenised."""

    @property
    def efforts(self) -> tuple[Effort, ...]:
        """From the most thorough to the least."""
        return ON_LABELS if self.labelled else ON_DOCUMENTS

    def measuring_s(self, effort: Effort, points: int, arms: int) -> float:
        """Of `points` measured networks that belong to `arms` arms."""
        if not self.labelled:
            return points * (self.a_point + effort.documents * self.a_score)
        tried = effort.rates * (1 - DEV_SHARE) if effort.rates > 1 else 0.0
        return points * self.a_point + (points * effort.splits + arms * tried) * self.a_score

    def curve_s(self, effort: Effort) -> float:
        """Of the label curves: the head start with few labels, its random start with those and more."""
        return (effort.curve + 1) * min(effort.splits, CURVE_SPLITS) * self.a_score if effort.curve else 0.0


@dataclass
class Rung:
    """Where all candidates that are still in stop next."""

    flops: float
    steps: dict[str, int]  # arm -> step
    joins: list[str]  # arms that are measured here for the first time
    keep: int  # of those that were measured before
    seconds: float  # expected, of the slowest `keep` and of those that join

    def to_json(self) -> dict[str, Any]:
        return {"flops": self.flops, "steps": self.steps, "joins": self.joins, "keep": self.keep, "seconds": self.seconds}

    @property
    def measured(self) -> int:
        return self.keep + len(self.joins)


@dataclass
class Trial:
    """What is tried, and how."""

    candidates: list[Candidate]
    late: list[Candidate]
    """Those that the trial has no time for."""
    rungs: list[Rung]
    """None: there is no trial."""
    effort: Effort
    measuring_s: float = 0.0

    @property
    def training_s(self) -> float:
        return sum(rung.seconds for rung in self.rungs)


def beside(candidates: Sequence[Candidate], labelled: bool) -> list[tuple[str, Candidate]]:
    """(kind, the candidate whose network it is) of the arms that are measured once and never trained: the random start of each different network
    (without labels only of networks that begin at random), and the user's model as it is."""
    found: list[tuple[str, Candidate]] = []
    seen = set()
    for entry in candidates:
        network = entry.architecture or entry.arm
        if network not in seen and (entry.init is None or labelled):
            seen.add(network)
            found.append((RANDOM, entry))
    given = [entry for entry in candidates if entry.init is not None]
    return [*found, *((GIVEN, entry) for entry in given[:1])]


def plan(candidates: Sequence[Candidate], seconds: float, prices: Prices) -> Trial:
    """The trial that fits into `seconds`: of as many candidates as possible, measured as thoroughly as there is time for. Dropped first is who leaves
    its plateau latest. Without any rung all remain, and there is no trial."""
    kept = sorted(candidates, key=lambda c: c.cost_until(earliest(c), c.seconds_per_step))
    while kept:
        for effort in prices.efforts:
            if rungs := plan_rungs(kept, seconds, effort, prices):
                inside = [c for c in candidates if c in kept]
                late = [c for c in candidates if c not in kept]
                return Trial(inside, late, rungs, effort, measuring_s(rungs, kept, effort, prices) + prices.curve_s(effort))
        kept = kept[:-1]
    return Trial(list(candidates), [], [], prices.efforts[-1])


def plan_again(candidates: Sequence[Candidate], seconds: float, effort: Effort, prices: Prices) -> tuple[list[Candidate], list[Rung]]:
    """(candidates, their rungs) for the `seconds` that are left when the arms beside are measured and measuring costs other than expected. Rather
    fewer candidates than all of them barely off their plateaus. Where nothing fits, the one that is off soonest is measured there: a trial that was
    begun gives an answer."""
    kept = sorted(candidates, key=lambda c: c.cost_until(earliest(c), c.seconds_per_step))
    while kept:
        once = len(beside(kept, prices.labelled))
        paid = prices.measuring_s(effort, once, once)
        for count in range(effort.rungs, 0, -1):
            rungs = plan_rungs(kept, seconds + paid, replace(effort, rungs=count, curve=0), prices, most_measuring=1.0)
            if rungs and (len(kept) == 1 or sum(rung.seconds for rung in rungs) >= (1 - MEASURING_SHARE) * seconds):
                return [c for c in candidates if c in kept], rungs
        first, kept = kept[0], kept[:-1]
    return [first], rungs_to([first], 1.01 * first.cost_until(earliest(first) + 1, first.flops_per_step), 1)


def plan_rungs(
    candidates: Sequence[Candidate], seconds: float, effort: Effort, prices: Prices, most_measuring: float = MEASURING_SHARE
) -> list[Rung]:
    """The rungs up to as many FLOPs as `seconds` hold, every candidate measured off its plateau at the last one; empty where that is not possible.

    Args:
        most_measuring: share of the seconds that measuring may take.
    """
    if sum(c.setup_s for c in candidates) > OVERHEAD_SHARE * seconds:
        return []
    available = seconds - prices.curve_s(effort)
    low, high = 0.0, min(c.cost_until(c.steps, c.flops_per_step) for c in candidates)
    for _ in range(40):
        middle = (low + high) / 2
        rungs = rungs_to(candidates, middle, effort.rungs)
        cost = sum(rung.seconds for rung in rungs) + measuring_s(rungs, candidates, effort, prices)
        low, high = (middle, high) if cost <= available else (low, middle)
    rungs = rungs_to(candidates, low, effort.rungs)
    everyone = sum(len(rung.joins) for rung in rungs) == len(candidates)
    if not everyone or any(before.steps[arm] >= after.steps[arm] for before, after in pairwise(rungs) for arm in before.steps):
        return []
    measuring = measuring_s(rungs, candidates, effort, prices) + prices.curve_s(effort)
    return rungs if measuring <= most_measuring * seconds else []


def measuring_s(rungs: Sequence[Rung], candidates: Sequence[Candidate], effort: Effort, prices: Prices) -> float:
    """Seconds of measuring all rungs and the arms beside them, without the label curves."""
    once = len(beside(candidates, prices.labelled))
    joined = sum(len(rung.joins) for rung in rungs)
    return prices.measuring_s(effort, once + sum(rung.measured for rung in rungs), once + joined)


def earliest(candidate: Candidate) -> int:
    """The first step at which a measurement says something of it."""
    return max(FEWEST_STEPS, candidate.plateau_step or 0)


def rungs_to(candidates: Sequence[Candidate], last: float, count: int) -> list[Rung]:
    """At most `count` rungs that double, the last at `last` FLOPs; fewer where nobody is off its plateau at the first ones."""
    rungs: list[Rung] = []
    inside: list[Candidate] = []
    until: dict[str, float] = {}
    for number in range(count):
        flops = last / 2 ** (count - 1 - number)
        steps = {c.arm: c.step_at(flops) for c in candidates}
        joins = [c for c in candidates if c not in inside and steps[c.arm] >= earliest(c)]
        if not (joins or inside):
            continue
        keep = kept_of(rungs[-1].measured) if rungs else 0
        now = {c.arm: c.seconds_until(flops) for c in candidates}
        onward = sorted((now[c.arm] - until[c.arm] + RESTART_S for c in inside), reverse=True)
        rungs.append(Rung(flops, steps, [c.arm for c in joins], keep, sum(onward[:keep]) + sum(now[c.arm] + c.setup_s for c in joins)))
        inside += joins
        until = now
    return rungs


def kept_of(measured: int) -> int:
    """How many of the candidates that a rung measured go on to the next: half of them, but two to the end."""
    return max(min(2, measured), math.ceil(measured / 2))


def minutes_for(candidates: Sequence[Candidate], minutes: float, spent_s: float, prices: Prices) -> float:
    """About the budget of which a fifth holds a trial of all these candidates, `spent_s` seconds of it being spent before."""
    longer = 1.0
    while longer * minutes < MOST_MINUTES:
        full = [replace(c, spans=[(phase, math.ceil(longer * stop)) for phase, stop in c.spans]) for c in candidates]
        trial = plan(full, TRIAL_SHARE * 60 * longer * minutes - spent_s, prices)
        if trial.rungs and not trial.late:
            break
        longer *= 1.1
    return longer * minutes


def shortened(rung: Rung, before: Rung, candidates: Sequence[Candidate], share: float) -> Rung | None:
    """The rung at `share` of its way from the one before, where it would take too long; None where that leaves nothing worth a measurement."""
    flops = before.flops + share * (rung.flops - before.flops)
    steps = rung.steps | {c.arm: c.step_at(flops) for c in candidates}
    if share < LEAST_SHARE or any(steps[c.arm] < earliest(c) or steps[c.arm] <= before.steps[c.arm] for c in candidates):
        return None
    return Rung(flops, steps, rung.joins, rung.keep, share * rung.seconds)
