"""Several runs in the processes that torchrun started: `torchrun --nproc_per_node 2 -m tests.distributed.runs PLAN.json`.

The plan is a list of {"slug", "data", "out", settings ...}. One start of the processes serves them all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from headstart.verbs.pretrain import pretrain


def main(plan: Path) -> None:
    for run in json.loads(plan.read_text()):
        slug, data, out = run.pop("slug"), run.pop("data"), run.pop("out")
        pretrain(slug, data, out=Path(out), **run)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
