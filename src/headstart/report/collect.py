"""From folders to the contents of a page, again and again: what did not change is not read again."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from headstart.report.evidence import read_evidence
from headstart.report.find import find
from headstart.report.page import Contents
from headstart.report.parts import Evidence
from headstart.report.runs import RunSection, read_section
from headstart.verbs._follow import Followed


class Collector:
    """Reads the named places.

    Args:
        places: as `find.find`.
    """

    def __init__(self, places: Sequence[str | Path] = ()) -> None:
        self.places = list(places)
        self._followed: dict[Path, Followed] = {}
        self._evidence: dict[Path, tuple[tuple[int, int], Evidence | None]] = {}

    def contents(self) -> Contents:
        """What there is now.

        Raises:
            BadInput: a named place does not exist.
        """
        found = find(self.places)
        contents = Contents(places=", ".join(map(str, self.places)) or "runs and claims/results")
        if not found.complete:
            contents.warnings.append("There are too many folders below the named ones: not all were looked at. Name fewer.")
        root = _common(found.runs)
        anchors: set[str] = set()
        contents.runs = [self._section(folder, root, anchors) for folder in found.runs]
        # What goes on comes first; those of a claim or a trial lie deeper and come after.
        contents.runs.sort(key=lambda run: (run.status != "running", run.status == "unreadable", run.name.count("/")))
        told: set[tuple[str, ...]] = set()
        for path in [*found.results, *found.claims]:
            entry = self._read(path, _anchor(f"e-{path.parent.name}-{path.stem}", anchors))
            if entry is None:
                continue
            same = (entry.kind, entry.title, entry.sentence, dict(entry.facts).get("Date", ""))  # its own folder, and the committed copy
            if entry.error or same not in told:
                contents.evidence.append(entry)
            told.add(same)
        _name_costs(contents)
        return contents

    def _section(self, folder: Path, root: Path, anchors: set[str]) -> RunSection:
        followed = self._followed.setdefault(folder, Followed(folder))
        name = folder.relative_to(root).as_posix() if folder.is_relative_to(root) and folder != root else folder.name
        return read_section(followed, name, _anchor(f"r-{name}", anchors))

    def _read(self, path: Path, anchor: str) -> Evidence | None:
        stamp = (0, 0)
        with suppress(OSError):
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
        known = self._evidence.get(path)
        if known is None or known[0] != stamp:
            known = self._evidence[path] = (stamp, read_evidence(path, anchor))
        return known[1]


def _name_costs(contents: Contents) -> None:
    """Says of findings on a network what the run that made it had cost, where that run is among those of the page."""
    runs = {run.folder.resolve(): run for run in contents.runs}
    for finding in (finding for entry in contents.evidence for finding in entry.findings if finding.model):
        model = Path(finding.model).resolve()
        if run := runs.get(model.parent if model.name == "export" else model):
            finding.flops, finding.seconds = run.flops, run.seconds


def _common(folders: Sequence[Path]) -> Path:
    """The folder that holds all runs."""
    return Path(os.path.commonpath([folder.parent for folder in folders])) if folders else Path()


def _anchor(name: str, taken: set[str]) -> str:
    """A name for a link within the page: letters, digits and single '-' ('--' divides it from its parts), different from all others."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "entry"
    anchor, number = stem, 2
    while anchor in taken:
        anchor, number = f"{stem}-{number}", number + 1
    taken.add(anchor)
    return anchor
