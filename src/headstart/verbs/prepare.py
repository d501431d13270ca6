"""`prepare`: sources -> store -> training rows, once. `pretrain --data STORE` then begins at once; given raw files it does the same by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart import methods
from headstart.core.config import dotted, replace_nested, several
from headstart.core.errors import UsageError
from headstart.core.places import refuse_folder
from headstart.core.terminal import printable
from headstart.data.listing import is_store
from headstart.engine.config import Settings
from headstart.verbs._kinds import kind_of
from headstart.verbs._sizing import by_data_of_store
from headstart.verbs.config import preset_config, refuse_absent_data

if TYPE_CHECKING:
    from headstart.engine.method import Method


@dataclass
class PrepareConfig:
    """Preparation of data. `--text` (for methods on text) or `--image` (on images) holds the settings of the kind of data."""

    data: tuple[str, ...] = ()
    """Files, folders, globs, or builtin:python-docs."""
    out: Path | None = None
    """The store: a new folder outside the data."""
    preset: str = "tiny"
    """Whose vocabulary and row length, or size of images, to prepare for; `headstart show METHOD` lists them. Where neither it nor a size of images
    is given, these choose."""
    json: bool = False
    """Print the manifest as JSON."""
    debug: bool = False
    """Show tracebacks."""


def prepare(
    slug: str,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    preset: str | None = None,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> Any:
    """Prepares `data` for a method into the store `out`, which is returned open. What is there already is not made again.

    Args:
        slug: the method, as `headstart list` names it.
        preset: gives the settings that are not given here, and the length of the rows. None: tiny; of images, what their number and size ask for.
        settings: of the kind of data, with dots: `**{"text.vocab_size": 8192}`.

    Raises:
        BadInput: the data cannot be used.
        UsageError: a setting is wrong, or `out` holds something else.
    """
    entries = several(data)
    chosen = defaults(methods.load(slug), preset or "tiny")
    config = replace_nested(chosen, {"data": tuple(map(str, entries)), "out": Path(out), **settings})
    return prepare_with(slug, config, say, named=[*dotted(settings), *([] if preset is None else ["preset"])])


def prepare_with(slug: str, config: Any, say: Callable[[str], None] = print, named: Collection[str] = ("preset",)) -> Any:
    """As `prepare`, from one of the classes of `defaults`.

    Args:
        named: the settings that the person named; images choose the preset and their size where neither is.
    """
    if not config.data or config.out is None:
        raise UsageError("--data and --out are needed.", f"example: headstart prepare {slug} --data my/texts --out stores/mine")
    refuse_absent_data(config.data)
    if not is_store(config.out):
        refuse_folder(config.out)
    method = methods.load(slug)
    chosen = by_data_of_store(method, config.data, getattr(config, method.data_group), config.out, named)
    if chosen is not None:
        config = replace_nested(config, {"preset": chosen[0], **chosen[1]})
    store = method.prepare(list(config.data), config.out, getattr(config, method.data_group))
    for line in store.report():
        say(printable(line))
    for split in ("train", "held_out"):
        rows = method.rows(store, preset_config(method, config.preset)[1].method, split)
        say(f"{split.replace('_', ' ')} rows of preset {config.preset}: {kind_of(method).rows_words(rows)}")
    preset = f" --preset {config.preset}" if chosen is None else ""  # its images choose it again
    say(f"Next: headstart pretrain {slug} --data {config.out}{preset} --budget.minutes 10")
    return store


def defaults(method: Settings | type[Method], preset: str) -> Any:
    """PrepareConfig with the settings of the method's kind of data, filled in from the preset."""
    cls = dataclasses.make_dataclass(
        "PrepareConfig",
        [(method.data_group, method.DataConfig, field(default_factory=method.DataConfig))],
        bases=(PrepareConfig,),
        namespace={"__doc__": PrepareConfig.__doc__},
    )
    return cls(preset=preset, **{method.data_group: preset_config(method, preset)[1].data_config})
