"""`headstart claim SLUG --preset cpu`: a paper's central statement, tested at equal counted training FLOPs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from headstart.claims import CLAIM, checked_claim, checked_preset, claim_names, refuse_no_seeds
from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.core.places import refuse_folder

HELP = "test a paper's central claim: its arms at equal training FLOPs, several seeds, a verdict; the same command continues"
EXAMPLE = "headstart claim electra --preset smoke"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slug", nargs="?", metavar="SLUG", help="the method whose claim it is, as in headstart list")
    parser.add_argument("--all", action="store_true", help="every claim, one after another")
    parser.add_argument("--preset", default="cpu", help="smoke: only that all parts work; cpu, gpu: as the claim has them (default: cpu)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the claim's folder (default: runs/claims/SLUG-PRESET)")
    parser.add_argument("--only-arm", metavar="ARM", help="run this arm alone; the others can be run later, or elsewhere into a copy of the folder")
    parser.add_argument("--seeds", type=int, metavar="N", help="pre-training seeds 0 to N-1 (default: as the preset says)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where a whole result goes (default: claims/results of the checkout)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    if (args.slug is None) != args.all:
        raise UsageError("Give one claim, or --all.", f"The claims: {', '.join(claim_names())}.")
    if args.all and args.out is not None:
        raise UsageError("--out names the folder of one claim.", "Leave it out: each claim of --all has its own under runs/claims/.")
    slugs = claim_names() if args.all else [checked_claim(args.slug)]
    preset = checked_preset(args.preset)
    refuse_no_seeds(args.seeds)
    check_device(args.device)
    refuse_folder(args.out or "runs", ours=None if args.out is None else CLAIM)
    if args.results is not None:
        refuse_folder(args.results, "--results")
    from headstart.claims._run import claim

    say = lambda line: print(line, file=sys.stderr if args.json else sys.stdout, flush=True)  # noqa: E731
    found = [
        claim(
            slug,
            preset,
            out=args.out,
            seeds=args.seeds,
            only_arm=args.only_arm,
            device=args.device,
            results=args.results,
            say=say,
        )
        for slug in slugs
    ]
    if args.json:
        print(json.dumps(found if args.all else found[0], indent=1))
    return 0
