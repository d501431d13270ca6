"""Where the data of the claims lies: HEADSTART_DATA, by default `../shared/data` beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.core.errors import BadInput

CHECKOUT = Path(__file__).parents[3]
"""The folder that holds src/; an installed package has none of what is looked for there."""


def data_folder(name: str, fixture: bool = False) -> Path:
    """The folder of one data set.

    Args:
        fixture: take the small one of `tests/fixtures` when the real one is not there. For smoke presets, whose figures say nothing.

    Raises:
        BadInput: it is nowhere.
    """
    root = Path(os.environ.get("HEADSTART_DATA") or CHECKOUT.parent / "shared" / "data")
    places = [root / name] + ([CHECKOUT / "tests" / "fixtures" / name] if fixture else [])
    for place in places:
        if place.is_dir():
            return place
    raise BadInput("is not there: the claim needs this data.", "Set HEADSTART_DATA to the folder that holds it.", file=places[0])
