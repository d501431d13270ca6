"""The finished trainings of a fine-tuning, kept beside its result: after a kill the same command trains only those that are missing.

    OUT/settings.json      what decides a training: written with the first, so that what is refused before leaves nothing
    OUT/trainings.jsonl    what each found, as it ends; more seeds are added to them

No weights are kept: the model that goes into OUT/model is trained again where it was lost, which gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.files import write_json
from headstart.core.journal import Known
from headstart.core.places import SETTINGS
from headstart.tasks.metrics import Records
from headstart.tasks.result import MODEL, SeedRun

TRAININGS = "trainings.jsonl"
_IN_ORDER = ("metrics", "dev_metrics")
"""As pairs: a journal sorts what has names."""


class Kept:
    """The finished trainings of one folder.

    Args:
        out: where the result goes; whoever makes this has refused a folder of other settings.
        asked: what decides a training.
    """

    def __init__(self, out: Path, asked: Mapping[str, Any]) -> None:
        self.out, self.asked = out, asked
        self.known = Known(out / TRAININGS)

    def get(self, arm: str, seed: int, rate: float, train: Callable[[], SeedRun]) -> tuple[SeedRun, bool]:
        """(what the training found, whether it was known)."""
        key = f"{arm}, seed {seed}, learning rate {rate!r}"
        if key in self.known.found:
            return _from_json(self.known.found[key]), True
        run = train()
        if not (self.out / SETTINGS).is_file():
            write_json(self.out / SETTINGS, dict(self.asked))
        self.known.get(key, lambda: _to_json(run))
        return run, False

    def has_model(self) -> bool:
        """Whether the model of these trainings is in its place."""
        return (self.out / MODEL).is_dir()


def _to_json(run: SeedRun) -> dict[str, Any]:
    found = asdict(replace(run, records=None))
    found |= {name: None if found[name] is None else [*found[name].items()] for name in _IN_ORDER}
    if run.records is not None:
        found["records"] = {"values": run.records.values.tolist(), "count": run.records.count, "shares": run.records.shares}
    return found


def _from_json(line: Mapping[str, Any]) -> SeedRun:
    found = {name: value for name, value in line.items() if name != "key"}
    found |= {name: None if found[name] is None else dict(found[name]) for name in _IN_ORDER}
    if (records := found.get("records")) is not None:
        found["records"] = Records(np.asarray(records["values"], dtype=np.float64), int(records["count"]), bool(records["shares"]))
    return SeedRun(**found)
