"""The law and its rivals. A form is a sum of terms; a term knows its value and its slope by the logarithm of each of its parameters.

All parameters are positive, so everything is written in their logarithms: `logs` float64 [starts, parameters] gives losses [starts, points]. Many
sets of parameters are evaluated at once, which is what makes a fit from 128 starts a matter of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean

Array = NDArray[np.float64]
Slopes = tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Cells:
    """Where a loss is measured or predicted: float64 [points] each.

    Args:
        n: parameters of the model, in the unit of the law.
        d: tokens of continued training, repeats included, in the unit of the law.
        r: share of the corpus whose loss it is, from 0 to 1.
        k1, k2: of the domain (`domains`): its loss before training, and how fast that falls.
    """

    n: Array
    d: Array
    r: Array
    k1: Array | None = None
    k2: Array | None = None

    @classmethod
    def of(cls, n: ArrayLike, d: ArrayLike, r: ArrayLike, k1: ArrayLike | None = None, k2: ArrayLike | None = None) -> Cells:
        """Numbers or arrays, made of one length."""
        given = [np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (n, d, r, *(k for k in (k1, k2) if k is not None))]
        return cls(*(np.ascontiguousarray(values) for values in np.broadcast_arrays(*given)))

    def __len__(self) -> int:
        return len(self.n)

    def __getitem__(self, chosen: Any) -> Cells:
        return Cells(*(None if values is None else values[chosen] for values in (self.n, self.d, self.r, self.k1, self.k2)))  # type: ignore[arg-type]

    @cached_property
    def log_n(self) -> Array:
        return np.log(self.n)

    @cached_property
    def log_d(self) -> Array:
        return np.log(self.d)

    @cached_property
    def log_r(self) -> Array:
        """-inf where r is 0, so that r^eta is 0 there."""
        with np.errstate(divide="ignore"):
            return np.log(self.r)

    @cached_property
    def finite_log_r(self) -> Array:
        """0 where r is 0: r^eta has no slope in eta there."""
        return np.where(self.r > 0, self.log_r, 0.0)


def power(base: float, exponent: float) -> float:
    """base ** exponent, infinite where no float holds it: a fitted beta may be near 0, and answers have 1 / beta in the exponent."""
    with np.errstate(over="ignore", divide="ignore"):
        return float(np.float64(base) ** exponent)


@dataclass(frozen=True)
class Term:
    """One summand.

    Args:
        names: its parameters.
        evaluate: (logs [starts, k], cells) -> (value [starts, points], its slope by each logarithm).
    """

    names: tuple[str, ...]
    evaluate: Callable[[Array, Cells], tuple[Array, Slopes]]


def _level(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """E"""
    value = np.broadcast_to(np.exp(logs[:, :1]), (len(logs), len(cells)))
    return value, (value,)


def _size(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """A / N^alpha"""
    alpha = np.exp(logs[:, 1:2])
    value = np.exp(logs[:, :1] - alpha * cells.log_n)
    return value, (value, -value * alpha * cells.log_n)


def _data(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """B / D^beta"""
    beta = np.exp(logs[:, 1:2])
    value = np.exp(logs[:, :1] - beta * cells.log_d)
    return value, (value, -value * beta * cells.log_d)


def _data_by_ratio(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """B r^eta / D^beta: more of the corpus makes data count more."""
    beta, eta = np.exp(logs[:, 1:2]), np.exp(logs[:, 2:3])
    value = np.exp(logs[:, :1] - beta * cells.log_d + eta * cells.log_r)
    return value, (value, -value * beta * cells.log_d, value * eta * cells.finite_log_r)


def _ratio(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """C / (r + eps)^gamma"""
    gamma, eps = np.exp(logs[:, 1:2]), np.exp(logs[:, 2:3])
    log_shifted = np.log(cells.r + eps)
    value = np.exp(logs[:, :1] - gamma * log_shifted)
    return value, (value, -value * gamma * log_shifted, -value * gamma * eps / (cells.r + eps))


def _data_exponential(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """B b^r / D^beta"""
    beta = np.exp(logs[:, 1:2])
    value = np.exp(logs[:, :1] - beta * cells.log_d + logs[:, 2:3] * cells.r)
    return value, (value, -value * beta * cells.log_d, value * cells.r)


def _ratio_exponential(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """C / c^r"""
    value = np.exp(logs[:, :1] - logs[:, 1:2] * cells.r)
    return value, (value, -value * cells.r)


def _effective_data(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """B / (r D + (1 - r) sigma D)^beta: text of the other corpus counts sigma of one's own."""
    beta, sigma = np.exp(logs[:, 1:2]), np.exp(logs[:, 2:3])
    share = cells.r + (1 - cells.r) * sigma
    log_effective = cells.log_d + np.log(share)
    value = np.exp(logs[:, :1] - beta * log_effective)
    return value, (value, -value * beta * log_effective, -value * beta * (1 - cells.r) * sigma / share)


