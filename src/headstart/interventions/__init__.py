"""Interventions: changes that compose with any method. One package per paper, found by its folder; nothing lists them.

    interventions/SLUG/config.py         Config (default: off) and SETTINGS: no torch, so that the command line answers at once
    interventions/SLUG/intervention.py   INTERVENTION, a Method around a Method (`interventions.base.Around`)

Each has a group of settings of its own in `pretrain` (`--sparsity.level 0.75`), which Python, command line and YAML share with everything else, so
run.json records it and a continued run is checked against it. Why one contract serves both kinds: docs/decisions/0017-interventions.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from headstart.catalog import Card
from headstart.core.errors import UsageError

if TYPE_CHECKING:
    from headstart.engine.config import Settings as MethodSettings
    from headstart.engine.method import Method


class Config(Protocol):
    """What the settings of an intervention, a dataclass, can say. Its defaults are "off"."""

    @property
    def on(self) -> bool:
        """Whether the run has the intervention at all."""

    def check(self) -> None:
        """Raises UsageError for values that no run can have. Called only when it is on."""


@dataclass(frozen=True)
class Settings:
    """What can be said of an intervention without torch.

    Args:
        card: of its paper.
        group: the prefix of its flags: "sparsity" for --sparsity.level.
        Config: its settings.
        refuse: (method, whole configuration) -> the sentence why the two have no sense together, or None.
        example: settings that switch it on.
        place: "weights" for what holds weights, "training" for what stands around the loss. Of several the former lie inside, so that what is copied
            or compared outside has the held weights.
    """

    card: Card
    group: str
    Config: type
    refuse: Callable[[MethodSettings | type[Method], Any], str | None]
    example: Mapping[str, Any] = field(default_factory=dict)
    place: str = "training"

    @property
    def flags(self) -> str:
        """The example as the command line takes it."""
        group = self.group.replace("_", "-")
        return " ".join(f"--{group}.{name.replace('_', '-')} {value}" for name, value in self.example.items())


@cache
def settings() -> tuple[Settings, ...]:
    """All interventions, the innermost first."""
    found = [
        importlib.import_module(f"{__name__}.{module.name}.config").SETTINGS for module in pkgutil.iter_modules(__path__) if module.ispkg
    ]
    return tuple(sorted(found, key=lambda entry: (entry.place != "weights", entry.card.slug)))


def active(config: Any) -> list[Settings]:
    """The interventions that a configuration of `pretrain` switches on, the innermost first."""
    return [entry for entry in settings() if hasattr(config, entry.group) and getattr(config, entry.group).on]


def why_not(method: MethodSettings | type[Method], config: Any) -> list[tuple[Settings, str]]:
    """The active interventions that have no sense with this method and configuration, each with the sentence why."""
    found = [(entry, entry.refuse(method, config)) for entry in active(config)]
    return [(entry, why) for entry, why in found if why is not None]


def refuse(method: MethodSettings | type[Method], config: Any) -> None:
    """Raises UsageError for the first active intervention whose settings are wrong, or that has no sense with this method and configuration."""
    for entry in active(config):
        getattr(config, entry.group).check()
    for entry, why in why_not(method, config):
        flags = f"--{entry.group.replace('_', '-')}"
        raise UsageError(f"{method.card.slug} cannot take {flags}: {why}", "`headstart list --interventions` shows what fits.")
