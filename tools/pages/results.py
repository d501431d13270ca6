"""Where committed results lie, and how a page names the machine that made one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def there(name: str) -> bool:
    """Whether a result was made. The others always are: they are committed."""
    return (RESULTS / f"{name}.json").exists()


def where(result: dict[str, Any]) -> str:
    """Machine, versions and date of a result."""
    hardware, versions = result["hardware"], result["versions"]
    return f"{hardware['cpu']}, {hardware['cores']} cores, torch {versions['torch']}, Python {versions['python']}, {result['date'][:10]}"


def cell(text: str) -> str:
    """Text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
