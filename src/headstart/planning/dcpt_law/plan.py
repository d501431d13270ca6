"""Arithmetic of a plan. The sweep itself (short runs at several ratios) and the long run after it need re-warming and are not here."""

from __future__ import annotations

from headstart.core.errors import UsageError

MANY_EPOCHS, MOST_EPOCHS = 1.0, 4.0
"""Up to about four epochs repeats are nearly as good as new text (Muennighoff et al. 2023); beyond, D no longer says what was learnt."""


def epochs(tokens: float, ratio: float, unique_tokens: float) -> float:
    """How often the domain text is read: r D / U.

    Args:
        tokens: of the run, D. ratio: r_d. unique_tokens: of the domain, U.

    Raises:
        UsageError: above four epochs.
    """
    found = ratio * tokens / unique_tokens
    if found > MOST_EPOCHS:
        what = f"{ratio:.3g} of {tokens:,.0f} tokens read {unique_tokens:,.0f} domain tokens {found:.3g} times."
        fitting = f"At most {MOST_EPOCHS:g} epochs: r_d {MOST_EPOCHS * unique_tokens / tokens:.3g} at these tokens"
        raise UsageError(what, f"{fitting}, {MOST_EPOCHS * unique_tokens / ratio:,.0f} tokens at this r_d, or more domain text.")
    return found


def repeats(found: float) -> str | None:
    """The warning for more than one epoch."""
    return f"the domain text is read {found:.3g} times: the law was made for new text" if found > MANY_EPOCHS else None
