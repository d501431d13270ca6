"""Whether a command means the run that its folder holds: which settings may change between a run and its continuation, and where no run may lie.
No torch here: the command line refuses at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.core.config import differences, plain
from headstart.core.errors import BadInput, UsageError
from headstart.verbs._parts import path_of, split_entry
from headstart.verbs.config import PretrainConfig

MACHINE_FIELDS = {
    "out", "json", "debug", "dry_run", "resume", "device", "trainer.micro_batch", "trainer.parallel", "trainer.activation_checkpointing",
    "trainer.on_nonfinite", "trainer.max_skipped", "trainer.keep_checkpoints", "trainer.stop_at", "text.workers", "image.workers", "trainer.trackers",
}  # fmt: skip
"""What may change between a run and its continuation: it decides where and how the run is computed, and when it ends; not what it computes."""

PATHS = {"data", "init", "probe.labels", "trainer.checkpoint_folder", "text.tokenizer"}
"""Settings that name places: `texts`, `./texts/` and `/home/me/texts` are the same."""

REMOVED: Mapping[str, tuple[Any, str]] = {
    "schedule.rewarm_from": (0.0, "--rewarm.preset relative --rewarm.warmup-start floor, with --rewarm.old-rate where --init is no run"),
}
"""Settings that earlier versions had: dotted name -> (their default, what says the same now)."""

GIVEN = ("config", "flag", "argument")
"""Where a setting comes from that the person set."""


def refuse_changes(folder: Path, info: dict[str, Any], slug: str, config: PretrainConfig, origin: dict[str, str]) -> None:
    """A run continues with the settings that it began with.

    Raises:
        UsageError: some differ; the message lists each with its old and new value.
    """
    method = info.get("method")
    if method is None:
        raise BadInput("names no method.", "Bring the run's own run.json back, or start a new run in another --out.", file=folder / "run.json")
    if method != slug:
        raise UsageError(f"{folder} holds a run of {method}, not of {slug}.", "Choose another --out.")
    if changed := changes(info, config, origin):
        listed = "; ".join(f"{name}: {old!r} -> {new!r}" for name, old, new in changed)
        raise UsageError(
            f"{folder} holds a run with other settings ({listed}).",
            f"Repeat its settings to continue it, or give a new run its own --out; from this one's weights: --init {folder} --out ANOTHER_FOLDER.",
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

    return dict(filled(without_removed(info.get("config", {})), plain(type(config)())))


def without_removed(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run.json or of a file without those that this version no longer has.

    Raises:
        UsageError: one of them was used; it says what says the same now.
    """
    kept = dict(recorded)
    for name, (default, instead) in REMOVED.items():
        group, field = name.split(".")
        if not isinstance(kept.get(group), dict) or field not in kept[group]:
            continue
        if kept[group][field] != default:
            raise UsageError(f"The setting {name} ({kept[group][field]}) is of an earlier version.", f"Now it is {instead}.")
        kept[group] = {key: value for key, value in kept[group].items() if key != field}
    return kept


def places(value: Any) -> Any:
    """The paths of a setting, however they are spelled."""
    if isinstance(value, list):
        return [places(entry) for entry in value]
    if isinstance(value, str) and (named := split_entry(value)):
        return [named[0], named[1], places(named[2])]
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
    for entry in (os.path.realpath(path_of(entry)) for entry in config.data):
        for what, (place, flag) in written.items():
            if place is None or "://" in (local := str(place).removeprefix("file://")) or not os.path.isdir(entry):  # noqa: PTH112 (pathlib fails on names that are too long)
                continue
            if Path(os.path.realpath(local)).is_relative_to(entry):
                raise UsageError(f"The {what} {place} would lie inside the data folder {entry}.", f"Give {flag} a folder elsewhere.")
