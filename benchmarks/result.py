"""The one form of a benchmark's result (docs: DESIGN, section 3)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
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
        "commit": commit(),
    }


def commit() -> str:
    """What lies here, as git names it; empty on a machine without git: a result is worth more than its name."""
    try:
        return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


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
    aim: float | None = None,
    **more: Any,
) -> None:
    """Write a result as JSON and print whether it is what it must be.

    Args:
        ratio: ours to the peer's.
        must: what the ratio has to reach (or stay below, if lower is better); aim: what it should.
        more: further figures, as they are.
    """
    result = {
        "name": name,
        "what": what,
        "ours": ours,
        "peer": peer,
        "ratio": round(ratio, 3),
        "must": must,
        **({} if aim is None else {"aim": aim}),
        "higher_is_better": higher_is_better,
        **more,
        **origin(command),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {result['ratio']:g}, must {'at least' if higher_is_better else 'at most'} {must}: {verdict(result)}")


def verdict(result: Mapping[str, Any]) -> str:
    """"missed", "reached", or "aim reached"; of the ratio as it is written down."""

    def good(wanted: float) -> bool:
        return bool(result["ratio"] >= wanted if result["higher_is_better"] else result["ratio"] <= wanted)

    if not good(result["must"]):
        return "missed"
    return "aim reached" if "aim" in result and good(result["aim"]) else "reached"
