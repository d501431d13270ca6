"""docs/quick-start.md: what its commands printed when `python -m tools.record_docs` last ran them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tools.pages.results import ROOT

RECORD = ROOT / "docs" / "recorded" / "quick-start.json"
LONG = 24  # lines; of a longer output the middle is left out, and the page says so


def quick_start() -> dict[str, Any]:
    return dict(json.loads(RECORD.read_text(encoding="utf-8")))


def step(verb: str) -> Callable[[], str]:
    """The block of the first recorded command that begins with `headstart VERB`: the command, and what it printed."""

    def block() -> str:
        entry = next(step for step in quick_start()["steps"] if step["command"].startswith(f"headstart {verb}"))
        return f"```bash\n{entry['command']}\n```\n\n```text\n" + "\n".join(shortened(entry["lines"])) + "\n```"

    return block


def shortened(lines: list[str]) -> list[str]:
    """The beginning and the end of a long output; a few lines more stay whole."""
    if len(lines) <= 1.25 * LONG:
        return lines
    head, tail = LONG * 2 // 3, LONG // 3
    return [*lines[:head], f"    (... {len(lines) - head - tail} lines ...)", *lines[-tail:]]


def setting_block() -> str:
    """On what the recorded commands ran."""
    record = quick_start()
    data, hardware = record["data"], record["hardware"]
    seconds = sum(entry["wall_s"] for entry in record["steps"])
    return (
        f"What is shown on this page was printed on {hardware['cpu']}, {hardware['cores']} cores, {record['date'][:10]}. There `my/texts` held"
        f" {data['documents']:,} {data['name']}; {data['train']} labelled sentences to train on, {data['test']:,} to test on."
        f" All of its commands took {seconds / 60:.0f} minutes together."
    )
