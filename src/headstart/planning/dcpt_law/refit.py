"""How sure a fitted law is: refits on resampled runs, and predictions of values that a fit has not seen.

Points of one run are correlated, so whole **runs** are drawn, never points; and what is held out is a whole size, a block of token counts or a whole
ratio, never the neighbour of a point that was fitted. Intervals are of predictions and answers: the parameters trade off against each other, and
theirs would say little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from headstart.core.progress import Reporter
from headstart.planning.dcpt_law.forms import CHINCHILLA, L1, L4, L5, Array, Cells, Form, Law
from headstart.planning.dcpt_law.solve import HIGH, LOW, Fit, descend, fit, huber, start_grid

DRAWS = 200
NEIGHBOURS = 8
SPREAD = 0.3
"""Standard deviation of the neighbourhood's starts, in the logarithms."""
SETTLED = 1e-4
"""Of a refit (`solve.ROUGH`): against refits that settle at 1e-10 the ends of intervals moved by at most 4e-4 nats, at 0.4 of the time."""
LEVEL = 0.9
"""Of all intervals."""
FOLDS = 3
FEWEST_SIZES, FEWEST_RATIOS = 3, 4
"""With fewer, alpha (eta and gamma) cannot be told from the rest."""

Over = Literal["sizes", "tokens", "ratios"]


@dataclass(frozen=True)
class Quality:
    """How well losses are predicted.

    Args:
        r2: 1 - SS_res / SS_tot on losses.
        huber: **mean** Huber value of log residuals (delta 1e-3), not times anything.
        error: mean |log L_hat - log L|.
    """

    r2: float
    huber: float
    error: float
    n: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def quality(predicted: Array, losses: Array) -> Quality:
    """Of predictions [points] beside measured losses."""
    residuals = np.log(predicted) - np.log(losses)
    r2 = 1 - ((predicted - losses) ** 2).sum() / ((losses - losses.mean()) ** 2).sum()
    return Quality(float(r2), float(huber(residuals).mean()), float(np.abs(residuals).mean()), len(losses))


def neighbourhood(law: Law, draw: int, count: int = NEIGHBOURS) -> Array:
    """Starts of a refit, logarithms [count, parameters]: around the best fit, clipped to the box; the same for the same `draw`."""
    noise = np.random.default_rng(1000 + draw).normal(0.0, SPREAD, (count, len(law.form.names)))
    return np.clip(law.logs + noise, LOW, HIGH)


def resample(n_runs: int, draws: int = DRAWS) -> NDArray[np.int64]:
    """[draws, runs]: how often each run is drawn, of as many draws as there are runs. The domain and the general law take the same."""
    drawn = [np.random.default_rng(draw).integers(n_runs, size=n_runs) for draw in range(draws)]
    return np.stack([np.bincount(runs, minlength=n_runs) for runs in drawn])


def bootstrap(best: Fit, cells: Cells, losses: Array, counts: NDArray[np.int64]) -> list[Law]:
    """A refit for each draw.

    Args:
        counts: [draws, points], how often each point's run was drawn.
    """
    laws = []
    with Reporter("bootstrap", total=len(counts), unit="refits") as progress:
        for draw, of_draw in enumerate(counts):
            drawn = of_draw > 0
            starts = neighbourhood(best.law, draw)
            laws.append(refit(best.law.form, cells[drawn], losses[drawn], best.fixed, starts, of_draw[drawn].astype(np.float64)))
            progress.advance()
    return laws


def refit(form: Form, cells: Cells, losses: Array, fixed: Mapping[str, float], starts: Array, weights: Array | None = None) -> Law:
    """The best law from these starts, settled roughly: one of many whose spread or errors count.

    Args:
        weights: of the points, [points].
    """
    free = np.array([name not in fixed for name in form.names])
    begin = np.where(free, starts, np.log([fixed.get(name, 1.0) for name in form.names]))
    of_starts = None if weights is None else np.broadcast_to(weights, (len(begin), len(weights)))
    ends, values = descend(begin, form, cells, losses, of_starts, free, SETTLED)
    return Law.of(form, np.exp(ends[values.argmin()]))


def interval(samples: Array) -> tuple[Array, Array]:
    """The ends of the interval over the first axis. Between a finite value and an infinite one lies none: then an end is a value that was drawn."""
    how = "linear" if np.isfinite(samples).all() else "nearest"
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0, method=how)  # type: ignore[call-overload]
    return low, high


def folds(values: Array, over: Over) -> list[Array]:
    """Three parts of the distinct values: blocks of token counts, since a count's neighbours are points of the same runs; every third of sizes and
    ratios, whose neighbours are other runs."""
    distinct = np.unique(values)
    return np.array_split(distinct, FOLDS) if over == "tokens" else [distinct[part::FOLDS] for part in range(FOLDS)]


def cross_validate(law: Law, fixed: Mapping[str, float], cells: Cells, losses: Array, over: Over) -> Quality | None:
    """Quality over all points, each predicted without its fold; None with fewer than three values to hold out."""
    predicted = held_out(law, fixed, cells, losses, over)
    return None if predicted is None else quality(predicted, losses)


