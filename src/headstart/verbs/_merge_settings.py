"""What `merge` takes: the same fields in Python and on the command line. No torch here: the command line refuses at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import UsageError
from headstart.core.places import refuse_folder
from headstart.core.words import plural
from headstart.verbs.config import refuse_no_folder


@dataclass
class MergeSettings:
    """Several models of one descent, averaged into one."""

    shares: tuple[float, ...] = ()
    """One share for each model, in their order, with a sum of 1; none: equal ones. `--shares 0.3 0.7` keeps 0.3 of the first."""
    out: Path | None = None
    """The folder of the result; None: runs/merged/NAME, NAME being those of the models."""
    json: bool = False
    """Print the result as JSON."""
    debug: bool = False
    """Show tracebacks."""


def check(models: Sequence[Path], settings: MergeSettings) -> None:
    """Refuses, before torch is imported, what cannot be.

    Raises:
        UsageError: the shares, a model that is no folder, or a place for the result that is taken or cannot be written.
    """
    checked_shares(settings.shares, len(models))
    for model in models:
        refuse_no_folder(model)
    out = merged_folder(models, settings)
    if out.exists():
        raise UsageError(f"{out} is there already.", "Give another --out.")
    refuse_folder(out)


def merged_folder(models: Sequence[Path], settings: MergeSettings) -> Path:
    """Where the result goes."""
    return settings.out or Path("runs") / "merged" / "-".join(dict.fromkeys(model.absolute().name for model in models))


def checked_shares(shares: Sequence[float], n_models: int) -> list[float]:
    """One share for each model, with a sum of 1; none given: equal ones.

    Raises:
        UsageError: fewer than two models, another number of shares, a share outside [0, 1], or a sum that is not 1.
    """
    if n_models < 2:
        raise UsageError(f"{plural(n_models, 'model')} cannot be averaged.", "Give two or more: the old one and what it became.")
    if not shares:
        return [1 / n_models] * n_models
    if len(shares) != n_models:
        raise UsageError(f"{plural(len(shares), 'share')} for {n_models} models.", "Give one share for each model, in their order.")
    for share in shares:
        if not 0 <= share <= 1:
            raise UsageError(f"--shares holds {share:g}.", "A share is from 0 to 1.")
    if not math.isclose(total := math.fsum(shares), 1.0, abs_tol=1e-6):
        raise UsageError(f"The shares sum to {total:g}, not to 1.", "Give shares that sum to 1: --shares 0.3 0.7.")
    return [float(share) for share in shares]
