"""`headstart finetune TASK --init RUN --train F --test F`: always beside the same network from random initialisation."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

HELP = "train a downstream task from a run, an export or a transformers folder, beside a random start"
EXAMPLE = "headstart finetune classification --init runs/causal-lm-tiny-0 --train train.jsonl --test test.jsonl --seeds 5"


@dataclass
class Arguments:
    """What the command line said."""

    task: str
    settings: Any


def parse(argv: list[str]) -> Arguments:
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: headstart finetune TASK --init FOLDER --train FILE --test FILE [...]\n\n{HELP}")
        print("\ntasks: classification, regression, tagging, question-answering   (headstart finetune TASK --help lists the flags)\n")
        print(f"example: {EXAMPLE}")
        raise SystemExit(0 if argv else 2)
    import tyro

    from headstart.core.errors import UsageError
    from headstart.verbs.finetune import TASKS, FinetuneSettings

    task = argv[0]
    if task not in TASKS:
        raise UsageError(f"There is no task '{task}'.", f"The tasks: {', '.join(TASKS)}.")
    settings = tyro.cli(FinetuneSettings, args=argv[1:], prog=f"headstart finetune {task}", description=f"{HELP}.\nexample: {EXAMPLE}")
    return Arguments(task, settings)


def run(args: Arguments) -> int:
    from headstart.verbs.finetune import finetune_with

    settings = args.settings
    result = finetune_with(args.task, settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True))
    if settings.json:
        print(json.dumps(result.to_json(), indent=1))
    return 0

