"""What a run folder and its checkpoints hold already, and whether this command may go on with it. Whatever is refused here is refused before anything
is written."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from headstart.core.config import differences, plain
from headstart.core.errors import BadInput, UsageError
from headstart.core.run import RunFolder
from headstart.engine.checkpoint import refuse_foreign
from headstart.engine.checkpoint_places import Local, Owner, Place, place_of
from headstart.verbs._adopt import GIVEN
from headstart.verbs.config import PretrainConfig

MACHINE_FIELDS = {
    "out", "json", "debug", "dry_run", "resume", "device", "trainer.micro_batch", "trainer.parallel", "trainer.activation_checkpointing",
    "trainer.on_nonfinite", "trainer.max_skipped", "trainer.keep_checkpoints", "trainer.stop_at", "text.workers", "image.workers", "trainer.trackers",
}  # fmt: skip
"""What may change between a run and its continuation: it decides where and how the run is computed, and when it ends; not what it computes."""

PATHS = {"data", "init", "probe.labels", "trainer.checkpoint_folder", "text.tokenizer"}
"""Settings that name places: `texts`, `./texts/` and `/home/me/texts` are the same."""


def place_for(config: PretrainConfig, out: Path) -> Place:
    """Where the checkpoints of this command go."""
    return place_of(config.trainer.checkpoint_folder or out / "checkpoints", scratch=out / "checkpoints")


def take(run: RunFolder, slug: str, config: PretrainConfig, origin: dict[str, str], held: ExitStack) -> bool:
    """Whether the run has a checkpoint to continue from. Takes the place of its checkpoints, until `held` is closed.

    Raises:
        UsageError: it is a run of other settings, or the place holds checkpoints of another run.
        BadInput: the run had a checkpoint, and none is there now.
    """
    place = place_for(config, run.folder)
    owner = Owner(run.info["id"], str(run.folder.absolute()))
    steps = place.steps()
    noted = run.last_checkpoint()
    if run.is_new and steps:
        refuse_foreign(place, owner)
        raise UsageError(f"{place.url(steps[-1])} is the checkpoint of another run.", "Give this run a --trainer.checkpoint-folder of its own.")
    continues = bool(steps) or noted is not None
    if continues:
        refuse_changes(run, slug, config, origin)
        if run.writes:  # the first process looks for all
            refuse_foreign(place, owner)
    if noted is not None and not steps:
        step, folder = noted
        raise BadInput(
            f"no checkpoint is there, but the run {run.folder} had written one{f' after step {step:,}' if step else ''}.",
            "Bring it back (is its disk mounted?) and give the same command; or start a new run in another --out. Nothing of this one was changed.",
            file=folder,
        )
    own = isinstance(place, Local) and os.path.realpath(place.folder) == os.path.realpath(run.checkpoints)  # the run's own lock protects it
    if run.writes and not own:
        held.enter_context(place.claim(owner))
    return continues


def refuse_changes(run: RunFolder, slug: str, config: PretrainConfig, origin: dict[str, str]) -> None:
    """A run continues with the settings that it began with.

    Raises:
        UsageError: some differ; the message lists each with its old and new value.
    """
    method = run.info.get("method")
    if method is None:
        raise BadInput("names no method.", "Bring the run's own run.json back, or start a new run in another --out.", file=run.folder / "run.json")
    if method != slug:
        raise UsageError(f"{run.folder} holds a run of {method}, not of {slug}.", "Choose another --out.")
    if changed := changes(run.info, config, origin):
        listed = "; ".join(f"{name}: {old!r} -> {new!r}" for name, old, new in changed)
        raise UsageError(
            f"{run.folder} holds a run with other settings ({listed}).",
            f"Repeat its settings to continue it, or start a new one from its weights: --init {run.folder} --out ANOTHER_FOLDER.",
        )


def changes(info: dict[str, Any], config: PretrainConfig, origin: dict[str, str]) -> list[tuple[str, Any, Any]]:
    """(name, old value, new value) of every setting that decides what a run computes and is another than run.json records. What the model of --init
    decided counts only where it was given now."""
    decided = {name for name in info.get("from_init", []) if origin.get(name) not in GIVEN}
    found = differences(before(info, config), plain(config))
    found = [(name, old, new) for name, old, new in found if name not in PATHS or places(old) != places(new)]
    return [change for change in found if change[0] not in MACHINE_FIELDS | decided]


def before(info: dict[str, Any], config: PretrainConfig) -> dict[str, Any]:
    """The settings that run.json records. One that was added to headstart since had its default then."""

    def filled(old: Any, default: Any) -> Any:
        if not (isinstance(old, dict) and isinstance(default, dict)):
            return old
        return default | {name: filled(value, default.get(name)) for name, value in old.items()}

    return dict(filled(info.get("config", {}), plain(type(config)())))


def places(value: Any) -> Any:
    """The paths of a setting, however they are spelled."""
    if isinstance(value, list):
        return [places(entry) for entry in value]
    if not isinstance(value, str) or value.startswith("builtin:") or ("://" in value and not value.startswith("file://")):
        return value
    return os.path.realpath(value.removeprefix("file://"))


def refuse_places(config: PretrainConfig, out: Path) -> None:
    """Nothing is ever written into the user's data; nor where it could not be read again.

    Raises:
        UsageError: the run folder, or that of the checkpoints, lies inside a data folder, or under a name that is not UTF-8.
    """
    written = {"run": (out, "--out"), "checkpoint folder": (config.trainer.checkpoint_folder, "--trainer.checkpoint-folder")}
    for what, (place, flag) in written.items():
        try:
            os.path.realpath(place or "").encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"The {what} {place} would have a name that is not UTF-8, which the safetensors library cannot open.", f"Give {flag} another folder."
            ) from None
    for entry in map(os.path.realpath, config.data):
        for what, (place, flag) in written.items():
            if place is None or "://" in (local := str(place).removeprefix("file://")) or not os.path.isdir(entry):  # noqa: PTH112 (pathlib fails on names that are too long)
                continue
            if Path(os.path.realpath(local)).is_relative_to(entry):
                raise UsageError(f"The {what} {place} would lie inside the data folder {entry}.", f"Give {flag} a folder elsewhere.")
