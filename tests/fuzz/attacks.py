"""Tools of an attacker, for the tests of attacks."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault, Reading, Record
from headstart.data.text.sources import find_inputs


def edit(path: Path, **changes: Any) -> None:
    """Sets fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def link(path: Path, target: Path) -> None:
    """Moves what lies at `path` to `target`, and leaves a link."""
    shutil.move(path, target)
    path.symlink_to(target)


class Touch:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def read_all(path: Path, **settings: Any) -> list[Record | Fault]:
    """What a reader of texts finds in one file."""
    (file,) = find_inputs([path]).files
    return list(Reading(file, TextConfig(**settings)))
