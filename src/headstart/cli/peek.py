"""`headstart peek STORE`: decoded documents and training rows, or images and a contact sheet."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

HELP = "look at the documents and training rows of a prepared store, decoded, or at its images"
EXAMPLE = "headstart peek stores/mine --count 5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", help="a prepared store, or a run")
    parser.add_argument("--count", type=int, default=3, help="documents, and rows of each set of rows, or images, to show")
    parser.add_argument("--sheet", metavar="FILE.png", help="of images: write a contact sheet")
    parser.add_argument("--seed", type=int, default=0, help="which ones are drawn")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    from headstart.core.bounds import refuse_outside
    from headstart.verbs._look_settings import PEEK

    refuse_outside(vars(args), PEEK)
    from headstart.verbs.peek import lines, peek

    found = peek(args.store, count=args.count, seed=args.seed, sheet=args.sheet)
    print(json.dumps(asdict(found), indent=1) if args.json else "\n".join(lines(found)))
    return 0
