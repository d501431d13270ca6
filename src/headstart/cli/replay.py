"""`headstart replay RUN --step N`: one step once more, every module watched."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from headstart.core.bounds import refuse_outside
from headstart.core.device_names import check_device
from headstart.core.run import read_run
from headstart.verbs._look_settings import REPLAY

HELP = "repeat one step of a run with every module watched: who made the NaN?"
EXAMPLE = "headstart replay runs/causal-lm-tiny-0 --step 1240"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder; it is only read")
    parser.add_argument("--step", type=int, required=True, help="the step, as metrics.jsonl counts")
    parser.add_argument("--device", help="auto, cpu or cuda; by default as the run was told")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    refuse_outside(vars(args), REPLAY)
    check_device(args.device)
    read_run(Path(args.run))  # a wrong folder is refused before torch is imported
    from headstart.verbs.replay import replay

    found = replay(args.run, args.step, device=args.device, say=(lambda line: None) if args.json else print)
    if args.json:
        print(json.dumps({name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in asdict(found).items()}))
    return 0
