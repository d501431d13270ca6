"""`headstart show SLUG`: a method's card, presets, data format with an example, and the result of its claim if one is committed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import textwrap
from typing import Any

from headstart.catalog import Card, card, implementation
from headstart.catalog.card import DATA_KINDS
from headstart.claims._committed import difference_words, read_results, shown

HELP = "one method: what it needs and gives, presets, data format, claim result"
EXAMPLE = "headstart show electra"
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slug", metavar="SLUG", help="name of the method, as in headstart list")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    entry = card(args.slug)
    module = implementation(entry.slug)
    presets = read_presets(module) if module else {}
    results = read_results(entry.slug)
    if args.json:
        found = {"implementation": module, "presets": presets, "claim_results": results}
        print(json.dumps(dataclasses.asdict(entry) | found, indent=2, default=str))
        return 0
    print("\n".join(in_words(entry, module, presets, results)))
    return 0


def read_presets(module: str) -> dict[str, dict[str, Any]]:
    """The presets of a module's METHOD, flattened to dotted field names. Imports the module (and so torch).

    Empty for a module without METHOD, such as an intervention.
    """
    method = getattr(importlib.import_module(module), "METHOD", None)
    return {} if method is None else {name: flatten(dataclasses.asdict(preset)) for name, preset in method.presets.items()}


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}: the names that the command line uses."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return flat


def in_words(entry: Card, module: str | None, presets: dict[str, dict[str, Any]], results: list[dict[str, Any]]) -> list[str]:
    """The page that a person sees."""
    arxiv = f", arXiv {entry.arxiv}" if entry.arxiv else ""
    facts = {
        "paper": f"{entry.venue} {entry.year}{arxiv}",
        "family": entry.family,
        "runs": f"yes ({module})" if module else "not yet: the card is here, the code is not",
        "needs": entry.needs,
        "gives": entry.gives,
        "expect": entry.expect,
        "choose when": entry.choose_when,
        "avoid when": entry.avoid_when,
        "official code": entry.official_code,
    }
    lines = [_heading(f"{entry.slug} - {entry.title}"), ""]
    lines += [line for label, text in facts.items() for line in _field(label, text)]
    lines += ["", _heading("data")]
    lines += _field("kinds", "; ".join(DATA_KINDS[kind] for kind in entry.data_kinds))
    lines += ["", *(f"  {line}" for line in entry.data_example.splitlines())]
    lines += ["", _heading("claim"), *textwrap.wrap(entry.claim, WIDTH, initial_indent="  ", subsequent_indent="  ")]
    lines += [line for result in results for line in _result(result)] if results else ["  no result yet"]
    if presets:
        lines += ["", _heading("presets" + (" (where they differ; - is the default)" if len(presets) > 1 else "")), *_presets(presets)]
    return lines


def _heading(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def _field(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<14}", subsequent_indent=" " * 16)


def _result(result: dict[str, Any]) -> list[str]:
    lines = [f"  preset {result['preset']}, {result['metric']} on {result['data']['name']}, {result['date']}, {result['hardware']}"]
    lines.append("    " + ", ".join(f"{arm['arm']} {shown(result, arm['mean'])}" for arm in result["arms"]))
    for comparison in result["comparisons"]:
        line = f"{comparison['a']} minus {comparison['b']}: {difference_words(result, comparison)}: {comparison['verdict']}"
        why = f" ({comparison['why']})" if comparison["why"] else ""
        lines += textwrap.wrap(line + why, WIDTH, initial_indent="    ", subsequent_indent="      ")
    return lines


def _presets(presets: dict[str, dict[str, Any]]) -> list[str]:
    names = sorted({name for fields in presets.values() for name in fields})
    shown = [name for name in names if len(presets) == 1 or len({repr(fields.get(name)) for fields in presets.values()}) > 1]
    rows = [["", *presets], *([name, *(str(fields.get(name, "-")) for fields in presets.values())] for name in shown)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
