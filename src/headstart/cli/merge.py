"""`headstart merge OLD NEW --shares 0.3 0.7`: the weighted mean of models of one descent."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from headstart.cli import _flags

HELP = "average the weights of an old model and what it became, beside or instead of replay"
EXAMPLE = "headstart merge runs/causal-lm-tiny-0 runs/continued --shares 0.3 0.7 --out runs/averaged"


@dataclass
class Arguments:
    """What the command line said."""

    models: list[Path]
    settings: Any


def parse(argv: list[str]) -> Arguments:
    """The models, then flags."""
    models = [Path(word) for word in takewhile(lambda argument: not argument.startswith("-"), argv)]
    if not models and argv[:1] not in (["-h"], ["--help"]):
        print(f"usage: headstart merge OLD NEW [...]\n\n{HELP}   (headstart merge --help lists the flags)\n\nexample: {EXAMPLE}")
        raise SystemExit(2)
    from headstart.verbs._merge_settings import MergeSettings

    settings = _flags.from_dataclass(MergeSettings(), argv[len(models) :], "headstart merge OLD NEW", f"{HELP}.\nexample: {EXAMPLE}")
    return Arguments(models, settings)


def run(args: Arguments) -> int:
    from headstart.verbs._merge_settings import check

    check(args.models, args.settings)  # before torch is imported
    from headstart.verbs.merge import merge_with

    settings = args.settings
    merged = merge_with(args.models, settings, lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True))
    if settings.json:
        print(json.dumps({"folder": str(merged.folder), **merged.info}, indent=1))
    return 0
