"""`headstart report [RUNS]`: one HTML page of runs, claims, comparisons and advice; `--serve` refreshes it while runs go on."""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.core.bounds import Bounds, refuse_outside
from headstart.core.errors import UsageError

HELP = "one self-contained HTML page: what helped, how much, at what cost; curves, samples, claims, comparisons, advice"
EXAMPLE = "headstart report runs --out report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("places", nargs="*", type=Path, metavar="RUN", help="runs, folders of runs, result files; none: runs/ and claims/results")
    parser.add_argument("--out", type=Path, help="the page (default: report.html)")
    parser.add_argument("--serve", action="store_true", help="show it at http://127.0.0.1:PORT, refreshed while runs go on, instead of writing it")
    parser.add_argument("--port", type=int, help="for --serve; 0 takes a free one (default: 8710)")


def run(args: argparse.Namespace) -> int:
    if args.port is not None and not args.serve:
        raise UsageError("--port is for --serve.", "Add --serve, or leave out --port.")
    refuse_outside({"port": args.port}, {"port": Bounds(0, 65535, "Give a port from 0 to 65535; 0 takes a free one.")})
    if args.serve:
        if args.out is not None:
            raise UsageError("--serve writes no file.", "Leave out --out, or leave out --serve.")
        from headstart.report.serve import serve

        serve(args.places, **({} if args.port is None else {"port": args.port}))
        return 0
    from headstart.report import report

    page = report(args.places, out=args.out or Path("report.html"))
    print(f"{page}: {page.stat().st_size / 1000:,.0f} kB. Open it in a browser; it needs no network.")
    return 0