def held_out(law: Law, fixed: Mapping[str, float], cells: Cells, losses: Array, over: Over) -> Array | None:
    """[points], each predicted by a refit without its fold. What two sizes or three ratios cannot tell keeps its value of the full fit.

    Args:
        law: fitted to all points. fixed: which of its parameters were given.
    """
    form = law.form
    values = {"sizes": cells.n, "tokens": cells.d, "ratios": cells.r}[over]
    if len(np.unique(values)) < FOLDS:
        return None
    predicted = np.empty_like(losses)
    for number, fold in enumerate(folds(values, over)):
        out = np.isin(values, fold)
        kept = {name: law[name] for name in unidentified(form, cells[~out]) if name not in fixed}
        predicted[out] = refit(form, cells[~out], losses[~out], {**fixed, **kept}, neighbourhood(law, number)).predict(cells[out])
    return predicted


def unidentified(form: Form, cells: Cells) -> list[str]:
    """The parameters that so few sizes or ratios cannot tell."""
    sizes, ratios = len(np.unique(cells.n)), len(np.unique(cells.r))
    names = [*(["A"] if sizes == 1 else []), *(["alpha"] if sizes < FEWEST_SIZES else [])]
    if ratios < FEWEST_RATIOS:
        names += ["eta", "gamma", "b", "c"]
    return [name for name in names if name in form.names]


@dataclass(frozen=True)
class Rival:
    """A way of predicting, in the table of the report.

    Args:
        parameters: how many were fitted in all.
        within: quality on the points that were fitted; None for what passes through all of them.
        held_out: quality on values held out, by what was held out; None where it says nothing about them.
    """

    name: str
    formula: str
    parameters: int
    within: Quality | None
    held_out: Mapping[Over, Quality | None]

    def to_json(self) -> dict[str, Any]:
        shown = {over: None if found is None else found.to_json() for over, found in self.held_out.items()}
        within = None if self.within is None else self.within.to_json()
        return {"name": self.name, "formula": self.formula, "parameters": self.parameters, "within": within, "held_out": shown}


def rivals(best: Fit, cells: Cells, losses: Array, without: Array | None = None) -> list[Rival]:
    """The fitted law first, then the other forms, a Chinchilla law for each ratio, and interpolation between ratios. All see the same folds.

    Args:
        without: what `held_out` of the fitted law over ratios says, where that is known already.
    """
    rows = [_of_fit(best, cells, losses, without)]
    for form in (L1, L4, L5):
        form = form if best.law.has_n else form.without_n()
        fixed = {name: value for name, value in best.fixed.items() if name in form.names}
        rows.append(_of_fit(fit(form, cells, losses, fixed), cells, losses))
    if (by_ratio := _chinchilla(best, cells, losses)) is not None:
        rows.append(by_ratio)
    return [*rows, Rival("interpolation", "straight lines in r at the same N and D", 0, None, {"ratios": interpolated(cells, losses)})]


def _of_fit(found: Fit, cells: Cells, losses: Array, without: Array | None = None) -> Rival:
    shown: dict[Over, Quality | None] = {}
    for over in get_args(Over):
        known = without if over == "ratios" else None
        shown[over] = cross_validate(found.law, found.fixed, cells, losses, over) if known is None else quality(known, losses)
    fitted = len(found.law.form.names) - len(found.fixed)
    return Rival(found.law.form.name, found.law.form.formula, fitted, quality(found.law.predict(cells), losses), shown)


def _chinchilla(best: Fit, cells: Cells, losses: Array) -> Rival | None:
    """None where a ratio has too few points for a law of its own."""
    form = CHINCHILLA if best.law.has_n else CHINCHILLA.without_n()
    fixed = {name: value for name, value in best.fixed.items() if name in form.names}
    ratios = np.unique(cells.r)
    each = [cells.r == ratio for ratio in ratios]
    if min(int(at.sum()) for at in each) < len(form.names) + 2:
        return None
    predicted = np.empty_like(losses)
    without: dict[Over, Array | None] = {"sizes": np.empty_like(losses), "tokens": np.empty_like(losses)}
    for at in each:
        law = refit(form, cells[at], losses[at], fixed, start_grid(form, losses[at]))
        predicted[at] = law.predict(cells[at])
        for over, of_all in without.items():
            of_ratio = held_out(law, fixed, cells[at], losses[at], over)
            if of_ratio is None or of_all is None:
                without[over] = None
            else:
                of_all[at] = of_ratio
    shown = {over: None if of_all is None else quality(of_all, losses) for over, of_all in without.items()}
    n_parameters = len(ratios) * (len(form.names) - len(fixed))
    return Rival(form.name, form.formula, n_parameters, quality(predicted, losses), shown)


def interpolated(cells: Cells, losses: Array) -> Quality | None:
    """Held-out ratios from straight lines through the others at the same N and D, on through the outermost two at the ends."""
    if len(np.unique(cells.r)) < FOLDS + 2:
        return None
    predicted = np.full(len(losses), np.nan)
    for fold in folds(cells.r, "ratios"):
        out = np.isin(cells.r, fold)
        for n, d in {(n, d) for n, d in zip(cells.n[out], cells.d[out], strict=True)}:
            here = (cells.n == n) & (cells.d == d)
            known = np.unique(cells.r[here & ~out])
            if len(known) < 2:
                continue
            means = np.array([losses[here & (cells.r == ratio)].mean() for ratio in known])
            wanted = cells.r[here & out]
            right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
            share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
            predicted[here & out] = means[right - 1] + share * (means[right] - means[right - 1])
    found = np.isfinite(predicted) & (predicted > 0)
    return quality(predicted[found], losses[found]) if found.all() else None
