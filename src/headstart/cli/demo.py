"""`headstart demo`: the main job from nothing, on the documentation of the packages on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "from nothing to a measured head start: two methods at equal compute against a random start, in about six minutes on 2 cores"
EXAMPLE = "headstart demo --out demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the store, the runs and result.json")
    parser.add_argument(
        "--minutes", type=float, default=1.5, help="pre-training minutes of the causal language model; mlm gets the same counted FLOPs"
    )
    parser.add_argument("--seeds", type=int, default=5, help="fine-tuning seeds")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    from headstart.core.bounds import refuse_outside
    from headstart.core.places import refuse_folder
    from headstart.verbs._look_settings import DEMO, DEMO_FOLDER

    refuse_outside(vars(args), DEMO)
    refuse_folder(args.out, ours=DEMO_FOLDER)
    from headstart.verbs.demo import demo

    result = demo(
        args.out, minutes=args.minutes, seeds=args.seeds, say=lambda line: print(line, file=sys.stderr if args.json else sys.stdout, flush=True)
    )
    if args.json:
        print(json.dumps(result, indent=1))
    return 0
