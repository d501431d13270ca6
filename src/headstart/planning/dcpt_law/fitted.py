"""One loss, fitted: the law, how good and how sure it is, and what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.core.errors import BadInput
from headstart.planning.dcpt_law.answers import Ranges, doubts
from headstart.planning.dcpt_law.forms import FORMS, Array, Cells, Form, Law
from headstart.planning.dcpt_law.points import LossTable, Which, refuse_few
from headstart.planning.dcpt_law.refit import LEVEL, Quality, Rival, bootstrap, held_out, interval, quality, rivals
from headstart.planning.dcpt_law.rollout import Errors, errors
from headstart.planning.dcpt_law.solve import SCALE, Fit, fit


@dataclass(frozen=True)
class Fitted:
    """A law of the domain loss or of the general loss.

    Attributes:
        draws: laws of the bootstrap; draw i of both losses is of the same resampled runs.
        rivals: the law itself first.
        errors: what the law was seen to err by; None: nobody looked, and intervals are of the draws alone.
        unit_n, unit_d: parameters and tokens in the law's unit.
    """

    which: Which
    fit: Fit
    quality: Quality
    ranges: Ranges
    unit_n: float
    unit_d: float
    draws: tuple[Law, ...] = ()
    rivals: tuple[Rival, ...] = ()
    errors: Errors | None = None

    @property
    def law(self) -> Law:
        return self.fit.law

    def interval(self, cells: Cells, unsure: float = 0.0) -> tuple[Array, Array] | None:
        """Ends [points] of the 90 % interval of a loss that is measured there; None without a bootstrap. `unsure` as of `factors`."""
        if not self.draws:
            return None
        logs = np.stack([law.logs for law in self.draws])
        return interval(self.law.form.losses(logs, cells) * self.factors(cells, unsure))

    def factors(self, cells: Cells, unsure: float = 0.0) -> Array:
        """[draws, points]: what the losses of each draw's law are multiplied by, since a law errs beside what its points leave open.

        Args:
            unsure: a further standard deviation, in nats.
        """
        if self.errors is None:
            return np.ones((len(self.draws), len(cells)))
        return np.exp(self.errors.drawn(len(self.draws), self.which, cells, self.ranges, unsure / self.law.predict(cells)))

    def doubts(self, n: float, d: float | None, r: float) -> list[str]:
        """What to doubt of an answer there, in words; N and D in the law's unit, r of its own corpus."""
        found = [*self.ranges.beyond(n, d, r), *([] if d is None else doubts(self.law, n, d, r))]
        return found + ([] if self.errors is None else [f"the {self.which} loss: {line}" for line in self.errors.doubts(n, d, self.ranges)])

    def to_json(self) -> dict[str, Any]:
        """As it stands in law.json; the draws are in bootstrap.csv."""
        return {
            "form": self.law.form.name,
            "formula": self.law.form.formula,
            "has_n": self.law.has_n,
            "unit": {"N": self.unit_n, "D": self.unit_d},
            "parameters": dict(self.law.parameters),
            "fixed": dict(self.fit.fixed),
            "objective": {"value": self.fit.objective, "is": f"sum over points of Huber_0.001(log L_hat - log L), times {SCALE:g}"},
            "r2": self.quality.r2,
            "mean_huber": self.quality.huber,
            "mean_abs_log_error": self.quality.error,
            "n_points": self.fit.n_points,
            "ranges": self.ranges.to_json(),
            "least_d": self.law.least_d if "eta" in self.law.parameters else None,
            "starts": {"tried": self.fit.starts, "agreeing": self.fit.agreeing, "failed": self.fit.failed},
            "bootstrap": {"draws": len(self.draws), "level": LEVEL, "over": "runs"},
            "errors": None if self.errors is None else self.errors.to_json(),
            "rivals": [rival.to_json() for rival in self.rivals],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], which: Which) -> Fitted:
        """The law of a law.json, without its draws.

        Raises:
            BadInput: no law of ours.
        """
        try:
            form = FORMS[record["form"]] if record["has_n"] else FORMS[record["form"]].without_n()
            law = Law(form, {name: float(record["parameters"][name]) for name in form.names})
            found = Quality(record["r2"], record["mean_huber"], record["mean_abs_log_error"], record["n_points"])
            starts = record["starts"]
            how = (record["objective"]["value"], record["n_points"], starts["tried"], starts["agreeing"], starts["failed"], record["fixed"])
            ranges = Ranges(*(tuple(record["ranges"][name]) for name in ("n", "d", "r")))
            seen = None if record.get("errors") is None else Errors.from_json(record["errors"])  # absent in a law.json of earlier versions
            return cls(which, Fit(law, *how), found, ranges, record["unit"]["N"], record["unit"]["D"], errors=seen)
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(f"The law of the {which} loss cannot be read ({error}).", "Fit it again.") from None


def used(table: LossTable, which: Which) -> NDArray[np.bool_]:
    """Which rows a law is fitted to: of the general loss those with r_g > 0. Without general text its loss rises in D (forgetting), which L3 cannot
    say."""
    return np.ones(len(table), dtype=bool) if which == "domain" else table.r_d < 1


def fit_loss(
    table: LossTable,
    which: Which,
    form: Form,
    fixed: Mapping[str, float] | None = None,
    *,
    every_ratio: bool = False,
    draws: NDArray[np.int64] | None = None,
    compare: bool = False,
) -> Fitted:
    """Fits one loss of a table.

    Args:
        every_ratio: the general loss at r_g = 0 too.
        draws: [draws, runs], how often each run is drawn (`refit.resample`); None: no bootstrap.
        compare: with the rival forms, cross-validation of all, and the law's errors.

    Raises:
        BadInput: too few points, sizes or ratios for the form.
    """
    fixed = dict(fixed or {})
    rows = np.ones(len(table), dtype=bool) if every_ratio else used(table, which)
    points = table[rows]
    cells, losses = points.cells(which), points.losses(which)
    refuse_few(cells, form, fixed, which)
    best = fit(form, cells, losses, fixed)
    found = quality(best.law.predict(cells), losses)
    laws: tuple[Law, ...] = ()
    if draws is not None:
        _, numbers = np.unique(table.run, return_inverse=True)  # of the whole table: both losses count the same runs
        laws = tuple(bootstrap(best, cells, losses, draws[:, numbers[rows]]))
    looks = compare or draws is not None
    without = held_out(best.law, best.fixed, cells, losses, "ratios") if looks else None  # both read it: three refits
    others = tuple(rivals(best, cells, losses, without)) if compare else ()
    seen = errors(best, cells, losses, without) if looks else None
    return Fitted(which, best, found, Ranges.of(cells), points.unit_n, points.unit_d, laws, others, seen)
