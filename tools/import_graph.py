"""Draws which floor of the house imports which into docs/architecture.md, between two markers.

    python tools/import_graph.py            rewrite the picture
    python tools/import_graph.py --check    exit 1 when the picture is stale or an import goes up

Floors and their order are the layers of import-linter in pyproject.toml: one list, two readers. Imports are read with `ast`, so nothing of the
package runs; those inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "headstart"
BEGIN = "<!-- import graph: begin (python tools/import_graph.py) -->"
END = "<!-- import graph: end -->"

Graph = dict[str, set[str]]  # floor -> the floors it imports


def read_floors(pyproject: Path) -> dict[str, int]:
    """Floor -> height; 0 is the lowest. Floors that share a line of the layers share a height; brackets mark those that may be missing."""
    contracts = tomllib.loads(pyproject.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    heights: dict[str, int] = {}
    for height, line in enumerate(reversed(layers)):
        for name in line.replace("|", ":").split(":"):
            heights[name.strip(" ()").removeprefix(f"{PACKAGE}.")] = height
    return heights


def imported_modules(file: Path, module: str) -> Iterator[tuple[str, int]]:
    """(dotted module, line) of every import of the package in a file. `from a import b` gives a.b: b may be a module."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == PACKAGE)


def read_graph(source: Path, floors: dict[str, int]) -> tuple[Graph, list[str]]:
    """The floors that exist with what they import, and the imports that do not go down, as lines 'file:line: ...'.

    Modules at the root of the package (`__init__`, `__main__`) are the way in and stand above all floors; they are checked but not drawn.
    """
    graph: Graph = defaultdict(set)
    wrong: list[str] = []
    for file in sorted((source / PACKAGE).rglob("*.py")):
        parts = file.relative_to(source).with_suffix("").parts
        module = ".".join(parts)
        floor = parts[1]
        at_root = floor in ("__init__", "__main__")
        if not at_root:
            graph[floor]
            if floor not in floors:
                wrong.append(f"{file.relative_to(source)}:1: {floor} is no floor of the layers in pyproject.toml")
                continue
        for name, line in imported_modules(file, module):
            target = name.split(".")[1]
            if at_root or target == floor or target not in floors:
                continue  # an attribute of the package itself, such as headstart.__version__, is no floor
            graph[floor].add(target)
            if floors[target] >= floors[floor]:
                wrong.append(f"{file.relative_to(source)}:{line}: {floor} imports {target}, which is {_where(floors[target], floors[floor])}")
    return dict(graph), wrong


def _where(target: int, floor: int) -> str:
    return "above it" if target > floor else "beside it"


def without_implied(graph: Graph) -> Graph:
    """The arrows that no chain of other arrows implies: fewer lines, the same order."""
    reach = {floor: _reachable(graph, floor) for floor in graph}
    drawn: Graph = {}
    for floor, targets in graph.items():
        implied = {target for other in targets for target in reach.get(other, ())}
        drawn[floor] = targets - implied
    return drawn


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def block(graph: Graph, floors: dict[str, int]) -> str:
    """The generated part of the page: the picture without implied arrows, and a table with all of them."""
    order = sorted(graph, key=lambda floor: (-floors.get(floor, -1), floor))
    drawn = without_implied(graph)
    lines = [BEGIN, "", "```mermaid", "flowchart TD"]
    lines += [f"    {floor}" for floor in order]
    lines += [f"    {floor} --> {target}" for floor in order for target in order if target in drawn[floor]]
    lines += ["```", "", "| floor | imports |", "| --- | --- |"]
    lines += [f"| `{floor}` | {', '.join(f'`{target}`' for target in order if target in graph[floor]) or 'nothing of ours'} |" for floor in order]
    return "\n".join([*lines, "", END])


def rewritten(page: str, new_block: str) -> str:
    """The page with the text from BEGIN to END replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"The page has no block from '{BEGIN}' to '{END}'.")
    return before + new_block + after


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the picture is stale or an import goes up")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout (default: this one)")
    args = parser.parse_args(arguments)
    floors = read_floors(args.root / "pyproject.toml")
    graph, wrong = read_graph(args.root / "src", floors)
    for line in wrong:
        print(line, file=sys.stderr)
    page = args.root / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    new = rewritten(text, block(graph, floors))
    if args.check and new != text:
        print(f"{page.relative_to(args.root)} is stale. Run: python tools/import_graph.py", file=sys.stderr)
    if not args.check:
        page.write_text(new, encoding="utf-8")
    return int(bool(wrong) or (args.check and new != text))


if __name__ == "__main__":
    sys.exit(main())
