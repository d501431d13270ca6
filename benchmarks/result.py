"""The one form of a benchmark's result (docs: DESIGN, section 3)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from headstart.core import hardware
from headstart.core.run import now
from headstart.verbs.pretrain import versions


def origin(command: str) -> dict[str, Any]:
    """Where a result comes from: the last keys of every result."""
    return {
        "hardware": hardware.describe(),
        "versions": versions(),
        "command": command,
        "date": now(),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip(),
    }


def write_result(
    path: Path,
    *,
    name: str,
    what: str,
    ours: dict[str, Any],
    peer: dict[str, Any],
    ratio: float,
    must: float,
    command: str,
    higher_is_better: bool = True,
) -> None:
    """Write a result as JSON and print whether it is what it must be.

    Args:
        ratio: ours to the peer's.
        must: what the ratio has to reach (or stay below, if lower is better).
    """
    result = {
        "name": name,
        "what": what,
        "ours": ours,
        "peer": peer,
        "ratio": round(ratio, 3),
        "must": must,
        "higher_is_better": higher_is_better,
        **origin(command),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    reached = ratio >= must if higher_is_better else ratio <= must
    print(f"{name}: ratio {ratio:.2f}, must {'at least' if higher_is_better else 'at most'} {must}: {'reached' if reached else 'MISSED'}")
