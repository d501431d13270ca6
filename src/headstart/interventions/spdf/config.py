"""Settings of sparse pre-training."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.interventions import Settings

if TYPE_CHECKING:
    from headstart.engine.config import Settings as MethodSettings
    from headstart.engine.method import Method


@dataclass
class SparsityConfig:
    """Weights that stay zero (SPDF, Thangarasa et al. 2023). Sparsity is the share of zeros, never that of what is kept."""

    level: float = 0.0
    """Share of the weights of each matrix that are held at zero; 0 is off. The paper: 0.5 and 0.75."""
    distribution: Literal["uniform", "erk"] = "uniform"
    """uniform: every matrix has this sparsity; erk: Erdos-Renyi, wide matrices more of it than narrow ones, the same in all (Evci et al. 2020)."""
    include: tuple[str, ...] = ()
    """Patterns (as of file names) of the weights that are made sparse; none: every matrix of every layer, as in the paper."""
    init: Literal["random", "magnitude", "from-weights"] = "random"
    """Which weights are kept: random ones (the paper), those of the largest starting values, or those that are not zero in the model of --init."""
    n_of_m: str | None = None
    """A pattern that hardware can skip, such as 2:4: of every 4 inputs in a row 2 are kept, drawn once. It gives the level."""
    rescale_init: bool = False
    """Enlarge the kept starting weights by 1/sqrt(1 - level), so that outputs begin as large as the dense network's. The official code does not."""
    then: tuple[float, ...] = ()
    """Levels of later phases of the run, 0 for a dense one; each begins with a fresh optimiser and its own schedule."""
    then_steps: tuple[int, ...] = ()
    """The length of each of them in steps; the first phase takes what is left of the budget."""

    @property
    def on(self) -> bool:
        return self != SparsityConfig()

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """(n, m) of `n_of_m`."""
        found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", self.n_of_m or "")
        return None if found is None else (int(found[1]), int(found[2]))

    @property
    def first_level(self) -> float:
        """The level that the run begins with."""
        return self.level if self.kept_of is None else 1 - self.kept_of[0] / self.kept_of[1]

    def check(self) -> None:
        if self.n_of_m is not None:
            if self.kept_of is None or not 0 < self.kept_of[0] < self.kept_of[1]:
                raise UsageError(f"--sparsity.n-of-m is {self.n_of_m}.", "Give how many are kept of how many in a row, for example 2:4.")
            if self.level not in (0.0, self.first_level):
                raise UsageError(f"--sparsity.level is {self.level}, but {self.n_of_m} keeps {1 - self.first_level:g}.", "Give one of the two.")
            if self.init == "from-weights" or self.distribution == "erk" or self.then:
                raise UsageError("--sparsity.n-of-m is one pattern for all matrices and for the whole run.", "Leave out init, distribution and then.")
        elif self.init == "from-weights":
            if self.level or self.distribution == "erk" or self.then:
                mend = "Leave out level, distribution and then."
                raise UsageError("--sparsity.init from-weights takes the zeros of the model, whatever they are.", mend)
        elif not 0 < self.level < 1:
            raise UsageError(f"--sparsity.level is {self.level}.", "Give the share of zeros, above 0 and below 1; the paper: 0.5 and 0.75.")
        for level in self.then:
            if not 0 <= level < 1:
                raise UsageError(f"--sparsity.then is {level}.", "Give the share of zeros, from 0 up to, but not, 1.")
        if any(self.then) and self.init == "magnitude":
            raise UsageError("--sparsity.init magnitude is by the starting weights, which a later phase no longer has.", "Take random masks.")
        if len(self.then) != len(self.then_steps) or any(steps < 1 for steps in self.then_steps):
            raise UsageError("--sparsity.then and --sparsity.then-steps do not fit.", "Give for each later level its number of steps.")


def refuse(method: MethodSettings | type[Method], config: Any) -> str | None:
    if config.optimizer.name == "muon":
        return "Muon makes the update of a whole matrix orthogonal, and that of its kept entries is no longer. Take adamw."
    if method.data_group == "environment" and not config.sparsity.include:
        return "its network has no repeated layers to make sparse; --sparsity.include names weights."
    return None


SETTINGS = Settings(catalog.card("spdf"), "sparsity", SparsityConfig, refuse, {"level": 0.75}, place="weights")