def _learnability(logs: Array, cells: Cells) -> tuple[Array, Slopes]:
    """F / K^mu with K = K3 = w1/k1 + w2 k2; w1 is 1, since K -> cK with F -> F c^mu changes nothing."""
    if cells.k1 is None or cells.k2 is None:
        raise UsageError("This law needs k1 and k2 of the domain.", "Give its loss before training, and the rate at which that falls.")
    mu, w2 = np.exp(logs[:, 1:2]), np.exp(logs[:, 2:3])
    k = 1 / cells.k1 + w2 * cells.k2
    value = np.exp(logs[:, :1] - mu * np.log(k))
    return value, (value, -value * mu * np.log(k), -value * mu * w2 * cells.k2 / k)


LEVEL = Term(("E",), _level)
SIZE = Term(("A", "alpha"), _size)
DATA = Term(("B", "beta"), _data)
RATIO = Term(("C", "gamma", "eps"), _ratio)


@dataclass(frozen=True)
class Form:
    """A parametric form of the loss.

    Args:
        name: as the paper calls it.
        formula: for a person.
        terms: its summands; the parameters in their order.
    """

    name: str
    formula: str
    terms: tuple[Term, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters."""
        return tuple(name for term in self.terms for name in term.names)

    def losses(self, logs: Array, cells: Cells) -> Array:
        """[starts, points] of logs [starts, parameters]."""
        return sum((value for value, _ in self._parts(logs, cells)), start=np.zeros((len(logs), len(cells))))

    def losses_and_slopes(self, logs: Array, cells: Cells) -> tuple[Array, Array]:
        """Losses [starts, points], and their slopes [starts, parameters, points] by the logarithms."""
        slopes = np.empty((len(logs), len(self.names), len(cells)))
        losses, row = np.zeros((len(logs), len(cells))), 0
        for value, of_term in self._parts(logs, cells):
            losses += value
            for slope in of_term:
                slopes[:, row] = slope
                row += 1
        return losses, slopes

    def _parts(self, logs: Array, cells: Cells) -> list[tuple[Array, Slopes]]:
        parts, start = [], 0
        for term in self.terms:
            stop = start + len(term.names)
            parts.append(term.evaluate(logs[:, start:stop], cells))
            start = stop
        return parts

    def without_n(self) -> Form:
        """For one size: E takes the place of E + A / N^alpha."""
        return Form(self.name, self.formula.replace(" + A/N^alpha", ""), tuple(term for term in self.terms if term is not SIZE))


L3 = Form("L3", "E + A/N^alpha + B r^eta/D^beta + C/(r+eps)^gamma", (LEVEL, SIZE, Term(("B", "beta", "eta"), _data_by_ratio), RATIO))
L1 = Form("L1", "E + A/N^alpha + B/D^beta + C/(r+eps)^gamma", (LEVEL, SIZE, DATA, RATIO))
L4 = Form(
    "L4", "E + A/N^alpha + B b^r/D^beta + C/c^r", (LEVEL, SIZE, Term(("B", "beta", "b"), _data_exponential), Term(("C", "c"), _ratio_exponential))
)
L5 = Form("L5", "E + A/N^alpha + B/(r D + (1-r) sigma D)^beta", (LEVEL, SIZE, Term(("B", "beta", "sigma"), _effective_data)))
CHINCHILLA = Form("chinchilla", "E + A/N^alpha + B/D^beta, one fit a ratio", (LEVEL, SIZE, DATA))
CROSS_DOMAIN = Form("L3-K3", L3.formula + " + F/K^mu, K = 1/k1 + w2 k2", (*L3.terms, Term(("F", "mu", "w2"), _learnability)))

FORMS: dict[str, Form] = {form.name: form for form in (L3, L1, L4, L5, CHINCHILLA, CROSS_DOMAIN)}
"""By name. L2 of the paper fits as well as L3 but is no Chinchilla law at fixed r; its formula is not public in full and it is left out."""


@dataclass(frozen=True)
class Law:
    """A form with its parameters.

    Args:
        parameters: name -> value, all above 0, for N and D in the law's unit.
    """

    form: Form
    parameters: Mapping[str, float]

    @classmethod
    def of(cls, form: Form, values: ArrayLike) -> Law:
        """From values in the order of `form.names`."""
        return cls(form, dict(zip(form.names, np.asarray(values, dtype=float).tolist(), strict=True)))

    @property
    def logs(self) -> Array:
        """[parameters]: logarithms."""
        return np.log([self.parameters[name] for name in self.form.names])

    def __getitem__(self, name: str) -> float:
        if name not in self.parameters:
            raise UsageError(f"The law {self.form.name} has no {name}.", f"{did_you_mean(name, self.parameters)}It has {', '.join(self.parameters)}.")
        return self.parameters[name]

    @property
    def has_n(self) -> bool:
        return "A" in self.parameters

    def predict(self, cells: Cells) -> Array:
        """[points]."""
        return self.form.losses(self.logs[None], cells)[0]

    def loss(self, n: float, d: float, r: float, k1: float | None = None, k2: float | None = None) -> float:
        """At one point, N and D in the law's unit."""
        return float(self.predict(Cells.of(n, d, r, k1, k2))[0])

    def slope_by_ratio(self, n: float, d: float, r: float) -> float:
        """dL/dr of L3: eta B r^(eta-1) D^-beta - gamma C (r+eps)^(-gamma-1). The paper wants it below 0; at r = 0 with eta < 1 it is infinite."""
        del n  # has no part in it
        beta, eta, gamma, eps = (self[name] for name in ("beta", "eta", "gamma", "eps"))
        rising = eta * self["B"] * power(r, eta - 1) * d**-beta
        return rising - gamma * self["C"] * (r + eps) ** (-gamma - 1)

    def interaction(self, d: float, r: float) -> float:
        """d2L/(dD dr) of L3, below 0: more of the corpus makes data count more."""
        return -self["beta"] * self["eta"] * self["B"] * r ** (self["eta"] - 1) * d ** (-self["beta"] - 1)

    @property
    def least_d(self) -> float | None:
        """D_min, above which L3 falls in r everywhere: [eta B (1+eps)^(gamma+1) / (gamma C)]^(1/beta). None for eta < 1: near r = 0 it then rises at
        any D."""
        if self["eta"] < 1:
            return None
        shifted = (1 + self["eps"]) ** (self["gamma"] + 1)
        return power(self["eta"] * self["B"] * shifted / (self["gamma"] * self["C"]), 1 / self["beta"])

    def at_ratio(self, r: float) -> tuple[float, float]:
        """(E', B') of the Chinchilla law E' + A/N^alpha + B'/D^beta that L3 is at a fixed r: E' = E + C/(r+eps)^gamma, B' = B r^eta."""
        return self["E"] + self["C"] * (r + self["eps"]) ** -self["gamma"], self["B"] * r ** self["eta"]
