"""`headstart watch RUN`: a run as it goes on, in the terminal."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HELP = "a run as it goes on: losses and probes, the plateau line, speed, time left, samples; ends with its verdict. Ctrl-C leaves the run alone"
EXAMPLE = "headstart watch runs/causal-lm-tiny-0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run folder, of a run that goes on or is finished")
    parser.add_argument("--wait", action="store_true", help="wait for a run that does not exist yet")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view (always so where the output is no terminal)")
    parser.add_argument("--json", action="store_true", help="only run.json, when the run has ended")


def run(args: argparse.Namespace) -> int:
    from headstart.verbs.watch import watch

    try:
        if args.json:
            import contextlib
            import sys

            with contextlib.redirect_stdout(sys.stderr):
                info = watch(args.run, wait=args.wait, plain=True)
            print(json.dumps(info))
        else:
            watch(args.run, wait=args.wait, plain=True if args.plain else None)
    except KeyboardInterrupt:
        print("\nNot watching any more; the run goes on.")
        return 130
    return 0
