"""What `merge` takes: the same fields in Python and on the command line. No torch here: the command line refuses at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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
