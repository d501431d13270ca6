"""How far a law errs where nothing was measured: its last points, predicted from those before them.

Refits on resampled runs (`refit.bootstrap`) say what the points at hand leave open **if the form is right**. They share its form and its range, so
far outside they agree with each other whether or not it holds there, and none of them knows that a new run lands beside its law even inside. Both are
measured here, on the points that there are (roll-out: fit small, test larger; allenai/OLMo-core#554):

    within     every ratio between others, predicted without it
    tokens     the losses at D_max, by laws of the points up to 0.7 of it, 0.5, 0.35 and 0.25
    sizes      the largest size, by a law of the smaller ones

How an error is carried on: what a fitted curve misses grows beyond its range as the remainder of an interpolation does, by the product of the
distances from both ends of the range, here in log D (log N). What a law was off by on its own points already is noise, and does not grow. A spread
that is known from so few roll-outs has Student's t.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from headstart.core.words import share
from headstart.planning.dcpt_law.answers import Ranges
from headstart.planning.dcpt_law.forms import Array, Cells
from headstart.planning.dcpt_law.refit import FEWEST_SIZES, held_out, neighbourhood, refit, unidentified
from headstart.planning.dcpt_law.solve import Fit

CUTS = (math.sqrt(2), 2.0, 2 * math.sqrt(2), 4.0)
"""D_max over the largest D that a roll-out is fitted to; a sweep spans a factor of 8."""
FEWEST_COUNTS = 3
LAST = math.sqrt(2)
"""Points from D_max / so much on are predicted: where runs end at different D, their last ones."""

MOST = math.log(10)
"""Of a drawn error: that a loss may be ten times as large says no more than that nothing is known."""

Beyond = Literal["tokens", "sizes"]


@dataclass(frozen=True)
class Rollout:
    """Points that a law of smaller ones predicted.

    Args:
        factor: how far they lie above the largest that was fitted.
        remote: the same as `remoteness` from the range that was fitted.
        error: root mean square of log L_hat - log L.
        residual: the same of the points that the law was fitted to.
        n: how many were predicted.
    """

    over: Beyond
    factor: float
    remote: float
    error: float
    residual: float
    n: int

    @property
    def rate(self) -> float:
        """What the error exceeds the residual by, for each unit of remoteness."""
        return math.sqrt(max(self.error**2 - self.residual**2, 0.0)) / self.remote


@dataclass(frozen=True)
class Errors:
    """What a law was seen to err by, beside what it is fitted to.

    Args:
        within: root mean square of the log error at ratios held out.
        rollouts: what lies beyond; none where the points do not reach far enough to look.
    """

    within: float
    rollouts: tuple[Rollout, ...]

    def rate(self, over: Beyond) -> float:
        """Root mean square of the roll-outs' rates; 0 where there is none, and then an interval beyond says too little (`doubts`)."""
        rates = [one.rate for one in self.rollouts if one.over == over]
        return _root_mean_square(np.array(rates)) if rates else 0.0

    def spread(self, cells: Cells, ranges: Ranges) -> Array:
        """[points]: how far a law is off in the logarithm beyond what was measured; 0 inside."""
        far = {"tokens": remoteness(cells.d, ranges.d), "sizes": remoteness(cells.n, ranges.n)}
        return np.asarray(np.hypot(*(self.rate(over) * remote for over, remote in far.items())))  # type: ignore[arg-type]

    def drawn(self, count: int, which: str, cells: Cells, ranges: Ranges, unsure: Array | float = 0.0) -> Array:
        """[draws, points]: errors of the logarithm of a loss that is measured there, for each law of a bootstrap.

        Args:
            which: the loss; each has an order of its own.
            unsure: a further standard deviation of the logarithm, [points] or of all.
        """
        inside = ndtri(_quantiles(count, f"{which} inside"))
        beyond = stdtrit(max(len(self.rollouts), 1), _quantiles(count, f"{which} beyond"))
        drawn = inside[:, None] * np.hypot(self.within, unsure) + beyond[:, None] * self.spread(cells, ranges)
        return np.asarray(np.clip(drawn, -MOST, MOST))

    def words(self) -> str:
        """What was seen, for a person."""
        names = {"tokens": "the tokens", "sizes": "the size"}
        tried = [f"{one.factor:.2g} times {names[one.over]} {share(one.error)}" for one in self.rollouts]
        return "off where it was not fitted: " + ", ".join([f"other ratios by {share(self.within)}", *tried])

    def doubts(self, n: float, d: float | None, ranges: Ranges) -> list[str]:
        """A warning for each of N and D that lies further out than the points themselves reach."""
        said = []
        for name, over, value, (low, high) in (("N", "sizes", n, ranges.n), ("D", "tokens", d, ranges.d)):
            if value is None or value <= high * max(high / low, LAST):
                continue
            far = f"{value / high:.3g} times the largest {name} measured is further than the points reach ({high / low:.3g}-fold)"
            tried = [one for one in self.rollouts if one.over == over]
            if not tried:
                said.append(f"{far}, and they are too few to try the law beyond its own: the interval says too little")
                continue
            worst = max(tried, key=lambda one: one.rate)
            said.append(f"{far}; at {worst.factor:.2g} times its own a law was off by {share(worst.error)}, which the interval carries on as far")
        return said

    def to_json(self) -> dict[str, Any]:
        return {"within": self.within, "rollouts": [asdict(one) for one in self.rollouts]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Errors:
        return cls(float(record["within"]), tuple(Rollout(**one) for one in record["rollouts"]))


def remoteness(values: Array, ends: tuple[float, float]) -> Array:
    """[points]: (log v - log low) (log v - log high) of values outside a range, 0 inside."""
    low, high = np.log(ends)
    return np.maximum((np.log(values) - low) * (np.log(values) - high), 0.0)


def errors(best: Fit, cells: Cells, losses: Array, without: Array | None = None) -> Errors:
    """What a fitted law errs by, on its own points.

    Args:
        without: what `held_out` over ratios says, where that is known already.
    """
    between = (cells.r > cells.r.min()) & (cells.r < cells.r.max())
    without = held_out(best.law, best.fixed, cells, losses, "ratios") if without is None else without
    looks = [np.log(best.law.predict(cells) / losses)]
    looks += [] if without is None else [np.log(without / losses)[between]]
    within = max(_root_mean_square(off) for off in looks)
    return Errors(within, tuple(one for one in _rollouts(best, cells, losses) if one is not None))


def _rollouts(best: Fit, cells: Cells, losses: Array) -> list[Rollout | None]:
    found = [_rollout(best, cells, losses, "tokens", cells.d, cells.d.max() / cut, cells.d.max() / LAST) for cut in CUTS]
    sizes = np.unique(cells.n)
    if best.law.has_n and len(sizes) >= FEWEST_SIZES:
        found.append(_rollout(best, cells, losses, "sizes", cells.n, sizes[-2], sizes[-1]))
    return found


def _rollout(best: Fit, cells: Cells, losses: Array, over: Beyond, values: Array, until: float, since: float) -> Rollout | None:
    """None where what is left is too little to fit: fewer points than parameters, or than three token counts, which beta needs.

    Args:
        until: the largest value that is fitted. since: the smallest that is predicted.
    """
    early = values <= until * (1 + 1e-6)
    late = (values >= since * (1 - 1e-6)) & ~early
    form = best.law.form
    if not early.any() or len(np.unique(cells.d[early])) < FEWEST_COUNTS or early.sum() < len(form.names) - len(best.fixed):
        return None
    kept = {name: best.law[name] for name in unidentified(form, cells[early]) if name not in best.fixed}
    law = refit(form, cells[early], losses[early], {**best.fixed, **kept}, neighbourhood(best.law, 0))
    off = np.log(law.predict(cells[late]) / losses[late])
    ends = float(values[early].min()), float(values[early].max())
    factor, remote = math.exp(_root_mean_square(np.log(values[late] / ends[1]))), _root_mean_square(remoteness(values[late], ends))
    residual = _root_mean_square(np.log(law.predict(cells[early]) / losses[early]))
    return Rollout(over, factor, remote, _root_mean_square(off), residual, int(late.sum()))


def _quantiles(count: int, name: str) -> Array:
    """[count]: evenly spread over (0, 1), in an order that the name decides."""
    return (np.random.default_rng(list(name.encode())).permutation(count) + 0.5) / count


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
