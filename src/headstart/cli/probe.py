"""`headstart probe MODEL ... --train F --test F`: what frozen networks know, without fine-tuning."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from typing import Any

from headstart.cli import _flags

HELP = "linear probe, nearest neighbours and effective rank of frozen networks, each beside its random starts"
EXAMPLE = "headstart probe runs/causal-lm-tiny-0 runs/mlm-tiny-0 --train train.jsonl --test test.jsonl"


def parse(argv: list[str]) -> Any:
    """The models come first; `--models` says the same."""
    from headstart.verbs._probe_settings import ProbeSettings

    models = list(takewhile(lambda given: not given.startswith("-"), argv))
    flags = (["--models", *models] if models else []) + argv[len(models) :]
    return _flags.from_dataclass(ProbeSettings(), flags, "headstart probe", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.verbs._probe_settings import check

    check(settings)  # before torch is imported
    from headstart.verbs.probe import probe_with

    result = probe_with(settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True))
    if settings.json:
        print(json.dumps(result.to_json(), indent=1))
    return 0
