"""The stability gap of a curve: how far a score falls when training goes on with new text, and when it is back (Guo et al. 2025, arXiv 2406.14833;
the statistics are ours)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.core.errors import UsageError


@dataclass(frozen=True)
class Gap:
    """Of scores a_0 (before training goes on), a_1 ... a_n; higher is better."""

    depth: float
    """a_0 - the least score, not below 0."""
    recovery: float | None
    """Where after the first least score it is a_0 again; 0 where it never fell; None: not within this run."""
    area: float
    """Mean of max(0, a_0 - a) over the run: the trapezoids of the clipped values, divided by the last x."""
    peak: float
    """The best score, the first one among them."""
    gain: float
    """peak - a_0."""


def gap(x: Sequence[float], scores: Sequence[float]) -> Gap:
    """The gap of a curve. A least value over noisy accuracies is biased: at 600 items one has a standard error of .02, so read minus bits a byte at a
    small scale.

    Args:
        x: tokens (or steps) at each score, rising from the beginning.
        scores: a_0 ... a_n.

    Raises:
        UsageError: fewer than two points, or x that does not rise.
    """
    at, a = np.asarray(x, float), np.asarray(scores, float)
    if len(a) < 2 or len(a) != len(at) or not (np.diff(at) > 0).all() or not np.isfinite(a).all():
        raise UsageError(f"{len(a)} scores at {len(at)} places are no curve.", "Give finite scores at rising places, the first before training.")
    lowest = int(a.argmin())
    depth = float(max(0.0, a[0] - a[lowest]))
    back = np.flatnonzero(a[lowest:] >= a[0])
    recovery = 0.0 if depth == 0 else float(at[lowest + back[0]]) if len(back) else None
    area = float(np.trapezoid(np.maximum(0.0, a[0] - a), at) / (at[-1] - at[0]))
    return Gap(depth, recovery, area, float(a.max()), float(a.max() - a[0]))
