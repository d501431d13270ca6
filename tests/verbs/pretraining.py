"""`pretrain` with tiny settings, as the tests of the verb call it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import headstart
from headstart.verbs.pretrain import Run
from tests.running import TINY, quiet


def pretrain(slug: str, data: Any, out: Path, say: Any = quiet, **settings: Any) -> Run:
    """A run of a second, of any method on texts."""
    return headstart.pretrain(slug, data, say=say, out=out, **{**TINY, "budget.steps": 6, **settings})
