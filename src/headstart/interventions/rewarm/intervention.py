"""Re-warming around any method (Gupta et al. 2023, arXiv 2308.04014): the learning rate of a run that goes on from a finished model.

- It changes the rate and nothing else: not the network, not the loss, not the data. So a run whose peak is its floor is the constant run bit for bit.
- The rate rises linearly from near zero, as in gpt-neox, and not from the old floor; it decays by a cosine to a tenth of the peak and stays there.
- The moments of the optimiser begin anew, because most checkpoints come without them. `keep` takes those of the old run (verbs.pretrain hands them to
  the trainer).
"""

from __future__ import annotations

from headstart.core.errors import UsageError
from headstart.engine.method import Method
from headstart.interventions.base import Around
from headstart.interventions.rewarm.config import RewarmConfig
from headstart.interventions.rewarm.schedule import share


class Rewarmed(Around):
    """A method whose rate rises again and decays."""

    settings: RewarmConfig

    def __init__(self, inner: Method, config: RewarmConfig, seed: int) -> None:
        super().__init__(inner, config, seed)
        if config.warmup_start == "floor" and config.old_rate is None:
            raise UsageError("A warm-up from the floor needs the rate at which the old run ended.", "Give it as --rewarm.old-rate.")

    def learning_rate(self, step: int, total_steps: int, peak: float) -> float:
        old_share = self.settings.old_rate / peak if self.settings.old_rate and peak else 0.0
        return peak * share(step, total_steps, self.settings, old_share)


INTERVENTION = Rewarmed
