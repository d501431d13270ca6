"""What the fitted laws answer: closed forms and bisections, so that every one is worked out anew for every draw of the bootstrap.

N and D are in the law's unit throughout. Ratios are r_d, the share of the domain, unless a name says r_g.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from headstart.core.errors import UsageError
from headstart.planning.dcpt_law.forms import Cells, Law, power

TOLERANCE = 1e-10
"""Of every bisection, in r."""
SLACK = 1e-9
"""A limit is kept up to so much of it: a loss that was typed with ten digits is not broken by the eleventh."""


def limit_of(general_loss: float, limit: float, offset: float = 0.0) -> float:
    """The general loss that a limit of, say, 0.03 allows: (1 + T) L_g0.

    Args:
        general_loss: L_g0, of the checkpoint before continued training: measured, on the same validation set as the points.
        offset: by how much annealing the learning rate lowers the loss. Points of a constant rate lie so much higher than the run that is planned.
    """
    return (1 + limit) * general_loss + offset


def trade_off(general: Law, n: float, d: float, limit: float, general_loss: float, offset: float = 0.0) -> float | None:
    """Usage 1: the largest r_d, and so the lowest domain loss, whose general loss keeps the limit. 1 if even r_d = 1 does, None if not even 0 does.

    L_g rises in r_d, so this is the root of L_g(n, d, 1 - r_d) = (1 + T) L_g0.
    """
    bound = limit_of(general_loss, limit, offset)
    excess = lambda r_d: general.loss(n, d, 1 - r_d) - bound  # noqa: E731
    if excess(0.0) > SLACK * bound:
        return None
    return 1.0 if excess(1.0) <= 0 else _bisect(excess)


def limited_text(law: Law, n: float, domain_tokens: float) -> tuple[float, float]:
    """Usage 2: (r_d, D) of least domain loss when D = domain_tokens / r_d: more general text makes a longer run of the same domain text.

    Stationary where (eta + beta) B r^(eta+beta-1) D_d^-beta = gamma C (r+eps)^(-gamma-1): the left side rises in r if eta + beta > 1, the right
    falls.
    """
    beta, eta, gamma, eps = (law[name] for name in ("beta", "eta", "gamma", "eps"))
    slope = lambda r: (eta + beta) * law["B"] * r ** (eta + beta - 1) * domain_tokens**-beta - gamma * law["C"] * (r + eps) ** (-gamma - 1)  # noqa: E731
    if eta + beta > 1:
        ratio = 1.0 if slope(1.0) <= 0 else _bisect(slope)
    else:  # the root need not be the only one: the best of a fine grid
        ratios = np.linspace(1e-4, 1, 10_000)
        ratio = float(ratios[law.predict(Cells.of(n, domain_tokens / ratios, ratios)).argmin()])
    return ratio, domain_tokens / ratio


def best_size(law: Law, budget: float, r: float, sizes: Sequence[float] = ()) -> tuple[float, float]:
    """Usage 3: (N, D) of least loss with 6 N D = budget.

    Args:
        budget: FLOPs in the product of the law's units, 1e18 for billions.
        sizes: the models that there are; none: any size.
    """
    if not law.has_n:
        raise UsageError("A law without N cannot choose a size.", "Fit runs of at least three sizes.")
    if r <= 0:
        raise UsageError("Without any of the text there is no best number of tokens of it.", "Ask at a ratio above 0.")
    if sizes:
        n = np.asarray(sizes, dtype=np.float64)
        best = float(n[law.predict(Cells.of(n, budget / 6 / n, r)).argmin()])
        return best, budget / 6 / best
    alpha, beta = law["alpha"], law["beta"]
    g = power(alpha * law["A"] / (beta * law["B"] * r ** law["eta"]), 1 / (alpha + beta))
    return g * (budget / 6) ** (beta / (alpha + beta)), (budget / 6) ** (alpha / (alpha + beta)) / g


def least_tokens(law: Law, n: float, r: float, target: float) -> float | None:
    """Usage 4: D = [B r^eta / (target - E - A N^-alpha - C (r+eps)^-gamma)]^(1/beta) at which the loss reaches the target; None if no D does."""
    if r <= 0:
        raise UsageError("Without any of the text no number of its tokens reaches a loss.", "Ask at a ratio above 0.")
    room = target - limit_of_data(law, n, r)
    if room <= 0:
        return None
    d = power(law["B"] * r ** law["eta"] / room, 1 / law["beta"])
    return d if math.isfinite(d) else None


def limit_of_data(law: Law, n: float, r: float) -> float:
    """The loss that is left with endless tokens."""
    size = law["A"] * n ** -law["alpha"] if law.has_n else 0.0
    return law["E"] + size + law["C"] * (r + law["eps"]) ** -law["gamma"]


def largest_allowed(ratios: ArrayLike, general_losses: ArrayLike, general_loss: float, limit: float) -> float | None:
    """Of measured ratios r_d the largest whose measured general loss keeps the limit: the plain grid search that the law competes with."""
    r, losses = np.asarray(ratios, dtype=np.float64), np.asarray(general_losses, dtype=np.float64)
    allowed = r[losses <= limit_of(general_loss, limit) * (1 + SLACK)]
    return float(allowed.max()) if len(allowed) else None


def _bisect(rising: Callable[[float], float]) -> float:
    """The root in [0, 1] of what is below 0 at 0 and above 0 at 1, from below: what it returns is not above 0 there."""
    low, high = 0.0, 1.0
    while high - low > TOLERANCE:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) <= 0 else (low, middle)
    return low


@dataclass(frozen=True)
class Ranges:
    """What was measured, from the smallest to the largest: N and D in the law's unit, r of the corpus whose loss it is."""

    n: tuple[float, float]
    d: tuple[float, float]
    r: tuple[float, float]

    @classmethod
    def of(cls, cells: Cells) -> Ranges:
        return cls(*((float(values.min()), float(values.max())) for values in (cells.n, cells.d, cells.r)))

    def to_json(self) -> dict[str, Any]:
        return {name: list(ends) for name, ends in asdict(self).items()}

    def beyond(self, n: float | None = None, d: float | None = None, r: float | None = None) -> list[str]:
        """A warning for each that lies outside: "extrapolation: factor 3.1 above the largest N measured"."""
        given: Iterable[tuple[str, float | None, tuple[float, float]]] = (("N", n, self.n), ("D", d, self.d), ("r", r, self.r))
        lines = []
        for name, value, (low, high) in given:
            if value is None or low * (1 - 1e-6) <= value <= high * (1 + 1e-6):
                continue
            if value > high:
                lines.append(f"extrapolation: factor {value / high:.3g} above the largest {name} measured")
            elif value > 0:
                lines.append(f"extrapolation: factor {low / value:.3g} below the smallest {name} measured")
            else:
                lines.append(f"extrapolation: {name} = 0, the smallest measured is {low:.3g}")
        return lines


def doubts(law: Law, n: float, d: float, r: float) -> list[str]:
    """Where L3 itself should not be believed: below D_min, or where it rises in r."""
    if "eta" not in law.parameters:
        return []
    if law.slope_by_ratio(n, d, r) > 0:
        return [f"the law rises in r at r = {r:.3g}: more of the text would make its loss worse, which the paper rules out"]
    if law.least_d is not None and d < law.least_d:
        return [f"D is below {law.least_d:.3g}, under which the law does not fall in r everywhere"]
    return []
