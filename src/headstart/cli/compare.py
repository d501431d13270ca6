"""`headstart compare RUN RUN ... --labels FILE`: which is better for the task, at equal compute, and is it more than noise?"""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from typing import Any

from headstart.cli import _flags

HELP = "which of several runs is better for your task, at equal compute, and whether the difference is more than noise"
EXAMPLE = "headstart compare runs/causal-lm-tiny-0 runs/mlm-tiny-0 --labels labels.jsonl --budget.minutes 5"


def parse(argv: list[str]) -> Any:
    """The folders come first; `--runs` says the same."""
    if not argv:
        print(f"usage: headstart compare RUN RUN ... --labels FILE [...]\n\n{HELP}\n\nexample: {EXAMPLE}")
        raise SystemExit(2)
    from headstart.verbs._compare_settings import CompareSettings

    folders = list(takewhile(lambda argument: not argument.startswith("-"), argv))
    flags = [*(["--runs", *folders] if folders else []), *argv[len(folders) :]]
    return _flags.from_dataclass(CompareSettings(), flags, "headstart compare", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.cli.pretrain import screen
    from headstart.verbs._compare_settings import check

    check(settings)  # before torch is imported
    from headstart.verbs.compare import compare_with

    with screen(sys.stderr if settings.json else sys.stdout) as (say, live):
        comparison = compare_with(settings, say=say, live=live)
    if settings.json:
        print(json.dumps(comparison.info, indent=1))
    return 0
