"""`headstart plan dcpt ...`, `headstart plan cpt ...`: short runs before a long one, and what they say of it."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from headstart.cli import _flags
from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean

HELP = "short runs before a long one: which mixture keeps the old skills, what the long run will reach, and the command for it"
EXAMPLE = "headstart plan cpt --init runs/causal-lm-tiny-0 --general old.jsonl --domain new.jsonl --budget.minutes 60 --limit 3%"
SWEEP_EXAMPLE = (
    "headstart plan dcpt --general old.jsonl --domain new.jsonl --checkpoints runs/small runs/medium runs/large --tokens 1e6 --ratios .1,.2,.5,.8,1"
)
ABOUT = {
    "cpt": "one model and one budget: measures, tries a few mixtures in a fifth of it, and says which to take, what it costs the old skills and the"
    f" command; --run runs it.\nexample: {EXAMPLE}",
    "dcpt": f"a sweep over sizes and mixtures, and the D-CPT law that is fitted to it.\nexample: {SWEEP_EXAMPLE}",
}
LISTS = ("--ratios", "--limit")
"""Flags whose numbers may be written with commas or as per cent."""


def parse(argv: list[str]) -> Any:
    """dcpt or cpt, then flags."""
    if not argv or argv[0].startswith("-"):
        print(f"usage: headstart plan {{{','.join(ABOUT)}}} [...]\n\n{HELP}\n")
        print("\n\n".join(f"headstart plan {what}: {about}" for what, about in ABOUT.items()))
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    from headstart.verbs._plan_settings import PLANS, CptSettings, SweepSettings

    what = argv[0]
    if what not in PLANS:
        raise UsageError(f"There is no plan '{what}'.", f"{did_you_mean(what, PLANS)}The plans: {', '.join(PLANS)}.")
    default = CptSettings() if what == "cpt" else SweepSettings()
    return _flags.from_dataclass(default, numbers(argv[1:]), f"headstart plan {what}", ABOUT[what])


def numbers(argv: list[str]) -> list[str]:
    """The words with lists of numbers as tyro reads them: `.1,.2` as two words, `3%` as 0.03."""
    found: list[str] = []
    flag = ""
    for word in argv:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            found.append(flag)
            if not equals:
                continue
            word = value
        found += [_number(part) for part in word.split(",")] if flag in LISTS else [word]
    return found


def _number(word: str) -> str:
    return f"{float(word[:-1]) / 100:.12g}" if re.fullmatch(r"[\d.]+%", word) else word


def run(settings: Any) -> int:
    from headstart.verbs._plan_settings import SweepSettings, check_cpt, check_sweep

    say = lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True)  # noqa: E731
    if isinstance(settings, SweepSettings):
        check_sweep(settings)  # before torch is imported
        from headstart.verbs.plan import plan_sweep

        sweep = plan_sweep(settings, say)
        info: dict[str, Any] = {"folder": str(sweep.folder), "points": str(sweep.points), "general_loss": sweep.general_loss, "cost": sweep.cost}
        info |= {"law": sweep.law.info}
    else:
        check_cpt(settings)
        from headstart.verbs.plan_cpt import plan_cpt

        info = plan_cpt(settings, say).info
    if settings.json:
        print(json.dumps(info, indent=1))
    return 0
