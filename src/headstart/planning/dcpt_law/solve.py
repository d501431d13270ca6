"""The robust fit: least sum of Huber_delta(log L_hat - log L) over all points, from a grid of starts, in the logarithms of the parameters.

- **The sum, times 1e6.** With a mean of Huber values near 1e-6 an optimiser thinks that it is done at its start (marin-community/marin#749).
- **All starts at once.** Levenberg-Marquardt with Huber weights takes every start down together, as stacked matrices; L-BFGS-B (SciPy), which the
  literature uses, then goes on from the best. `plain` is the literature's way, start by start (`python -m benchmarks.law_fit` compares them).
- A start that ends with an abnormal line search is counted, not believed (scikit-learn/scikit-learn#27777).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from headstart.core.errors import UsageError
from headstart.planning.dcpt_law.forms import Array, Cells, Form, Law

Mask = NDArray[np.bool_]

DELTA = 1e-3
"""Of the Huber loss: residuals of log loss above it count linearly."""
SCALE = 1e6
LOW, HIGH = -9.0, 3.0
"""The box of every logarithm."""
ENOUGH = 1e-22
"""An objective below this is zero up to rounding."""
AGREE = 1e-3
"""Starts whose objective is within this of the best, relatively, have found the same optimum."""
ROUGH, FINE = 1e-5, 1e-10
"""A start has settled when eight steps in a row lower its objective by less than this, relatively. The valley is flat and predictions no longer move
where parameters still do: all starts go down roughly, the best few finely."""
FINALISTS = 8
MOST_STEPS = 400
CHUNK_VALUES = 1 << 17
"""Slopes that are in work at a time: larger chunks leave the cache, smaller ones pay for calls of NumPy."""

_STARTS: dict[str, tuple[float, ...]] = {
    "E": (0.5, 1.0), "A": (0.2,), "alpha": (0.1, 0.4), "B": (0.1,), "beta": (0.2, 0.5), "eta": (0.5, 1.5), "C": (0.2, 0.6), "gamma": (0.2, 0.6),
    "eps": (0.02, 0.2), "b": (0.3, 1.5), "c": (1.5, 4.0), "sigma": (0.2, 1.0), "F": (0.2,), "mu": (0.5, 1.5), "w2": (0.5, 2.0),
}  # fmt: skip
"""Where the fit starts, N and D in billions (or millions, for small models); E is a share of 0.8 times the smallest loss."""


def huber(u: ArrayLike, delta: float = DELTA) -> Array:
    """u^2 / 2 within delta, delta (|u| - delta / 2) outside."""
    size = np.abs(np.asarray(u, dtype=np.float64))
    return np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta))


@dataclass(frozen=True)
class Fit:
    """A fitted law, and how the fit went.

    Args:
        objective: the Huber **sum** over points, times 1e6.
        starts: how many there were; `agreeing`: how many of them ended at this optimum; `failed`: how often L-BFGS-B ended with an abnormal line
            search, which at the optimum itself says nothing.
        fixed: parameters that were given, not fitted.
    """

    law: Law
    objective: float
    n_points: int
    starts: int
    agreeing: int
    failed: int
    fixed: Mapping[str, float]


def start_grid(form: Form, losses: Array) -> Array:
    """Logarithms [starts, parameters]; 128 starts for L3."""
    choices = [_STARTS[name] for name in form.names]
    grid = np.array(list(itertools.product(*choices)))
    grid[:, form.names.index("E")] *= 0.8 * losses.min()
    return np.clip(np.log(grid), LOW, HIGH)


def objective(logs: Array, form: Form, cells: Cells, losses: Array) -> Array:
    """[starts]: Huber sums times 1e6 of logs [starts, parameters]."""
    residuals = np.log(form.losses(logs, cells)) - np.log(losses)
    return SCALE * huber(residuals).sum(1)


def objective_and_gradient(logs: Array, form: Form, cells: Cells, losses: Array) -> tuple[float, Array]:
    """The objective at logs [parameters], and its gradient [parameters]: sum over points of clip(u, -delta, delta) / L_hat * dL_hat."""
    predicted, slopes = form.losses_and_slopes(logs[None], cells)
    residuals = np.log(predicted[0]) - np.log(losses)
    return SCALE * float(huber(residuals).sum()), SCALE * (slopes[0] @ (np.clip(residuals, -DELTA, DELTA) / predicted[0]))


def fit(form: Form, cells: Cells, losses: Array, fixed: Mapping[str, float] | None = None, starts: Array | None = None) -> Fit:
    """The law of least objective.

    Args:
        losses: measured, [points].
        fixed: parameters that keep a given value.
        starts: logarithms [starts, parameters]; None: the grid.

    Raises:
        UsageError: `fixed` names no parameter of the form, or a value outside the box.
    """
    fixed = dict(fixed or {})
    begin = _with_fixed(form, start_grid(form, losses) if starts is None else starts, fixed)
    free = np.array([name not in fixed for name in form.names])
    ends, values = descend(begin, form, cells, losses, free=free)
    ends, finals = descend(ends[values.argsort()[:FINALISTS]], form, cells, losses, free=free, settled=FINE)
    best = int(finals.argmin())
    logs, least, failed = ends[best], float(finals[best]), False
    if least > ENOUGH:
        polished, value, failed = polish(logs, form, cells, losses, fixed)
        logs, least = (polished, value) if value <= least else (logs, least)
    agreeing = int((values <= max(least * (1 + AGREE), ENOUGH)).sum())
    return Fit(Law.of(form, _exact(form, np.exp(logs), fixed)), least, len(losses), len(begin), agreeing, int(failed), fixed)


def plain(form: Form, cells: Cells, losses: Array, fixed: Mapping[str, float] | None = None, starts: Array | None = None) -> Fit:
    """As `fit`, with L-BFGS-B from every start in turn: what `fit` is measured against."""
    fixed = dict(fixed or {})
    begin = _with_fixed(form, start_grid(form, losses) if starts is None else starts, fixed)
    ends = [polish(start, form, cells, losses, fixed) for start in begin]
    logs, least, _ = min((end for end in ends if not end[2]), key=lambda end: end[1], default=min(ends, key=lambda end: end[1]))
    agreeing = sum(value <= least * (1 + AGREE) for _, value, _ in ends)
    return Fit(Law.of(form, _exact(form, np.exp(logs), fixed)), least, len(losses), len(begin), agreeing, sum(end[2] for end in ends), fixed)


def polish(start: Array, form: Form, cells: Cells, losses: Array, fixed: Mapping[str, float]) -> tuple[Array, float, bool]:
    """(logarithms, objective, whether it gave up) of L-BFGS-B from one start."""
    bounds = [(np.log(fixed[name]),) * 2 if name in fixed else (LOW, HIGH) for name in form.names]
    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-9}
    found = minimize(objective_and_gradient, start, args=(form, cells, losses), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x, float(found.fun), found.status == 2  # 1: out of iterations, which is still an answer


def descend(
    starts: Array, form: Form, cells: Cells, losses: Array, weights: Array | None = None, free: Mask | None = None, settled: float = ROUGH
) -> tuple[Array, Array]:
    """Takes all starts down at once: (logarithms [starts, parameters], objectives [starts]).

    Huber's function lies below a parabola that touches it at the present residuals, with weights min(1, delta / |u|): each step of weighted least
    squares, damped until it helps, lowers it (iteratively reweighted least squares).

    Args:
        weights: of the points, [starts, points].
        free: bool [parameters]: which may move.
        settled: see `ROUGH`.
    """
    free = np.ones(starts.shape[1], dtype=bool) if free is None else free
    ends, values = np.empty_like(starts), np.empty(len(starts))
    chunk = max(1, CHUNK_VALUES // (starts.shape[1] * len(cells)))
    for at in range(0, len(starts), chunk):
        rows = slice(at, at + chunk)
        of_chunk = None if weights is None else weights[rows]
        ends[rows], values[rows] = _descend_chunk(starts[rows], form, cells, np.log(losses), of_chunk, free, settled)
    return ends, values


def _descend_chunk(
    starts: Array, form: Form, cells: Cells, log_losses: Array, weights: Array | None, free: Mask, settled: float
) -> tuple[Array, Array]:
    ends, values = np.array(starts), np.empty(len(starts))
    here = np.arange(len(starts))  # which start each row still in work is
    logs, damping, still = np.array(starts), np.full(len(starts), 1e-2), np.zeros(len(starts), dtype=int)
    counts = np.ones((len(starts), 1)) if weights is None else weights

    def look(at: Array) -> tuple[Array, Array, Array]:
        """(objectives, residuals, slopes of the log loss)"""
        predicted, slopes = form.losses_and_slopes(at, cells)
        residuals = np.log(predicted) - log_losses
        slopes /= predicted[:, None]
        return SCALE * (counts * huber(residuals)).sum(1), residuals, slopes

    value, residuals, slopes = look(logs)
    for _ in range(MOST_STEPS):
        weighted = slopes * (counts * np.minimum(1.0, DELTA / np.maximum(np.abs(residuals), 1e-300)))[:, None]
        curvature = weighted @ slopes.transpose(0, 2, 1)  # [starts, parameters, parameters]
        gradient = (weighted @ residuals[:, :, None])[:, :, 0]
        trial = np.clip(logs - _step(curvature, gradient, damping, _held(logs, gradient, free)), LOW, HIGH)
        trial[:, ~free] = logs[:, ~free]  # a given value may lie on the edge of the box
        new_value, new_residuals, new_slopes = look(trial)
        better = new_value < value
        still = np.where(better & (value - new_value > settled * value), 0, still + 1)
        damping = np.where(better, np.maximum(damping / 5, 1e-12), damping * 6)
        logs[better], value[better], residuals[better], slopes[better] = trial[better], new_value[better], new_residuals[better], new_slopes[better]
        done = (value < ENOUGH) | (damping > 1e12) | (still >= 8)
        if done.any():
            ends[here[done]], values[here[done]] = logs[done], value[done]
            left = ~done
            here, logs, value, residuals, slopes = here[left], logs[left], value[left], residuals[left], slopes[left]
            damping, still, counts = damping[left], still[left], counts[left]
        if not len(here):
            break
    ends[here], values[here] = logs, value
    return ends, values


def _held(logs: Array, gradient: Array, free: Mask) -> Mask:
    """bool [starts, parameters]: given ones, and those at an edge of the box that would leave it."""
    return ~free | ((logs <= LOW) & (gradient > 0)) | ((logs >= HIGH) & (gradient < 0))


def _step(curvature: Array, gradient: Array, damping: Array, held: Mask) -> Array:
    """(H + damping diag H)^-1 g with held parameters left out, [starts, parameters]."""
    places = np.arange(curvature.shape[1])
    curvature[held[:, :, None] | held[:, None, :]] = 0.0
    diagonal = curvature[:, places, places]
    floor = 1e-10 * diagonal.max(1, keepdims=True) + 1e-300  # a parameter without effect stays where it is
    curvature[:, places, places] = diagonal + damping[:, None] * np.maximum(diagonal, floor) + floor * 1e-4 + held
    return np.asarray(np.linalg.solve(curvature, np.where(held, 0.0, gradient)[:, :, None])[:, :, 0], dtype=np.float64)


def _with_fixed(form: Form, starts: Array, fixed: Mapping[str, float]) -> Array:
    """The starts with the given parameters in place; starts that differ in nothing else are one."""
    begin = np.array(starts)
    for name, value in fixed.items():
        if name not in form.names:
            raise UsageError(f"The law {form.name} has no parameter '{name}' to fix.", f"It has {', '.join(form.names)}.")
        if not np.exp(LOW) <= value <= np.exp(HIGH):
            raise UsageError(f"{name} cannot be fixed at {value:g}.", f"Give a value from {np.exp(LOW):.2g} to {np.exp(HIGH):.2g}.")
        begin[:, form.names.index(name)] = np.log(value)
    return np.unique(begin, axis=0) if fixed else begin


def _exact(form: Form, values: Array, fixed: Mapping[str, float]) -> Array:
    """The values with the given ones as given, not as exp(log)."""
    return np.array([fixed.get(name, value) for name, value in zip(form.names, values, strict=True)])
