"""Settings of sharpness-aware minimisation. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.interventions import Settings

if TYPE_CHECKING:
    from headstart.engine.config import Settings as MethodSettings
    from headstart.engine.method import Method


@dataclass
class SamConfig:
    """The gradient of each update is taken where the loss is largest nearby (Foret et al. 2021): flat minima, for two passes an update."""

    rho: float = 0.0
    """How far away that is: the length of the step up along the gradient. 0: off. The paper: 0.05; with `adaptive` its authors take 0.5 to 2."""
    adaptive: bool = False
    """Measure the step relative to each weight's own size (ASAM, Kwon et al. 2021): then rescaling a layer changes nothing."""

    @property
    def on(self) -> bool:
        return self != SamConfig()

    def check(self) -> None:
        if not self.rho > 0:
            raise UsageError(f"--sam.rho is {self.rho}.", "Give a length above 0; the paper: 0.05, with --sam.adaptive 0.5 to 2.")


def refuse(method: MethodSettings | type[Method], config: Any) -> str | None:
    """It has sense with every method that has a gradient."""
    return None


SETTINGS = Settings(catalog.card("sam"), "sam", SamConfig, refuse, {"rho": 0.05})
