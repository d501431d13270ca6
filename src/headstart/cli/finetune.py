"""`headstart finetune TASK --init RUN --train F --test F`: always beside the same network from random initialisation."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from headstart.cli import _flags

HELP = "train a downstream task from a run, an export or a transformers folder, beside a random start"
EXAMPLE = "headstart finetune classification --init runs/causal-lm-tiny-0 --train train.jsonl --test test.jsonl --seeds 5"


@dataclass
class Arguments:
    """What the command line said."""

    task: str
    settings: Any
    given: list[str]


def parse(argv: list[str]) -> Arguments:
    """TASK, then flags."""
    if not argv or argv[0].startswith("-"):
        print(f"usage: headstart finetune TASK --init FOLDER --train FILE --test FILE [...]\n\n{HELP}")
        from headstart.verbs._finetune_settings import TASKS

        print(f"\ntasks: {', '.join(TASKS)}   (headstart finetune TASK --help lists the flags)\n")
        print(f"example: {EXAMPLE}")
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    from headstart.verbs._finetune_settings import check_task, settings_of

    task, flags = check_task(argv[0]), argv[1:]
    settings = _flags.from_dataclass(settings_of(task)(), flags, f"headstart finetune {task}", f"{HELP}.\nexample: {EXAMPLE}")
    return Arguments(task, settings, _flags.named(flags))


def continues(args: Arguments) -> bool:
    """Without a folder nothing is kept."""
    return args.settings.out is not None


def run(args: Arguments) -> int:
    from headstart.verbs._finetune_settings import check

    settings = args.settings
    check(settings)  # before torch is imported
    from headstart.verbs.finetune import finetune_with

    say = lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True)  # noqa: E731
    result = finetune_with(args.task, settings, given=args.given, say=say)
    if settings.json:
        print(json.dumps(result.to_json(), indent=1))
    return 0
