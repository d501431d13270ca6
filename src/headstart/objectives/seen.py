"""How many patches a masked encoder sees: what of it is refused, and what is warned of. No torch: settings are checked before it is loaded."""

from __future__ import annotations

import logging

from headstart.core.errors import UsageError

logger = logging.getLogger(__name__)

FEW = 4
"""Fewer seen patches than these say next to nothing about an image."""


def kept_count(total: int, ratio: float) -> int:
    """How many of `total` stay when a share `ratio` goes: int(total * (1 - ratio)); the small number guards against rounding (10 of .9: 1, not 0)."""
    return int(total * (1 - ratio) + 1e-6)


def refuse_unseen(seen: int, total: int, ratio: float, what: str = "patches") -> None:
    """Refuses a masking that shows nothing, or all.

    Raises:
        UsageError: nothing is seen, or nothing hidden.
    """
    if not 0 < seen < total:
        raise UsageError(
            f"A mask ratio of {ratio} shows {seen} of {total} {what}.", "Choose smaller patches, larger images or another --method.mask-ratio."
        )


def warn_if_few(seen: int, total: int, what: str = "patches") -> None:
    if seen < FEW:
        logger.warning("the encoder sees %d of %d %s: it is nearly blind. Smaller patches or larger images would help", seen, total, what)
