"""`headstart fit dcpt-law POINTS ...`: a law from losses of short runs, and what it answers. Imports no torch."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from typing import Any

from headstart.cli import _flags

HELP = "a scaling law from losses of short runs: which mixture, which size, how many tokens, with intervals"
EXAMPLE = "headstart fit dcpt-law losses.csv --limit 0.03 --general-loss 2.86 --at-n 1.8e9 --at-d 1e10"


def parse(argv: list[str]) -> Any:
    """The law and the files come first; `--law` and `--points` say the same."""
    if not argv:
        print(f"usage: headstart fit LAW POINTS ... [...]\n\n{HELP}\n\nexample: {EXAMPLE}")
        raise SystemExit(2)
    from headstart.verbs._fit_settings import FitSettings

    words = list(takewhile(lambda argument: not argument.startswith("-"), argv))
    flags = [*(["--law", words[0]] if words else []), *(["--points", *words[1:]] if words[1:] else []), *argv[len(words) :]]
    return _flags.from_dataclass(FitSettings(), flags, "headstart fit", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.verbs._fit_settings import check

    check(settings)  # before NumPy and SciPy are imported
    from headstart.verbs.fit import fit_with

    law = fit_with(settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout))
    if settings.json:
        print(json.dumps(law.info, indent=1))
    return 0
