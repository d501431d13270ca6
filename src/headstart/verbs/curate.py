"""`curate`: from a web crawl to a corpus, by a recipe or one of its stages. What it is made of: `headstart.curate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core.config import replace_nested
from headstart.core.words import counted
from headstart.verbs._curate_settings import CurateSettings, check, settings_of

if TYPE_CHECKING:
    from headstart.curate.pipeline import Curation

__all__ = ["CurateSettings", "curate", "curate_with"]


def curate(recipe: str, data: str | Path | Sequence[str | Path], out: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> Curation:
    """Curates `data` into the folder `out`; what is there already is not made again.

    Args:
        recipe: "webmath", "text", or a stage.
        data: files, folders, globs or addresses.
        settings: those of `CurateSettings`, with dots: `**{"recall.positives": "mathematics.jsonl", "workers": 8}`.

    Raises:
        BadInput: the data cannot be used, or no document is left of it (what was counted lies in `out`).
        UsageError: a setting is wrong, or `out` holds something else.
    """
    entries = [data] if isinstance(data, str | Path) else list(data)
    chosen = replace_nested(settings_of(recipe), {"data": tuple(map(str, entries)), "out": Path(out), **settings})
    done = curate_with(chosen, say)
    refuse_nothing(done)
    return done


def refuse_nothing(done: Curation) -> None:
    """Raises BadInput for a curation that kept no document: whoever goes on with it would train on nothing."""
    from headstart.curate.pipeline import nothing_kept

    if (error := nothing_kept(done)) is not None:
        raise error


def curate_with(settings: CurateSettings, say: Callable[[str], None] = print) -> Curation:
    """As `curate`, from settings; an empty corpus is for the caller to refuse (`refuse_nothing`), who may show the counts before."""
    check(settings)
    from headstart.curate.language import refuse_unknown
    from headstart.curate.pipeline import curate as run
    from headstart.curate.stages import RECIPES

    assert settings.out is not None
    if "language" in RECIPES[settings.recipe]:
        refuse_unknown(settings.language)
    done = run(
        settings.recipe,
        settings.data,
        settings.out,
        settings.config(),
        run_on=settings.engine,
        ray_address=settings.ray_address,
        workers=settings.workers or os.cpu_count() or 1,
        keep_work=settings.keep_work,
        say=say,
    )
    last = done.stages[-1]
    if costly := sorted(done.seconds.items(), key=lambda one: -one[1])[:3]:
        shares = ", ".join(f"{name} {100 * took / sum(done.seconds.values()):.0f} %" for name, took in costly)
        say(f"{sum(done.seconds.values()):,.0f} seconds of work: {shares}" + (" ..." if len(done.seconds) > 3 else ""))
    say(f"{settings.out / 'documents'}: {last.kept:,} documents, {counted(last.words)} words, {last.images:,} images")
    return done
