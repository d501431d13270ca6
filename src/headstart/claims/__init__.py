"""Claims: a paper's central statement as arms, data and metric, tested at equal counted training FLOPs.

One file a paper, `claims/SLUG.py`, holds a `CLAIM`; running, statistics, results and figures are shared and lie in the modules with an underscore
(docs/claims.md). This package imports no torch, so that `headstart list` and `headstart show` can read results at once.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from headstart.core.errors import UsageError
from headstart.core.places import Folder
from headstart.core.words import did_you_mean

if TYPE_CHECKING:
    from headstart.claims._claim import Claim


CLAIM = Folder("measured.json", ("slug", "identity"), ("data",))
"""What the folder of a claim holds."""
PRESETS = ("smoke", "cpu", "gpu")
"""Of every claim; a claim may lack the last."""


def claim_names() -> list[str]:
    """The slugs that have a claim, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def checked_claim(slug: str) -> str:
    """The slug itself, if it has a claim.

    Raises:
        UsageError: it has none.
    """
    if slug not in claim_names():
        if of_method := [name for name in claim_names() if name.startswith(f"{slug}_")]:
            raise UsageError(f"{slug} has several claims.", f"Give one of them: {', '.join(of_method)}.")
        raise UsageError(f"There is no claim '{slug}'.", f"{did_you_mean(slug, claim_names())}The claims: {', '.join(claim_names())}.")
    return slug


def checked_preset(preset: str) -> str:
    """The preset itself, if claims have such a one.

    Raises:
        UsageError: they have not.
    """
    if preset not in PRESETS:
        raise UsageError(f"There is no preset '{preset}'.", f"{did_you_mean(preset, PRESETS)}The presets of a claim: {', '.join(PRESETS)}.")
    return preset


def refuse_no_seeds(seeds: int | None) -> None:
    """Raises UsageError for a number of seeds below 1; None is that of the preset."""
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds is {seeds}.", "Give at least 1.")


def load_claim(slug: str) -> Claim:
    """The claim of a method; imports its file. Raises UsageError as `checked_claim`."""
    claim: Claim = importlib.import_module(f"headstart.claims.{checked_claim(slug)}").CLAIM
    return claim
