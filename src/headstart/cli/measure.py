"""`headstart measure sharpness RUN`, `headstart measure loss-exact RUN`: what the loss alone does not say of a model."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from headstart.cli import _flags

HELP = "how sharp the minimum of a model is, or how far it is from the optimum of a language with known statistics"
EXAMPLE = "headstart measure sharpness runs/mlm-tiny-0 --batches 4 --probes 100"


@dataclass
class Arguments:
    """What the command line said."""

    measure: str
    settings: Any


def parse(argv: list[str]) -> Arguments:
    """MEASURE, the model, then flags; `--target` says the same as the model."""
    from headstart.verbs._measure_settings import MEASURES, SETTINGS, check_measure

    if not argv or argv[0].startswith("-"):
        print(f"usage: headstart measure MEASURE RUN [...]\n\n{HELP}\n")
        print(f"measures: {', '.join(MEASURES)}   (headstart measure MEASURE --help lists the flags)\n\nexample: {EXAMPLE}")
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    measure, flags = check_measure(argv[0]), argv[1:]
    if flags and not flags[0].startswith("-"):
        flags = ["--target", *flags]
    settings = _flags.from_dataclass(SETTINGS[measure](), flags, f"headstart measure {measure}", f"{HELP}.\nexample: {EXAMPLE}")
    return Arguments(measure, settings)


def run(args: Arguments) -> int:
    from headstart.verbs._measure_settings import check

    check(args.settings)  # before torch is imported
    from headstart.verbs.measure import measure_with

    say = lambda line: print(line, file=sys.stderr if args.settings.json else sys.stdout, flush=True)  # noqa: E731
    found = measure_with(args.settings, say=say)
    if args.settings.json:
        print(json.dumps(found.to_json(), indent=1))
    return 130 if getattr(found, "stopped", False) else 0  # Ctrl-C: what was measured by then is printed
