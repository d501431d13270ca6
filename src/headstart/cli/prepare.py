"""`headstart prepare METHOD --data ... --out STORE`: flags come from the settings of the method's kind of data."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from headstart.cli import _flags

HELP = "raw files to a prepared store and its training rows"
EXAMPLE = "headstart prepare causal-lm --data my/texts --out stores/mine --text.vocab-size 8192"


@dataclass
class Arguments:
    """What the command line said."""

    slug: str
    config: Any
    named: list[str]


def parse(argv: list[str]) -> Arguments:
    """METHOD, then flags: defaults < preset < flags."""
    if not argv or argv[0].startswith("-"):
        print(f"usage: headstart prepare METHOD --data FILE_OR_FOLDER ... --out STORE [...]\n\n{HELP}")
        print(f"\n`headstart prepare METHOD --help` lists the flags\n\nexample: {EXAMPLE}")
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    slug, flags = argv[0], argv[1:]
    presets = _flags.Parser(prog=f"headstart prepare {slug}", add_help=False)
    presets.add_argument("--preset", default="tiny")

    from headstart import methods
    from headstart.verbs.prepare import defaults

    chosen = defaults(methods.settings(slug), presets.parse_known_args(flags)[0].preset)
    description = f"{HELP}\nexample: {EXAMPLE}"
    return Arguments(slug, _flags.from_dataclass(chosen, flags, f"headstart prepare {slug}", description), _flags.named(flags))


def run(args: Arguments) -> int:
    from headstart.verbs.prepare import prepare_with

    def say(line: str) -> None:
        print(line, file=sys.stderr if args.config.json else sys.stdout, flush=True)

    store = prepare_with(args.slug, args.config, say, args.named)
    if args.config.json:
        print(json.dumps(store.manifest, indent=1))
    return 0
