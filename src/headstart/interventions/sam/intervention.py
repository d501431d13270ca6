"""Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412), around any method.

- An update has two passes over the same rows with the same draws: the first gives the gradient g of the whole global batch, the second the gradient
  at the weights moved by rho g / ||g||, which is what the optimiser gets. Then the weights have their bits again. So micro-batches, accumulation and
  processes change nothing: there is one ascent an update (the paper's m is the global batch).
- Adaptive (ASAM, arXiv 2102.11600): the step is rho w^2 g / ||w g||, without that paper's offset for weights near 0.
- Twice the FLOPs, counted; memory for one more copy of the weights.
- `rise`, the loss at the moved weights minus that at the weights, is logged: the sharpness that it trains against.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from headstart.engine.distributed import is_cut, local
from headstart.engine.method import Method
from headstart.engine.sharpness import ascent
from headstart.interventions.base import Around
from headstart.interventions.sam.config import SamConfig


class SharpnessAware(Around):
    """A method whose gradients are taken at the worst weights nearby."""

    def __init__(self, inner: Method, config: SamConfig, seed: int) -> None:
        super().__init__(inner, config, seed)
        self.settings: SamConfig = config

    def passes(self, phase: str) -> int:
        return 2 * self.inner.passes(phase)

    def elsewhere(self, phase: str) -> AbstractContextManager[None]:
        self.inner.edit_gradients(phase)  # weights that stay zero are not moved
        return self.moved()

    @contextmanager
    @torch.no_grad()
    def moved(self) -> Iterator[None]:
        """While it lasts the weights are where the loss is largest nearby, to first order. On the device, without reading it."""
        weights = [parameter for parameter in self.inner.parameters() if parameter.grad is not None]
        step = ascent_of(weights, self.settings.rho, self.settings.adaptive)
        places = [local(weight.detach()) for weight in weights]
        before = [place.clone() for place in places]
        torch._foreach_add_(places, step)
        try:
            with torch.enable_grad():
                yield
        finally:
            torch._foreach_copy_(places, before)

    def plan_lines(self) -> list[str]:
        kind = "relative to each weight" if self.settings.adaptive else "in all weights together"
        return [*self.inner.plan_lines(), f"  sam        each gradient is taken {self.settings.rho:g} up the loss, {kind}: two passes an update"]


def ascent_of(weights: list[torch.nn.Parameter], rho: float, adaptive: bool) -> list[Tensor]:
    """The step up for weights with their gradients, of cut ones this process's parts; the norm is that of all parts."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    scaled = [weight.detach().abs() * gradient for weight, gradient in zip(weights, gradients, strict=True)] if adaptive else gradients
    norm = torch.nn.utils.get_total_norm(scaled)
    if is_cut(norm):
        norm = norm.full_tensor()
    return ascent([local(gradient) for gradient in gradients], [local(weight.detach()) for weight in weights], rho, adaptive, norm)


INTERVENTION = SharpnessAware
