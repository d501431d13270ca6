"""One module (or package) per paper; `load` finds one by its slug. No method imports another."""

from __future__ import annotations

import importlib

from headstart import catalog
from headstart.core.errors import UsageError
from headstart.engine.method import Method


def load(slug: str) -> type[Method]:
    """The class of a method: `METHOD` of the module named after its slug.

    Raises:
        UsageError: an unknown slug, or a method that has a card but no code yet.
    """
    catalog.card(slug)
    if not catalog.implemented(slug):
        raise UsageError(f"'{slug}' has a card but no code yet.", "`headstart list` shows what is implemented.")
    module = importlib.import_module(f"headstart.methods.{slug.replace('-', '_')}")
    method: type[Method] = module.METHOD
    return method
