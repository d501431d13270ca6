"""`headstart show SLUG`: a method's card, presets, data format with an example, and the result of its claim if one is committed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import textwrap
from statistics import fmean
from typing import Any

from headstart import methods
from headstart.catalog import Card, card, implementation
from headstart.catalog.card import DATA_KINDS
from headstart.claims._committed import compared_words, difference_words, measures, of_seeds, results_of_card, shown
from headstart.cli._flags import flags_of
from headstart.core.words import aligned
from headstart.verbs.config import flag, preset_config

HELP = "one method: what it needs and gives, presets, data format, claim result"
EXAMPLE = "headstart show electra"
WIDTH = 110
PAPERS_STEPS = "steps in the paper"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("slug", metavar="SLUG", help="name of the method, as in headstart list")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    entry = card(args.slug)
    module = implementation(entry.slug)
    presets = read_presets(entry.slug)
    results = results_of_card(entry.slug)
    if args.json:
        found = {"implementation": module, "presets": presets, "claim_results": results}
        print(json.dumps(dataclasses.asdict(entry) | found, indent=2, default=str))
        return 0
    print("\n".join(in_words(entry, module, presets, results)))
    return 0


def read_presets(slug: str) -> dict[str, dict[str, Any]]:
    """The presets of a method by the names of its settings: {"tiny": {"text.vocab_size": 2048, ...}}; `steps` is the paper's number of updates.

    Without torch where the method keeps its settings apart. Empty for what is no method, such as an intervention.
    """
    if not (implementation(slug) or "").startswith("headstart.methods."):
        return {}
    method = methods.settings(slug)
    presets = {}
    for name, preset in method.presets.items():
        fields = {method.data_group if field == "data" else field: value for field, value in dataclasses.asdict(preset).items()}
        presets[name] = {field: value for field, value in flatten(fields).items() if value != {}}
    return presets


def switches(slug: str) -> set[str]:
    """The settings of a method that are --FLAG or --no-FLAG."""
    if not read_presets(slug):
        return set()
    method = methods.settings(slug)
    flags = {flag.name for flag in flags_of(preset_config(method, next(iter(method.presets)))[1])}
    return {name[2:].replace("-", "_") for name in flags if re.sub(r"(--|\.)(?=[^.]*$)", r"\1no-", name) in flags}


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}: the names of settings."""
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
        note = " (where they differ; - is the default; on is --FLAG, off is --no-FLAG)" if len(presets) > 1 else ""
        lines += ["", _heading("presets" + note), *_presets(presets, switches(entry.slug))]
    return lines


def _heading(text: str) -> str:
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def _field(label: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<14}", subsequent_indent=" " * 16)


def _result(result: dict[str, Any]) -> list[str]:
    lines = [f"  preset {result['preset']}, {result['metric']} on {result['data']['name']}, {result['date']}, {result['hardware']}"]
    for name, tasks in (columns := measures(result)).items():
        on = f"on {name}: " if len(columns) > 1 else ""
        means = {arm["arm"]: fmean(values) for arm in result["arms"] if (values := of_seeds(arm, tasks))}
        lines.append(f"    {on}" + ", ".join(f"{arm} {shown(result, mean)}" for arm, mean in means.items()))
    for comparison in result["comparisons"]:
        line = f"{compared_words(result, comparison, 'minus')}: {difference_words(result, comparison)}: {comparison['verdict']}"
        why = f" ({comparison['why']})" if comparison["why"] else ""
        lines += textwrap.wrap(line + why, WIDTH, initial_indent="    ", subsequent_indent="      ")
    return lines


def _presets(presets: dict[str, dict[str, Any]], switched: set[str]) -> list[str]:
    """The table; what is in `switched` has no value on the command line."""
    names = sorted({name for fields in presets.values() for name in fields})
    shown = [name for name in names if len(presets) == 1 or len({repr(fields.get(name)) for fields in presets.values()}) > 1]
    rows = [["", *presets]]
    for name in shown:
        label = PAPERS_STEPS if name == "steps" else "--" + flag(name)
        rows.append([label, *(_value(fields.get(name), name in switched) for fields in presets.values())])
    return [f"  {line}" for line in aligned(rows)]


def _value(value: Any, switch: bool) -> str:
    """As the command line takes it."""
    if isinstance(value, bool) and switch:
        return "on" if value else "off"
    if value is None or value == ():
        return "-"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
