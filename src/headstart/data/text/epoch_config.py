"""Epochs that are drawn: settings. The flags are `--epochs.NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.core.errors import UsageError


@dataclass
class EpochsConfig:
    """Each epoch is a draw of whole documents from every part of --data, in the shares of --mix (Guo et al. 2025, strategies I and III)."""

    tokens: int | None = None
    """Tokens of an epoch, ends of text counted; the budget says how many epochs. None: no draws, every part is read whole again and again."""
    draw: Literal["dynamic", "fixed"] = "dynamic"
    """dynamic: other documents each epoch; fixed: those of the first epoch, in another order. With one part, fixed is a random subset of it."""

    @property
    def on(self) -> bool:
        return self.tokens is not None

    def check(self) -> None:
        """Raises UsageError for values that no run can have."""
        if self.tokens is not None and self.tokens < 1:
            raise UsageError(f"--epochs.tokens is {self.tokens}.", "Give at least 1 token, and no more than the budget.")
        if self.tokens is None and self.draw != EpochsConfig.draw:
            raise UsageError("--epochs.draw is given, but not how long an epoch is.", "Give --epochs.tokens.")
