"""From a few points of a learning curve to the full budget: m(F) = m_inf - a F^-b, with an interval that covers the choice of splits.

- For a given b the rest is linear, so b is taken from a grid and (m_inf, a) in closed form with a >= 0 and m_inf <= ceiling: no start value, no local
  optimum, and thousands of bootstrap fits in a blink.
- Splits are resampled for all arms alike, so a difference of two arms is paired. They overlap: the spread of a mean is corrected as Nadeau and Bengio
  (2003) do (1/n + test/train instead of 1/n), and Student's t takes the place of the normal distribution.
- Three points or fewer determine nothing: then there is no curve, and the interval reaches from what was measured to what the last doubling promises.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

RESAMPLES = 2000
FEWEST_POINTS = 4  # of a curve with three parameters
EXPONENTS = np.geomspace(0.05, 2.0, 40)
TEST_SHARE = 0.5
"""Of the records, in each split."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, samples: np.ndarray) -> Interval:
        """95 % of the samples, and the value."""
        low, high = np.quantile(samples, [0.025, 0.975])
        return cls(float(value), float(min(low, value)), float(max(high, value)))

    def to_json(self) -> dict[str, object]:
        return {"value": self.value, "ci95": [self.low, self.high]}


def resampled_means(values: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Means over bootstrap draws of the splits, their spread corrected: [resamples, points].

    Args:
        values: [points, splits]; the same draws for every call with as many splits.
    """
    n = values.shape[1]
    centre = values.mean(1)
    if n < 2:
        return np.tile(centre, (resamples, 1))
    draws = np.random.default_rng(seed).integers(n, size=(resamples, n))
    means = values[:, draws].mean(2).T  # [resamples, points]
    widen = np.sqrt((1 / n + TEST_SHARE / (1 - TEST_SHARE)) * n * n / (n - 1)) * stdtrit(n - 1, 0.975) / ndtri(0.975)
    return centre + widen * (means - centre)


def fitted(flops: np.ndarray, values: np.ndarray, at: float, ceiling: float = 1.0) -> np.ndarray:
    """The least-squares saturating power law of each row of `values`, read at `at` FLOPs: [rows].

    Args:
        flops: [points], all above 0.
        values: [rows, points].
        ceiling: no metric is above it.
    """
    scaled, target = flops / flops[-1], at / flops[-1]
    best_error = np.full(len(values), np.inf)
    best = np.zeros(len(values))
    mean = values.mean(1)
    for exponent in EXPONENTS:
        x = scaled**-exponent  # [points]
        centred = x - x.mean()
        a = np.maximum(-(values @ centred) / (centred @ centred), 0.0)
        top = mean + a * x.mean()
        over = top > ceiling
        a = np.where(over, np.maximum((ceiling - values) @ x / (x @ x), 0.0), a)
        top = np.where(over, ceiling, top)
        error = ((top[:, None] - a[:, None] * x - values) ** 2).sum(1)
        better = error < best_error
        best_error = np.where(better, error, best_error)
        best = np.where(better, top - a * target**-exponent, best)
    return best


def at_full_budget(flops: np.ndarray, values: np.ndarray, full: float, ceiling: float = 1.0) -> tuple[Interval, np.ndarray, bool]:
    """What an arm should reach at `full` FLOPs: its interval, the samples [resamples] behind it, and whether a curve was fitted.

    Args:
        flops: [points], rising. values: [points, splits].
    """
    means, centre = resampled_means(values), values.mean(1)
    if len(flops) >= FEWEST_POINTS:
        samples = np.clip(fitted(flops, means, full, ceiling), 0.0, ceiling)
        return Interval.of(float(fitted(flops, centre[None], full, ceiling)[0]), samples), samples, True
    samples = means[:, -1]
    if len(flops) > 1:  # in half of the samples nothing more comes, in half every doubling brings what the last one brought
        a_doubling = np.maximum(means[:, -1] - means[:, -2], 0.0) / np.log2(flops[-1] / flops[-2])
        more = np.random.default_rng(1).random(len(samples)) < 0.5
        samples = samples + more * a_doubling * max(0.0, np.log2(full / flops[-1]))
    samples = np.clip(samples, 0.0, ceiling)
    return Interval.of(float(centre[-1]), samples), samples, False
