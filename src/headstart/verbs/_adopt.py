"""What a model (--init) or a prepared store (--data STORE) decides of the settings: a flag that says otherwise is refused.

What a model decides is recorded in run.json as if it had been given; what a store was made with is in its own record there."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart.core.config import checked
from headstart.core.errors import UsageError
from headstart.engine.method import Method
from headstart.verbs._exports import run_of
from headstart.verbs._same_run import GIVEN
from headstart.verbs.config import PretrainConfig, flag, preset_config

"""Where a setting comes from that a person named."""


def adopt(config: PretrainConfig, origin: dict[str, str], method: type[Method], init: Path) -> tuple[PretrainConfig, list[str]]:
    """(settings with those of the model, the dotted names of the settings that come from it).

    Raises:
        UsageError: one that was given is another; all are listed.
    """
    found = {"method": method.settings_of(init, config.method), method.data_group: method.data_settings_of(init, config.data_config)}
    asked = asked_of(init)
    written = all(origin.get(f"{group}.{name}") in GIVEN for group in found for name in vars(getattr(config, group)))  # by --write-config
    was_given = given_of(config, origin, method, written)
    refused, changed = [], {}
    for group, decided in found.items():
        settings, true = getattr(config, group), {}
        for name, value in decided.items():
            given = getattr(settings, name)
            if was_given(group, name) and given is not None:
                if given == asked.get(group, {}).get(name):
                    continue  # its run asked for the same, and a small corpus gave a smaller vocabulary
                if given != value:
                    refused.append(f"--{flag(f'{group}.{name}')} {given} was given, the model has {value}")
            if fits(settings, name, value):
                true[name] = value
        changed[group] = dataclasses.replace(settings, **true)
    if refused:
        raise UsageError(f"The model in {init} decides what was given otherwise: {'; '.join(refused)}.", "Leave out these settings, or --init.")
    for group, suggested in method.suggestions_of(init, config.method, config.data_config).items():
        free = {name: value for name, value in suggested.items() if not was_given(group, name)}
        changed[group] = dataclasses.replace(changed[group], **free)
        found[group] = {**found[group], **free}
    return dataclasses.replace(config, **changed), [f"{group}.{name}" for group, decided in found.items() for name in decided]


def refuse_other_preparation(config: PretrainConfig, origin: dict[str, str], method: type[Method], stores: Sequence[Any]) -> None:
    """Raises UsageError where a data setting was given that a prepared store was not made with; all are listed."""
    group = method.data_group
    was_given = given_of(config, origin, method, written=True)
    for store in stores:
        changes = method.preparation_changes(store, config.data_config)
        refused = [
            f"--{flag(f'{group}.{name}')} {now} was given, the store has {before}"
            for name, (before, now) in changes.items()
            if was_given(group, name)
        ]
        if refused:
            raise UsageError(
                f"The prepared store {store.folder} was made otherwise: {'; '.join(refused)}.", "Leave out these settings, or give the raw files."
            )


def given_of(config: PretrainConfig, origin: dict[str, str], method: type[Method], written: bool) -> Callable[[str, str], bool]:
    """Whether a person named the setting `name` of a group.

    Args:
        written: the file may be one of --write-config, which names every setting: of a file those count that differ from the preset's.
    """
    usual = preset_config(method, config.preset)[1]

    def was_given(group: str, name: str) -> bool:
        where = origin.get(f"{group}.{name}")
        return where in GIVEN and (where != "config" or not written or getattr(getattr(config, group), name) != getattr(getattr(usual, group), name))

    return was_given


def fits(settings: Any, name: str, value: Any) -> bool:
    """Whether our Config can say this: a folder from elsewhere may be of an architecture that we do not build."""
    try:
        checked(value, typing.get_type_hints(type(settings))[name], name)
    except UsageError:
        return False
    return True


def asked_of(init: Path) -> dict[str, Any]:
    """The settings of the run that a model folder lies in; none where it lies in no run."""
    found = run_of(init)
    return {} if found is None else dict(found[1].get("config", {}))
