"""`headstart embed RUN --data FOLDER`: vectors, and nearest neighbours to look at."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from headstart.core.bounds import refuse_outside
from headstart.core.device_names import check_device
from headstart.core.run import read_run
from headstart.verbs._look_settings import EMBED, vectors_folder
from headstart.verbs.config import refuse_absent_data

HELP = "vectors of your records from the backbone of a run, and the nearest neighbours of a few of them"
EXAMPLE = "headstart embed runs/mae-tiny-0 --data my/images --out vectors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--data", nargs="+", default=[], metavar="PATH", help="files, folders or globs of the kind that the run was trained on")
    parser.add_argument("--out", metavar="FOLDER", help="where the vectors go (default: runs/embeddings/NAME)")
    parser.add_argument("--text-field", metavar="NAME", help="of texts: field with the text (default: as the run's data)")
    parser.add_argument("--shown", type=int, default=8, help="records whose neighbours are shown")
    parser.add_argument("--neighbours", type=int, default=5, help="how many of each")
    parser.add_argument("--seed", type=int, default=0, help="which records are shown")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    refuse_outside(vars(args), EMBED)
    check_device(args.device)
    vectors_folder(args.run, args.data, args.out, args.text_field)
    refuse_absent_data(args.data)
    read_run(Path(args.run))  # a wrong folder is refused before torch is imported
    from headstart.verbs.embed import embed

    say = lambda line: print(line, file=sys.stderr if args.json else sys.stdout)  # noqa: E731
    settings = {name: getattr(args, name) for name in ("out", "text_field", "shown", "neighbours", "seed", "device")}
    found = embed(args.run, args.data, **settings, say=say)
    if args.json:
        shown = {found.names[index]: {found.names[other]: cosine for other, cosine in others} for index, others in found.neighbours}
        print(json.dumps({"folder": str(found.folder), "vectors": list(found.vectors.shape), "neighbours": shown}, indent=1))
    return 0
