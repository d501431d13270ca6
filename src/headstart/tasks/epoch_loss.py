"""The loss of a fine-tuning as a person follows it: its mean over the running epoch, a line now and then, and an end that is no number."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from headstart.core.errors import Diverged

SAY_EVERY_S = 10.0


class EpochLoss:
    """The mean training loss of the epoch that runs. It stays on the device: the host waits for it only where a line is said, and at the end.

    Args:
        total: steps of the training.
        learning_rate: the peak, for the message of a training that diverged.
    """

    def __init__(self, total: int, learning_rate: float, device: torch.device, say: Callable[[str], None]) -> None:
        self.total, self.learning_rate, self.say = total, learning_rate, say
        self.sum, self.seen = torch.zeros((), device=device), 0
        self.said = time.monotonic()

    def begin_epoch(self) -> None:
        """What came before counts no more."""
        self.sum, self.seen = torch.zeros_like(self.sum), 0

    def add(self, loss: Tensor) -> None:
        """A loss summed over some of the step's examples (or over other things that `end_step` counts)."""
        self.sum += loss.detach()

    def end_step(self, step: int, count: int = 1) -> None:
        """After the update of step `step` (from 0), over `count` examples."""
        self.seen += count
        if time.monotonic() - self.said > SAY_EVERY_S:
            self.said = time.monotonic()
            self.say(f"step {step + 1} of {self.total}, loss {self.sum.item() / self.seen:.4f}")

    def mean(self) -> float:
        """The mean over the last epoch.

        Raises:
            Diverged: it is no finite number.
        """
        mean = self.sum.item() / self.seen
        if not math.isfinite(mean):
            what = f"The loss of fine-tuning is {mean} at learning rate {self.learning_rate:g}."
            raise Diverged(what, "Use a lower learning rate or precision fp32.")
        return mean
