"""`headstart profile METHOD --data ...`: the flags of `pretrain`; a few of its steps, taken apart."""

from __future__ import annotations

import dataclasses
import json

from headstart.cli import pretrain

HELP = "where the time and the memory of a step go: by phase, part, kind of work and operation"
EXAMPLE = "headstart profile electra --data my/texts --preset small --batch 16"


def parse(argv: list[str]) -> pretrain.Arguments:
    """The flags of `pretrain`."""
    return pretrain.parse(argv, "profile", HELP, EXAMPLE)


def run(args: pretrain.Arguments) -> int:
    from headstart.verbs.profile import profile

    as_json = args.config.json
    found = profile(args.slug, args.config, say=(lambda line: None) if as_json else print)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), indent=1))
    return 0
