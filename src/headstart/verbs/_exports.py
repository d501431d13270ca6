"""Which model folder a person means: a run's export, that of its newest checkpoint, or the folder itself; and that its bytes are those written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput, UsageError
from headstart.core.run import read_run
from headstart.engine.checkpoint import fetch_export
from headstart.engine.checkpoint_places import Place, name_of, place_of
from headstart.engine.export_hashes import verify_export
from headstart.verbs.config import refuse_no_folder


def newest_export(folder: Path) -> Path:
    """The export of a run, verified: the final one, or the one beside its newest checkpoint.

    Raises:
        BadInput: it is damaged. UsageError: there is none yet.
    """
    if (folder / "export").is_dir():
        verify_export(folder / "export")
        return folder / "export"
    place = checkpoints_of(folder, read_run(folder), folder / "checkpoints")
    found = [place.folder / name_of(step) / "export" for step in place.steps()]
    there = [export for export in found if export.is_dir()]
    if not there and found:
        raise UsageError(f"The checkpoints of {folder} are not on this disk.", f"Copy the newest export from {place.url(place.steps()[-1])} here.")
    if not there:
        raise UsageError(f"The run {folder} has no export yet.", "Let it reach its first checkpoint.")
    verify_export(there[-1])
    return there[-1]


def resolve_init(init: Path | None) -> Path | None:
    """The model folder that --init means: of a run its newest export, or the folder itself; verified.

    Raises:
        UsageError: there is none. BadInput: it is damaged.
    """
    if init is None:
        return None
    if (init / "run.json").is_file():
        return newest_export(init)
    refuse_no_folder(init)
    verify_export(init)
    return init


def given_model(folder: Path) -> Path:
    """The model folder that a folder which is no run holds, verified.

    Raises:
        BadInput: it holds none, or it is damaged.
    """
    from headstart.engine.text_method import model_folder  # pretrain needs neither, and imports them late
    from headstart.interop.vit import SHAPE_FILE

    verify_export(folder)
    model = model_folder(folder)
    if not ((model / "config.json").is_file() or (model / SHAPE_FILE).is_file()):
        mend = "Give the folder that `headstart pretrain --out` made, an export of it, or a transformers folder."
        raise BadInput("is neither a run (no run.json) nor a model (no config.json).", mend, file=folder)
    return model


def run_of(model: Path) -> tuple[Path, dict[str, Any]] | None:
    """(folder, run.json) of the run that a model folder lies in: RUN, RUN/export or RUN/checkpoints/STEP/export; None where it lies in no run."""
    for folder in (model, *list(model.absolute().parents)[:3]):
        if (folder / "run.json").is_file():
            try:
                return folder, read_run(folder)
            except BadInput:
                return None
    return None


def checkpoints_of(folder: Path, info: dict[str, Any], scratch: Path) -> Place:
    """Where a run keeps its checkpoints, as its run.json says."""
    recorded = (info.get("config", {}).get("trainer") or {}).get("checkpoint_folder")
    if recorded is not None and not isinstance(recorded, str):
        raise BadInput("spoils the entry 'config'.", "Its settings are those of the run's own command.", file=folder / "run.json")
    return place_of(recorded or folder / "checkpoints", scratch)


def checkpoint_export(place: Place) -> Path | None:
    """A local folder with the export of the newest checkpoint whose export is whole; None where there is none. `place.forget` removes what was
    brought."""
    for step in reversed(place.steps()):
        try:
            return fetch_export(place, step)
        except BadInput:
            continue  # the run says so when it loads the checkpoint
    return None
