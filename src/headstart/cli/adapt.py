"""`headstart adapt RUN --reward REWARD`: a pre-trained sampler of objects, adapted to one reward, beside one from scratch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.cli import _flags

HELP = "adapt a pre-trained sampler of objects to a reward, beside one from scratch"
EXAMPLE = "headstart adapt runs/oc_gfn-tiny-0 --reward score.py:score --calls 2000"


@dataclass
class Arguments:
    """What the command line said."""

    run: Path
    settings: Any


def parse(argv: list[str]) -> Arguments:
    """RUN, then flags."""
    if not argv or argv[0].startswith("-"):
        print(f"usage: headstart adapt RUN --reward REWARD [...]\n\n{HELP}   (headstart adapt RUN --help lists the flags)\n\nexample: {EXAMPLE}")
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    from headstart.verbs._adapt_settings import AdaptSettings

    settings = _flags.from_dataclass(AdaptSettings(), argv[1:], "headstart adapt RUN", f"{HELP}.\nexample: {EXAMPLE}")
    return Arguments(Path(argv[0]), settings)


def run(args: Arguments) -> int:
    from headstart.verbs._adapt_settings import check

    settings = args.settings
    check(args.run, settings)  # before torch is imported
    from headstart.verbs.adapt import adapt_with

    say = lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True)  # noqa: E731
    result = adapt_with(args.run, settings, say)
    if settings.json:
        print(json.dumps(result, indent=1))
    return 0
