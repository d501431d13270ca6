"""`headstart select --pool FILES --reference FILES --quota N`: the best part of a pool of texts. Imports no torch."""

from __future__ import annotations

import json
import sys
from typing import Any

from headstart.cli import _flags

HELP = "the part of a pool of texts that is most like a good reference, by the perplexity of an n-gram model"
EXAMPLE = "headstart select --pool pool.jsonl --reference reference.jsonl --quota 0.25 --tokenizer runs/causal-lm-tiny-0"


def parse(argv: list[str]) -> Any:
    from headstart.verbs._select_settings import SelectSettings

    return _flags.from_dataclass(SelectSettings(), argv, "headstart select", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.verbs._select_settings import check

    check(settings)  # before NumPy and pyarrow are imported
    from headstart.verbs.select import select_with

    found = select_with(settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout))
    if settings.json:
        print(json.dumps(found.report, indent=1))
    return 0
