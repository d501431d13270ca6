"""The catalog: 35 published pre-training methods, and what they are compared with or made of, as data. No torch here: `headstart list` must answer at
once.

Whether a method is implemented is never written down: it is derived from the module that exists (`implementation`).
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path

from headstart.catalog.card import DATA_KINDS, FAMILIES, Card
from headstart.catalog.language import LANGUAGE_BASELINES, LANGUAGE_CARDS
from headstart.catalog.perception import PERCEPTION_BASELINES, PERCEPTION_CARDS
from headstart.catalog.steering import BESIDE_CARDS, STEERING_CARDS
from headstart.core.errors import UsageError
from headstart.core.words import did_you_mean

__all__ = ["BASELINES", "BESIDE", "CARDS", "DATA_KINDS", "FAMILIES", "Card", "card", "cards", "implementation", "implemented"]


def _by_slug(*groups: tuple[Card, ...]) -> dict[str, Card]:
    """Cards by slug, in the order of FAMILIES (stable within a family)."""
    everything = [entry for group in groups for entry in group]
    return {entry.slug: entry for entry in sorted(everything, key=lambda entry: FAMILIES.index(entry.family))}


CARDS: dict[str, Card] = _by_slug(LANGUAGE_CARDS, PERCEPTION_CARDS, STEERING_CARDS)
"""The 35 methods."""

BASELINES: dict[str, Card] = _by_slug(LANGUAGE_BASELINES, PERCEPTION_BASELINES)
"""What the methods are compared with, and the training of webmath's models; they run like any method but are not counted among the 35."""

BESIDE: dict[str, Card] = _by_slug(BESIDE_CARDS)
"""Interventions of papers beside the 35."""

_PACKAGE = Path(__file__).parents[1]
_HOMES = ("methods", "interventions", "planning", "curate")


def cards() -> list[Card]:
    """All 35 cards, ordered by family. Baselines are in `BASELINES`."""
    return list(CARDS.values())


def card(slug: str) -> Card:
    """The card of a method or baseline; '-' and '_' are interchangeable.

    Raises:
        UsageError: no such slug; names the closest one.
    """
    known = CARDS | BASELINES | BESIDE
    for spelling in (slug, slug.replace("-", "_"), slug.replace("_", "-")):
        if spelling in known:
            return known[spelling]
    raise UsageError(f"There is no method '{slug}'.", f"{did_you_mean(slug, known)}`headstart list` shows all.")


def implementation(slug: str, package: Path = _PACKAGE) -> str | None:
    """Dotted name of the module that implements a card, or None while there is none. Nothing is imported.

    Args:
        slug: of a card.
        package: folder of the headstart package to look in.
    """
    module = slug.replace("-", "_")
    for home in _HOMES:
        spec = PathFinder.find_spec(module, [str(package / home)])
        if spec is not None and spec.origin is not None:  # a folder without __init__.py has no origin: left over, not code
            return f"headstart.{home}.{module}"
    return None


def implemented(slug: str) -> bool:
    """Whether the method's module exists."""
    return implementation(slug) is not None
