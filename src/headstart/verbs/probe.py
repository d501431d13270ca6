"""`probe`: what runs, exports or models from elsewhere know of labelled records before any fine-tuning, each beside its random starts.

    OUT/probe.json       on request: every figure
    OUT/settings.json    models and files; a probe of others does not replace it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart.core.config import replace_nested, several
from headstart.core.errors import UsageError
from headstart.core.files import locked, write_json
from headstart.core.places import SETTINGS, refuse_other_settings
from headstart.core.terminal import printable
from headstart.engine.device import resolve_device
from headstart.interop.vit import is_vision
from headstart.tasks.frozen import FrozenResult, probe_images, probe_texts
from headstart.verbs._probe_settings import ProbeSettings, asked, check
from headstart.verbs.finetune import backbone_folder

__all__ = ["ProbeSettings", "probe", "probe_with"]


def probe(
    models: str | Path | Sequence[str | Path], train: str | Path, test: str | Path, *, say: Callable[[str], None] = print, **settings: Any
) -> FrozenResult:
    """Measures frozen networks on labelled records.

    Args:
        models: runs, exports or transformers folders; of images also checkpoint files. One, or several side by side.
        train, test: files with a class for each record; of images also folders.
        settings: fields of `ProbeSettings`.

    Raises:
        BadInput: a file or a folder cannot be used. UsageError: a setting is wrong.
    """
    return probe_with(replace_nested(ProbeSettings(), {"models": several(models), "train": train, "test": test, **settings}), say)


def probe_with(settings: ProbeSettings, say: Callable[[str], None] = print) -> FrozenResult:
    """As `probe`, from settings."""
    check(settings)
    resolve_device(settings.device)  # one that is not there is refused before a file is read
    folders = [backbone_folder(model) if model.is_dir() else model for model in settings.models]
    sees = [is_vision(folder) if folder.is_dir() else True for folder in folders]
    if any(sees) and not all(sees):
        of_each = [str(settings.models[sees.index(kind)]) for kind in (True, False)]
        raise UsageError(f"{of_each[0]} reads images, {of_each[1]} texts.", "Give models of one kind.")
    result = (probe_images if sees[0] else probe_texts)(folders, settings.train, settings.test, settings)
    for one, name in zip(result.models, settings.models, strict=True):
        one.model = str(name)
    if settings.out is not None:
        settings.out.mkdir(parents=True, exist_ok=True)
        with locked(settings.out / ".lock", "writes a probe into this folder"):
            refuse_other_settings(settings.out, "a probe", asked(settings))  # of a call that was faster
            write_json(settings.out / SETTINGS, asked(settings))
            write_json(settings.out / "probe.json", result.to_json())
    for line in result.lines():
        say(printable(line))  # files and classes may be named anything
    return result
