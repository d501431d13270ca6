"""Pointers from a page into the code: `[Electra.mask](../../src/headstart/methods/electra/method.py#Electra.mask)`.

A page names file and symbol; the line is looked up when the site is built, so nobody types one and none is ever stale. A symbol that left the code
is an error. In an editor or on a forge the link opens the file.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tools.pages.results import ROOT

POINTER = re.compile(r"\]\((?:\.\./)*((?:src|examples|tools|tests|benchmarks)/[\w/]+\.(?:py|sh|yaml))(?:#([\w.]+))?\)")
"""Group 1: the file, from the root of the repository. Group 2: the symbol, if one is named."""


@cache
def symbols(path: Path) -> dict[str, int]:
    """Dotted name -> line of every function, class, method and assigned name of a module."""
    found: dict[str, int] = {}

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                found[prefix + node.name] = first
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    found[prefix + ast.unparse(target)] = node.lineno

    look(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def line_of(file: str, symbol: str, root: Path = ROOT) -> int:
    """The line on which a symbol is defined.

    Raises:
        ValueError: the file or the symbol is not there.
    """
    path = root / file
    if not path.is_file():
        raise ValueError(f"there is no file {file}")
    if symbol not in (known := symbols(path)):
        raise ValueError(f"{file} has no '{symbol}'; it has {', '.join(known)}")
    return known[symbol]


def pointers(text: str) -> list[tuple[str, str | None]]:
    """(file, symbol) of every pointer on a page."""
    return [(match[1], match[2]) for match in POINTER.finditer(text)]
