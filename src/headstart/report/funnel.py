"""The page of a curation: how many pages, words and images each stage kept, why it dropped the others, and some of them to look at.

What is quoted comes from strangers' web pages: all of it is escaped, addresses are text and no links, and the page runs no script at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.core import words
from headstart.core.curation import ABOUT as ABOUT_FILE
from headstart.core.curation import COUNTS, DOCUMENTS
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write, read_json
from headstart.core.places import refuse_file
from headstart.core.terminal import printable
from headstart.curate.counts import StageCounts, from_json, merged
from headstart.report import PAGE_MARK
from headstart.report.page import asset, policy, template

ABOUT = {
    "webmath": "mathematical pages with their images",
    "text": "plain text",
}


@dataclass(frozen=True)
class Funnel:
    """What the page shows.

    Attributes:
        recipe: its name; stages: counts in order; running: shards that are done and all, where the curation goes on.
    """

    recipe: str
    stages: list[StageCounts]
    running: tuple[int, int] | None


def write_funnel(folder: Path, out: Path | None = None) -> Path:
    """Writes the page of a curation, finished or not, to `out` or folder/report.html.

    Raises:
        BadInput: `folder` holds no curation.
    """
    page = render(read_funnel(folder))
    out = out or folder / "report.html"
    refuse_file(out, made=True, ours=("report", PAGE_MARK))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(page.encode())
    return out


def read_funnel(folder: Path) -> Funnel:
    """The counts of a curation; of one that goes on, those of its finished shards.

    Raises:
        BadInput: `folder` holds no curation.
    """
    if not (folder / ABOUT_FILE).is_file():
        raise BadInput("holds no curation.", "Give the --out folder of headstart curate.", file=folder)
    about = read_json(folder / ABOUT_FILE)
    try:
        recipe, n_shards = str(about["recipe"]), len(about["sources"])
    except (KeyError, TypeError) as error:
        raise BadInput("is no description of a curation.", "Curate again into another folder.", file=folder / ABOUT_FILE) from error
    if (folder / COUNTS).is_file():
        return Funnel(recipe, from_json(read_json(folder / COUNTS).get("stages")), None)
    stages: list[StageCounts] = []
    done = n_shards
    for place in (*sorted((folder / "work").glob("*"), key=lambda path: path.name.zfill(3)), folder / DOCUMENTS):
        shards = sorted((place / "counts").glob("shard-*.json"))
        if shards:
            stages += merged(from_json(read_json(shard).get("stages")) for shard in shards)
            done = len(shards)
    return Funnel(recipe, stages, (done, n_shards))


def render(funnel: Funnel) -> str:
    """The page as HTML."""
    from markupsafe import Markup

    style = asset("page.css") + asset("funnel.css")
    shown = [stage for stage in funnel.stages if stage.stage != "signatures"]
    first = max((stage.entered for stage in shown), default=0)
    return template("funnel.html.jinja").render(
        csp=policy("", style, served=False),
        style=Markup(style),
        title=f"headstart curate: {funnel.recipe}",
        headline=headline(funnel.recipe, shown),
        running=funnel.running,
        rows=[_row(stage, first) for stage in shown],
        stages=[stage for stage in shown if stage.dropped or stage.items],
        words=words,
        printable=printable,
        version=__version__,
    )


def headline(recipe: str, stages: list[StageCounts]) -> str:
    """The outcome in one sentence."""
    if not stages:
        return "Nothing is counted yet."
    first, last = stages[0], stages[-1]
    share = words.share(last.kept / first.entered) if first.entered else "none"
    what = f" of {ABOUT[recipe]}" if recipe in ABOUT else ""
    images = f", {last.images:,} images" if last.images else ""
    return f"{last.kept:,} documents{what} of {first.entered:,} records ({share}): {words.counted(last.words)} words{images}."


def _row(stage: StageCounts, first: int) -> dict[str, Any]:
    """A stage as a line of the table, its bars in thousandths of the first stage's rows."""
    return {
        "stage": stage,
        "share": words.share(stage.kept / stage.entered) if stage.entered else "–",
        "entered": round(1000 * stage.entered / first) if first else 0,
        "kept": round(1000 * stage.kept / first) if first else 0,
        "top": stage.dropped.most_common(3),
    }
