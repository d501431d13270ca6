"""Writes figures from committed JSON into the documentation, between markers: nobody types a figure.

    python tools/fill_docs.py            rewrite
    python tools/fill_docs.py --check    exit 1 when a page is stale
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.verbs.demo import table_lines

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def demo_block() -> str:
    """The table and the sentence of the committed demonstration."""
    result = read("demo")
    minutes = result["wall_s"] / 60
    where = f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores"
    return "```\n" + "\n".join([*table_lines(result["arms"]), "", result["sentence"]]) + f"\n```\n\n({minutes:.1f} minutes in all on {where}.)"


def plateau_block() -> str:
    """When each recipe left the plateau."""
    rows = ["| recipe | tokens predicted a step | steps to leave | tokens predicted until then |", "| --- | --- | --- | --- |"]
    result = read("plateau")
    for arm in result["arms"]:
        left = arm["left_at"]
        until = "-" if left is None else f"{arm['predicted_until_then']:,.0f}"
        steps = f"not within {arm['steps']:,}" if left is None else f"{left:,}"
        rows.append(f"| {arm['recipe']} | {arm['predicted_per_step']:,.0f} | {steps} | {until} |")
    return "\n".join(rows) + f"\n\nUnigram entropy of this corpus: {result['unigram_entropy']:.2f} nats. {result['what']}"


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {"demo": ("README.md", demo_block), "plateau": ("docs/plateau.md", plateau_block)}


def filled(text: str, name: str, block: str) -> str:
    """`text` with what lies between the markers of `name` replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin (python tools/fill_docs.py) -->", f"<!-- {name}: end -->"
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} blocks named {name}, one expected")
    return new


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, (page, block) in BLOCKS.items():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        new = filled(text, name, block())
        if new != text:
            stale.append(page)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'rewritten'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
