"""`headstart sample RUN`: completions, filled masks, suspicions."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from headstart.core.bounds import refuse_outside
from headstart.core.run import read_run
from headstart.verbs._look_settings import SAMPLE

HELP = "see what a run has learned: completions of a causal model, filled masks of a masked one"
EXAMPLE = 'headstart sample runs/causal-lm-tiny-0 --text "Returns the"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--text", action="append", default=[], help="your own beginning, or a text with [MASK]; may be repeated")
    parser.add_argument("--count", type=int, default=4, help="held-out rows to show when no text is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    refuse_outside(vars(args), SAMPLE)
    read_run(Path(args.run))  # a wrong folder is refused before torch is imported
    from headstart.verbs.sample import sample

    lines = sample(args.run, args.text, count=args.count, seed=args.seed)
    print(json.dumps(lines) if args.json else "\n\n".join(lines))
    return 0
