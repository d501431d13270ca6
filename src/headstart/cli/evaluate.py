"""`headstart evaluate MODEL --items FILES --text FILES`: what a causal language model knows, without training."""

from __future__ import annotations

import json
import sys
from typing import Any

from headstart.cli import _flags

HELP = "zero-shot multiple choice by likelihood, and perplexity of texts a token and a byte"
EXAMPLE = "headstart evaluate runs/causal-lm-tiny-0 --items items.jsonl --text test.jsonl"


def parse(argv: list[str]) -> Any:
    """The model comes first; `--model` says the same."""
    from headstart.verbs._evaluate_settings import EvaluateSettings

    flags = argv if not argv or argv[0].startswith("-") else ["--model", *argv]
    return _flags.from_dataclass(EvaluateSettings(), flags, "headstart evaluate", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.verbs._evaluate_settings import check

    check(settings)  # before torch is imported
    from headstart.verbs.evaluate import evaluate_with

    found = evaluate_with(settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True))
    if settings.json:
        print(json.dumps(found.report, indent=1))
    return 0
