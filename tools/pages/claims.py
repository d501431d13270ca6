"""The table of every claim that was run to its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.claims import claim_names
from headstart.claims._committed import compared_words, difference_words, read_results
from tools.pages.results import ROOT, cell


def claims_block(folder: Path | None = None) -> str:
    """One row a claim, good or bad: what decided it; what was measured beside stands on the page of its method."""
    results = read_results(None, folder)
    if not results:
        return "No claim has been run to its end yet."
    rows = ["| claim | what was measured | what decided it | verdict | in the paper |", "| --- | --- | --- | --- | --- |"]
    rows += [f"| {' | '.join([name(result), *map(cell, (result['metric'], decided(result), result['verdict'], result['paper']['value']))])} |"
             for result in results]  # fmt: skip
    waiting = [slug for slug in claim_names() if slug not in {result["slug"] for result in results}]
    return "\n".join(rows) + (f"\n\nReady, and not run to the end yet: {', '.join(waiting)}." if waiting else "")


def name(result: Mapping[str, Any]) -> str:
    """The claim with a link to the page that has all of its figures."""
    page = next((slug for slug in (*result.get("of", ()), result["slug"]) if (ROOT / "docs" / "methods" / f"{slug}.md").is_file()), None)
    words = result["slug"] if page is None else f"[{result['slug']}](methods/{page}.md#does-the-claim-hold)"
    return f"{words}, {result['preset']}"


def decided(result: Mapping[str, Any]) -> str:
    """The comparisons that the verdict is made of, with their own."""
    deciding = [one for one in result["comparisons"] if one.get("decides", True)]
    found = []
    for one in deciding:
        why = f": {one['why']}" if one.get("why") else ""
        verdict = f", {one['verdict']}{why}" if len(deciding) > 1 or why else ""
        found.append(f"{compared_words(result, one)}: {difference_words(result, one)}{verdict}")
    return "<br>".join(found)
