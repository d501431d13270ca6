"""Settings of what happens to single layers of a network that is trained further."""

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
class LayersConfig:
    """Layers that stay as they are, and how far the others move (Guo et al. 2025). Layer 0 is at the bottom, next to the embeddings."""

    freeze_top: int = 0
    """So many layers at the top get no gradient and no decay. The paper's baseline: 5 of 24 to 26."""
    freeze_bottom: int = 0
    """The same at the bottom."""
    movement: int = 0
    """At each evaluation, how far so many layers at the bottom and at the top have moved from where they began; 0: not measured. The paper: 5. It
    keeps a copy of them."""

    @property
    def on(self) -> bool:
        return self != LayersConfig()

    def check(self) -> None:
        for name in ("freeze_top", "freeze_bottom", "movement"):
            if (count := getattr(self, name)) < 0:
                raise UsageError(f"--layers.{name.replace('_', '-')} is {count}.", "Give a number of layers.")


def refuse(method: MethodSettings | type[Method], config: Any) -> str | None:
    if method.data_group == "environment":
        return "its network has no repeated layers."
    if config.layers.movement and config.trainer.parallel == "fsdp":
        return "the weights are cut over the processes (fsdp), where no layer is whole. Measure between exports: headstart.tasks.weight_movement."
    return None


SETTINGS = Settings(catalog.card("stability_gap"), "layers", LayersConfig, refuse, {"freeze_top": 1})
