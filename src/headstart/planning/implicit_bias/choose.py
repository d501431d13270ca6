"""Of checkpoints whose loss is equal within a tolerance, the flattest or the best probed one; those outside are refused, not compared.

The paper's advice as arithmetic, on figures that `headstart measure loss-exact RUN` and `headstart measure sharpness RUN` give. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.core.errors import UsageError

TOLERANCE = 0.02
"""Nats."""


@dataclass(frozen=True)
class Candidate:
    """A checkpoint."""

    name: str
    loss: float
    """Nats, on one test set for all; where the optimum is known, the excess over it."""
    trace: float | None = None
    """Of the Hessian, all measured in one space: networks of one size, or embedded into the largest. None: it has no parameters."""
    trace_error: float = 0.0
    """Its standard error."""
    probe: float | None = None
    """Accuracy of a linear probe."""


@dataclass(frozen=True)
class Choice:
    """What to take, and why."""

    name: str
    by: str
    """probe or trace."""
    tied: tuple[str, ...]
    """Others that cannot be told from it: traces within two standard errors."""


def equal_loss(candidates: Sequence[Candidate], tolerance: float = TOLERANCE) -> None:
    """Refuses a comparison of different losses.

    Raises:
        UsageError: one is further than the tolerance above the best; all that are get named, each with how far.
    """
    if not candidates:
        raise UsageError("There is nothing to choose from.", "Give at least one checkpoint.")
    best = min(candidate.loss for candidate in candidates)
    if outside := [f"{one.name} by {one.loss - best:.4f}" for one in candidates if one.loss - best > tolerance]:
        raise UsageError(
            f"These are more than {tolerance:g} nats above the best loss: {', '.join(outside)}.",
            "Flatness compares models of equal loss: leave them out, train them on, or anneal them (a branch whose rate falls to 0).",
        )


def choose(candidates: Sequence[Candidate], tolerance: float = TOLERANCE) -> Choice:
    """Of models of equal loss that with the best probe, where all have one; otherwise the flattest.

    Raises:
        UsageError: the losses are not equal, or neither figure is known of all.
    """
    equal_loss(candidates, tolerance)
    probes = {one.name: one.probe for one in candidates if one.probe is not None}
    if len(probes) == len(candidates):
        best = max(probes, key=lambda name: probes[name])
        return Choice(best, "probe", tuple(name for name, value in probes.items() if value == probes[best] and name != best))
    known = [one for one in candidates if one.trace is not None]
    if len(known) < len(candidates):
        without = ", ".join(one.name for one in candidates if one.trace is None)
        raise UsageError(f"Of {without} neither probe nor trace is known.", "Measure them: headstart measure sharpness RUN.")
    traces = {one.name: one.trace for one in known if one.trace is not None}
    flattest = min(known, key=lambda one: traces[one.name])
    near = [
        one.name
        for one in known
        if one is not flattest and traces[one.name] - traces[flattest.name] <= 2 * (one.trace_error**2 + flattest.trace_error**2) ** 0.5
    ]
    return Choice(flattest.name, "trace", tuple(near))
