"""One package (or module) per paper; `load` finds one by its slug, `settings` what can be set of it. No method imports another.

    methods/SLUG/config.py   Config, presets, SETTINGS: no torch, so that the command line answers at once
    methods/SLUG/method.py   network and loss, METHOD

A method in one module methods/SLUG.py works as well; its wrong flags are refused only after torch was imported.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from headstart import catalog
from headstart.core.errors import UsageError

if TYPE_CHECKING:
    from headstart.engine.config import Settings
    from headstart.engine.method import Method


def load(slug: str) -> type[Method]:
    """The class of a method: `METHOD` of its module.

    Raises:
        UsageError: an unknown slug, or a method that has a card but no code yet.
    """
    module = importlib.import_module(_home(slug))
    if not hasattr(module, "METHOD"):
        module = importlib.import_module(f"{module.__name__}.method")
    method: type[Method] = module.METHOD
    return method


def settings(slug: str) -> Settings | type[Method]:
    """What can be set of a method, without torch where its package has a config.py.

    Raises:
        UsageError: as `load`.
    """
    home = _home(slug)
    package = find_spec(home)
    if package is not None and package.submodule_search_locations and find_spec(f"{home}.config"):
        found: Settings | None = getattr(importlib.import_module(f"{home}.config"), "SETTINGS", None)
        if found is not None:
            return found
    return load(slug)


def _home(slug: str) -> str:
    """The dotted name of the method's package or module."""
    home = catalog.implementation(catalog.card(slug).slug)
    if home is None:
        raise UsageError(f"'{slug}' has a card but no code yet.", "`headstart list` shows what is implemented.")
    if home.startswith("headstart.interventions."):
        raise UsageError(f"'{slug}' is no method of its own: it changes how one trains.", "`headstart list --interventions` shows its flags.")
    if home.startswith("headstart.planning."):
        raise UsageError(f"'{slug}' trains nothing: it is a way of planning.", f"`headstart show {slug}` says what it needs and gives.")
    if home.startswith("headstart.curate."):
        raise UsageError(f"'{slug}' trains nothing: it makes a corpus.", f"`headstart curate {slug} DATA --out FOLDER` does.")
    return home
