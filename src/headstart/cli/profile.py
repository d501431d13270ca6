"""`headstart profile METHOD --data ...`: the flags of `pretrain`; a few of its steps, taken apart."""

from __future__ import annotations

import dataclasses
import json
import os

from headstart.cli import pretrain
from headstart.core.errors import UsageError

HELP = "where the time and the memory of a step go: by phase, part, kind of work and operation"
EXAMPLE = "headstart profile electra --data my/texts --preset small --batch 16"


QUIET = {"KINETO_LOG_LEVEL": "6", "TORCH_CPP_LOG_LEVEL": "ERROR"}
"""torch reads these when it is imported: otherwise its profiler reports on standard error that it starts, stops, and found memory of before."""


def parse(argv: list[str]) -> pretrain.Arguments:
    """The flags of `pretrain`."""
    return pretrain.parse(argv, "profile", HELP, EXAMPLE)


def run(args: pretrain.Arguments) -> int:
    from headstart.verbs.config import check, long_run, refuse_absent

    config = args.config
    for flag, given in {"--dry-run": config.dry_run, "--smoke": config.smoke, "--resume never": config.resume == "never"}.items():
        if given:
            raise UsageError(f"{flag} is for a run, and profile makes none: it takes a few steps and trains nothing.", "Leave it out.")
    check(long_run(args.config))  # before torch is imported
    refuse_absent(args.config)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from headstart.verbs.profile import profile

    as_json = args.config.json
    found = profile(args.slug, args.config, say=(lambda line: None) if as_json else print)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    return 0
