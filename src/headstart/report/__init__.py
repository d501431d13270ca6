"""`report`: runs, claims, comparisons and advice as one self-contained HTML page.

- `find`: what there is below the named folders; `collect`: all of it, read again only where it changed.
- `runs`; `evidence`, `tuned`: a run folder; a result file -> the parts of a section (`parts`); `loose`: JSON of any type; `drawing`: intervals and
  seeds as SVG.
- `thin`: curves with the lowest and highest value of each pixel column; `pictures`: the contract for a method's pictures.
- `page`: the template, the policy, the limit of 2 MB; `serve`: the same page on localhost, refreshed while runs go on.
- `assets`: template, style and script; `assets/vendor`: uPlot with its licence.

No torch is imported: the page reads only what runs have written. A folder may be a stranger's, and everything in it is escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.core.places import refuse_file
from headstart.report.collect import Collector
from headstart.report.page import render

PAGE_MARK = b'class="brand" href="#'
"""What every page of ours has near its beginning, that of a curation too: only such a page is written over."""


def report(
    places: str | Path | Sequence[str | Path] = (), *, out: str | Path = "report.html", say: Callable[[str], None] = print
) -> Path:
    """Writes the report.

    Args:
        places: run folders, folders that hold some, result files. Without any: runs/ and the committed claims/results.
        out: the page; an older one is replaced.
        say: gets a line for each run and each result that cannot be read; the page has the same.

    Returns:
        `out`.

    Raises:
        BadInput: a place does not exist, or nothing that can be read lies in any.
        UsageError: `out` is a folder, another file, or lies where nothing may be written.
    """
    refuse_file(out, ours=("report", PAGE_MARK))
    named = [places] if isinstance(places, str | Path) else list(places)
    contents = Collector(named).contents()
    if named and not (contents.runs or contents.evidence or contents.warnings):
        what = "no run and no result lies there." if len(named) == 1 else "no run and no result lies there, nor in the others."
        raise BadInput(what, "Give run folders, or folders that hold some.", file=Path(named[0]))
    errors = [*(run.error for run in contents.runs), *(entry.error for entry in contents.evidence)]
    unread = [" ".join(error.splitlines()) for error in errors if error]
    if named and unread and len(unread) == len(errors):
        raise BadInput(f"Nothing that was named can be read: {unread[0]}", "Name run folders or result files of this program.")
    page = render(contents)
    with atomic_write(out) as file:
        file.write(page.encode())
    for error in unread:
        say(f"Not readable: {error}")
    return Path(out)


class _Verb(ModuleType):
    """`headstart.report` is this package and the verb at once: the package can be called like every other verb."""

    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _Verb
