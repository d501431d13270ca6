"""`headstart advise --data FOLDER --labels FILE --budget.minutes M`: which pre-training helps here, how much, at what cost."""

from __future__ import annotations

import json
import sys
from typing import Any

from headstart.cli import _flags

HELP = "which pre-training helps on your data, how much, at what cost; ends with the command to run"
EXAMPLE = "headstart advise --data my/texts --labels labels.jsonl --budget.minutes 10"


def parse(argv: list[str]) -> Any:
    from headstart.verbs._advise_settings import AdviseSettings

    return _flags.from_dataclass(AdviseSettings(), argv, "headstart advise", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.cli.pretrain import screen
    from headstart.verbs._advise_settings import checked
    from headstart.verbs.config import refuse_absent_data

    if not (checked(settings) / "advice.json").exists():
        refuse_absent_data(settings.data)  # before torch is imported
    from headstart.verbs.advise import advise_with

    with screen(sys.stderr if settings.json else sys.stdout) as (say, live):
        advice = advise_with(settings, say=say, live=live)
    if settings.json:
        print(json.dumps(advice.info, indent=1))
    return 0
