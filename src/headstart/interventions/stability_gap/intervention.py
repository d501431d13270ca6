"""Layers that stay as they are while the rest trains, and how far layers move (Guo et al. 2025, arXiv 2406.14833: `freeze_top5`, `freeze_bottom5`,
and its relative weight movement).

A frozen layer gets no gradient, so the optimiser never touches it: no update, no decay, bit for bit. The backward pass still runs through it, because
what lies below (at least the embeddings) learns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from headstart.core.errors import UsageError
from headstart.engine.method import Method, Phase
from headstart.interventions.base import INNER, Around
from headstart.interventions.stability_gap.config import LayersConfig
from headstart.interventions.stability_gap.movement import change, ends, stacks

MOVEMENT = "weight_movement"
"""What the names of its probes begin with."""


class Layers(Around):
    """A method some of whose layers are frozen or watched.

    Attributes:
        frozen: names of the inner method's parameters that never change.
        began: buffers: what the watched layers were before step 1, named as their parameters with "/" for ".".
    """

    settings: LayersConfig

    def __init__(self, inner: Method, config: LayersConfig, seed: int) -> None:
        super().__init__(inner, config, seed)
        named = dict(inner.named_parameters())
        found = stacks(named)
        if not found:
            raise UsageError(f"{inner.card.slug} has no repeated layers.", "Leave out --layers.")
        for stack, layers in found.items():
            if max(config.freeze_top, config.freeze_bottom, config.movement, config.freeze_top + config.freeze_bottom) > len(layers):
                raise UsageError(f"{stack} has {len(layers)} layers, --layers names more.", "Give smaller numbers.")
        low, high = ends(named, config.freeze_bottom, config.freeze_top)
        self.frozen = frozenset(low + high)
        self.watched = ends(named, config.movement, config.movement)
        self.began = nn.Module()
        for name in dict.fromkeys(self.watched[0] + self.watched[1]):
            self.began.register_buffer(name.replace(".", "/"), named[name].detach().clone())

    def phases(self, total_steps: int) -> list[Phase]:
        return [replace(phase, trainable=self._thawed(phase.trainable)) for phase in super().phases(total_steps)]

    def _thawed(self, wanted: Callable[[str], bool] | None) -> Callable[[str], bool]:
        assert wanted is not None  # `Around.phases` names them
        return lambda name: wanted(name) and name.removeprefix(INNER) not in self.frozen

    def probes(self) -> dict[str, Callable[[Method], float]]:
        found = super().probes()
        if not self.settings.movement:
            return found
        low, high = self.watched
        return found | {
            f"{MOVEMENT}/bottom": lambda _: change(self._pairs(low)).relative,
            f"{MOVEMENT}/top": lambda _: change(self._pairs(high)).relative,
            f"{MOVEMENT}/bottom_norm": lambda _: change(self._pairs(low)).norm,
            f"{MOVEMENT}/top_norm": lambda _: change(self._pairs(high)).norm,
        }

    def _pairs(self, names: list[str]) -> list[tuple[Tensor, Tensor]]:
        named: dict[str, Any] = dict(self.inner.named_parameters())
        return [(getattr(self.began, name.replace(".", "/")), named[name].detach()) for name in names]

    def plan_lines(self) -> list[str]:
        named = dict(self.inner.named_parameters())
        lines = super().plan_lines()
        if self.frozen:
            share = sum(named[name].numel() for name in self.frozen) / sum(parameter.numel() for parameter in named.values())
            counts = {"top": self.settings.freeze_top, "bottom": self.settings.freeze_bottom}
            which = " and ".join(f"{count} at the {end}" for end, count in counts.items() if count)
            lines.append(f"  layers     {which} stay as they are ({share:.1%} of the parameters)")
        if self.settings.movement:
            lines.append(f"  layers     the movement of {self.settings.movement} at the bottom and at the top is measured ({MOVEMENT}/...)")
        return lines


INTERVENTION = Layers
