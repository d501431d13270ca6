"""What there is to report: run folders and the JSON files that the verbs leave, below the folders that a person names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput, HeadstartError
from headstart.core.files import read_json

MAX_DEPTH = 6
MAX_FOLDERS = 20_000
MAX_RESULT_BYTES = 16 * 2**20
NOT_ENTERED = frozenset({"checkpoints", "export", "tb", "stores", "rows", "node_modules", "pictures", "__pycache__"})
RESULT_NAMES = frozenset({"comparison.json", "advice.json", "result.json", "probe.json"})


@dataclass
class Found:
    """Paths of what was found, in the order of their names."""

    runs: list[Path] = field(default_factory=list)
    claims: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    """comparison.json, advice.json, result.json and probe.json."""
    complete: bool = True
    """False when the walk stopped at its limit."""


def find(places: Sequence[str | Path] = ()) -> Found:
    """Runs, claims and results below `places`; without any: runs/ here, and the committed claims/results.

    Args:
        places: run folders, folders that hold some, or JSON files of a claim, comparison, advice, fine-tuning or probe.

    Raises:
        BadInput: a named place does not exist.
    """
    found = Found()
    if places:
        for place in map(Path, places):
            if not place.exists():
                raise BadInput("no such run, folder or file.", "Give run folders, or folders that hold some.", file=place)
            _look(place, found)
    else:
        _look(Path("runs"), found)
        here = [Path("claims/results"), Path(__file__).parents[3] / "claims/results"]
        committed = next((folder for folder in here if folder.is_dir()), None)
        if committed is not None:
            found.claims += sorted(committed.glob("*.json"))
    for name in ("runs", "claims", "results"):
        paths: list[Path] = getattr(found, name)
        setattr(found, name, list({path.resolve(): path for path in paths}.values()))  # named twice, shown once
    return found


def _look(place: Path, found: Found) -> None:
    if place.is_file():
        if place.name == "run.json":
            found.runs.append(place.parent)
        elif is_claim(place):
            found.claims.append(place)
        else:
            found.results.append(place)
        return
    top = len(place.parts)
    for seen, (parent, children, names) in enumerate(os.walk(place)):
        folder = Path(parent)
        if seen >= MAX_FOLDERS:
            found.complete = False
            return
        children[:] = sorted(name for name in children if not name.startswith(".") and name not in NOT_ENTERED)
        if len(folder.parts) - top >= MAX_DEPTH:
            children[:] = []
        if "run.json" in names:
            found.runs.append(folder)
        found.results += [folder / name for name in sorted(RESULT_NAMES.intersection(names))]
        found.claims += [folder / name for name in sorted(names) if name.endswith(".json") and folder.name == "results" and is_claim(folder / name)]


def is_claim(path: Path) -> bool:
    """Whether a JSON file is the result of a claim (the format of `claims/results`)."""
    try:
        content = read_json(path, MAX_RESULT_BYTES)
    except HeadstartError:
        return False
    return isinstance(content, dict) and {"slug", "claim", "comparisons"} <= content.keys()


def read_result(path: Path) -> dict[str, Any]:
    """The content of a result file.

    Raises:
        BadInput: it is damaged, or no JSON object.
    """
    content = read_json(path, MAX_RESULT_BYTES)
    if not isinstance(content, dict):
        raise BadInput("is not a result of ours.", "Run its command again.", file=path)
    return content
