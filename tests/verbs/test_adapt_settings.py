"""`adapt` never writes over the objects of another search: each was a call."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from headstart.core.errors import UsageError
from headstart.verbs._adapt_settings import AdaptSettings, asked, check


def test_a_folder_with_the_objects_of_another_search_is_refused(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    run.mkdir()
    out.mkdir()
    (tmp_path / "score.py").write_text("")

    def settings(**other: Any) -> AdaptSettings:
        return AdaptSettings(**{"reward": f"{tmp_path / 'score.py'}:score", "out": out, **other})

    written = {"environment": {}, **asked(run, settings()), **asdict(settings().adapter)}
    (out / "adapter.json").write_text(json.dumps(written))
    check(run, settings(best=3))
    for other, says in (
        ({"reward": f"{tmp_path / 'score.py'}:other"}, "reward: .*score' -> .*other'"),
        ({"calls": 9}, "calls: 2000 -> 9"),
        ({"seed": 1}, "seed: 0 -> 1"),
    ):
        with pytest.raises(UsageError, match=f"holds the objects of another search .{says}"):
            check(run, settings(**other))
    del written["calls"], written["run"]
    (out / "adapter.json").write_text(json.dumps(written))
    check(run, settings(calls=9))
