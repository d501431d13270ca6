"""The cross-domain law: one law for several domains, each known by how hard it is to learn, K = K3 = w1/k1 + w2 k2 (the one that the paper selects).

k1 is the domain's loss before training, k2 its rate of decline in a very short run; a larger K is an easier domain. A domain that was never swept is
predicted from its k1 and k2 alone, about a hundredth of the cost of a sweep. The paper shows it for one family of models and six domains; nobody has
for other languages or text of another quality.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from headstart.core.errors import BadInput, UsageError
from headstart.planning.dcpt_law.forms import CROSS_DOMAIN, Array, Cells, Law
from headstart.planning.dcpt_law.solve import Fit, fit

Number = TypeVar("Number", float, Array)

FEWEST_DOMAINS = 3
FEWEST_STEPS = 50

_STARTS: Mapping[str, tuple[float, ...]] = {
    "E": (0.4,), "A": (0.2,), "alpha": (0.1, 0.4), "B": (0.1,), "beta": (0.2, 0.5), "eta": (1.0,), "C": (0.4,), "gamma": (0.4,), "eps": (0.06,),
    "F": (0.2,), "mu": (0.5, 1.5), "w2": (0.5, 2.0),
}  # fmt: skip
"""16 starts: the terms that it shares with L3 are well determined by several sweeps, so their whole grid is not needed."""


def rate_of_decline(before: float, after: float, steps: int) -> float:
    """k2 = (L_d(0) - L_d(s)) / (s / 1000): loss per thousand steps at r_d = 1 on the smallest model, over the first 1 % of the steps.

    Raises:
        UsageError: fewer than 50 steps, of which noise would decide; or a loss that did not fall, which no K can hold.
    """
    if steps < FEWEST_STEPS:
        raise UsageError(f"k2 over {steps} steps.", f"Train at least {FEWEST_STEPS}.")
    if after >= before:
        raise UsageError(f"The domain loss did not fall in {steps} steps ({before:g} to {after:g}).", "Train longer, or with a higher rate.")
    return (before - after) / (steps / 1000)


def learnability(k1: Number, k2: Number, w2: float, w1: float = 1.0) -> Number:
    """K3 = w1/k1 + w2 k2. Its scale is free (K -> cK with F -> F c^mu changes no prediction), so the fit holds w1 at 1."""
    return w1 / k1 + w2 * k2


def beyond(law: Law, cells: Cells, k1: float, k2: float) -> list[str]:
    """The warning for a new domain that is harder or easier than all that were fitted."""
    assert cells.k1 is not None  # `law` was fitted to them
    assert cells.k2 is not None
    known = learnability(cells.k1, cells.k2, law["w2"])
    new = learnability(k1, k2, law["w2"])
    if known.min() <= new <= known.max():
        return []
    return [f"extrapolation: K = {new:.3g}, the domains that were fitted have {known.min():.3g} to {known.max():.3g}"]


def fit_domains(cells: Cells, losses: Array) -> Fit:
    """The law of all domains' points together, 12 parameters.

    Args:
        cells: with k1 and k2 of each point's domain.

    Raises:
        BadInput: fewer than three domains (pairs of k1 and k2).
    """
    if cells.k1 is None or cells.k2 is None:
        raise BadInput("The points have no k1 and k2.", "Add both columns: the domain loss before training, and its decline per 1,000 steps.")
    domains = len(np.unique(np.stack([cells.k1, cells.k2]), axis=1).T)
    if domains < FEWEST_DOMAINS:
        raise BadInput(f"The points are of {domains} domains; the cross-domain law needs {FEWEST_DOMAINS}.", "Add the sweep of another domain.")
    grid = np.array(list(itertools.product(*(_STARTS[name] for name in CROSS_DOMAIN.names))))
    grid[:, CROSS_DOMAIN.names.index("E")] *= losses.min()
    return fit(CROSS_DOMAIN, cells, losses, starts=np.log(grid))
