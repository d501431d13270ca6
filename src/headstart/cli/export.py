"""`headstart export RUN --to FOLDER`: the model of a run, to use and to publish."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from headstart.core.bounds import refuse_outside
from headstart.core.run import read_run
from headstart.verbs._export_settings import EXPORT, PRECISIONS, refuse_place

HELP = "the usable model of a run, or of one of its checkpoints, in a folder of its own"
EXAMPLE = "headstart export runs/causal-lm-tiny-0 --to my/model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder; it may still go on")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="a new folder for the model")
    parser.add_argument("--step", type=int, metavar="N", help="of a checkpoint (default: the end of the run, or its newest checkpoint)")
    parser.add_argument("--precision", choices=PRECISIONS, default="as-trained", help="bf16 rounds the weights: half the size")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    refuse_outside({"step": args.step}, EXPORT)
    refuse_place(args.to, "--to")
    read_run(Path(args.run))  # a wrong folder is refused before torch is imported
    from headstart.verbs.export import export

    say = lambda line: print(line, file=sys.stderr if args.json else sys.stdout)  # noqa: E731
    done = export(args.run, args.to, step=args.step, precision=args.precision, say=say)
    if args.json:
        print(json.dumps({"folder": str(done.folder), **done.info, "bytes": done.size, "changed": done.changed, "load": done.load}, indent=1))
    return 0
