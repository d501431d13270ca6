"""Settings of a measurement on frozen features. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.core.bounds import COUNT, COUNT_FROM_0, refuse_outside

BOUNDS = {"neighbours": COUNT, "random_starts": COUNT_FROM_0, "max_length": COUNT, "bands": COUNT}


@dataclass
class FrozenConfig:
    """What is measured of a network that stays as it is."""

    pooling: Literal["mean", "cls", "last"] = "mean"
    """Vector of a record: mean over its positions or patches; cls, the first position; last position (texts)."""
    neighbours: int = 20
    """Training records that vote for a test record's class."""
    random_starts: int = 3
    """Networks of the same shape from random initialisation beside each; 0: none. Three or more give an interval."""
    max_length: int | None = None
    """Pieces of a text; None: 128, and never more than the network has positions."""
    text_field: str = "text"
    """Field with the text."""
    second_field: str | None = None
    """Field with the second text of a pair."""
    label_field: str = "label"
    """Field with the class."""
    bands: tuple[int, ...] = ()
    """Which bands of images with many are the network's channels, counted from 1. Empty: those that its run chose, else all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU."""
    device: str = "auto"
    """auto: a GPU if there is one."""

    def check(self) -> None:
        """Refuses the first number that cannot be.

        Raises:
            UsageError: by its flag.
        """
        refuse_outside(self, BOUNDS)
