"""`headstart list`: the methods that run, `--all` with those that have a card only; with `--data`, what lies in a folder and which methods fit it.
Imports no torch."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import textwrap
from pathlib import Path

from headstart.catalog import BASELINES, Card, cards, implemented
from headstart.catalog.card import DATA_KINDS
from headstart.catalog.folder import TABLES, FolderContents, fitting, what_lies_here
from headstart.claims._committed import read_results, verdict_words

HELP = "the methods that run, or those that fit a folder of yours"
EXAMPLE = "headstart list --data my/texts"
MESSAGE_WIDTH = 110
EXAMPLE_LINE = '{"text": "..."}'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="say what lies in this folder and list the methods that fit")
    parser.add_argument("--all", action="store_true", help="also the methods that have a card only: described, not yet written")
    parser.add_argument("--interventions", action="store_true", help="what composes with any method, its flags, and where it has no sense")
    parser.add_argument("--json", action="store_true", help="print JSON: every card whole")


def run(args: argparse.Namespace) -> int:
    if args.interventions:
        from headstart.cli._interventions import print_interventions

        print_interventions(args.json)
        return 0
    contents = what_lies_here(args.data) if args.data is not None else None
    everything = [*BASELINES.values(), *cards()]
    rows = [(card, [""]) for card in everything] if contents is None else fitting(contents, everything)
    if args.json:
        print(json.dumps(_as_json(rows, contents), indent=2))
        return 0
    if contents is not None:
        print("\n".join(in_words(contents)), end="\n\n")
    if not rows:
        print("No method of the catalog asks for what lies here. The kinds of data that they ask for: " + ", ".join(DATA_KINDS) + ".")
        if contents is not None and TABLES & {*contents.passed_over}:
            columns = "columns of .csv are separated by commas, those of .tsv by tabs, and the first line names them"
            print(f"A table is known by the names of its fields. Texts stand in one called text: {EXAMPLE_LINE} a line of .jsonl; {columns}.")
        return 0
    running = [card for card, _ in rows if implemented(card.slug)]
    others = [card for card, _ in rows if not implemented(card.slug)]
    shown = [*running, *others] if args.all or not running else running
    if sys.stdout.isatty():
        _print_table(shown)
        print("\n".join(closing_lines(shown, others)))
    else:
        print("method\truns\tfamily\tneeds\tmeasured claim")
        for card in shown:
            print(f"{card.slug}\t{_runs(card)}\t{_family(card)}\t{card.needs}\t{'; '.join(claims_of(card))}")
    return 0


def closing_lines(shown: list[Card], others: list[Card]) -> list[str]:
    """What a card without code is, how to see those that are not shown, and where to go on."""
    lines = []
    if not implemented(shown[0].slug):
        lines += ["No method that fits runs yet."]
    if set(others) & set(shown):
        lines += ["card only: what the paper needs, gives and claims is described; its code is not written yet."]
    elif others:
        text = f"{len(others)} more have a card only (described, not yet written): {', '.join(card.slug for card in others)}. `--all` shows them."
        lines += textwrap.wrap(text, MESSAGE_WIDTH)
    return [*lines, "`headstart show METHOD` tells more of one."]


def in_words(contents: FolderContents) -> list[str]:
    """What lies in the folder, as lines for a person."""
    if contents.empty and contents.empty == contents.n_files:
        lines = [f"{contents.folder}: there is no data, {_empty(contents)}."]
    elif not contents.kinds:
        lines = [f"{contents.folder}: nothing to pre-train on was recognised."]
    else:
        lines = [f"{contents.folder} holds"]
        lines += [f"  {n:>7,} {'file' if n == 1 else 'files'} of {DATA_KINDS[kind]}" for kind, n in contents.kinds.items()]
    if contents.passed_over:
        most = list(contents.passed_over.items())[:5]
        lines.append("  passed over: " + ", ".join(f"{n:,} {ending}" for ending, n in most) + (", ..." if len(contents.passed_over) > 5 else ""))
    if contents.unread:
        forms = ", ".join(f"{n:,} {ending}" for ending, n in contents.unread.items())
        lines.append(f"  not read as they are: {forms}. Write their texts into .txt files, or into a .jsonl file, one object a line: {EXAMPLE_LINE}")
    if 0 < contents.empty < contents.n_files:
        lines.append(f"  {_empty(contents)} and {'holds' if contents.empty == 1 else 'hold'} no record")
    if not contents.complete:
        lines.append(f"  (only the first {contents.n_files:,} files were looked at)")
    return lines


def _empty(contents: FolderContents) -> str:
    return f"{contents.empty:,} {'file is' if contents.empty == 1 else 'files are'} empty"


def claims_of(card: Card) -> list[str]:
    """What the committed results say of a method's claim, a line a preset."""
    return [verdict_words(result) for result in read_results(card.slug)]


def _runs(card: Card) -> str:
    return "yes" if implemented(card.slug) else "card only"


def _family(card: Card) -> str:
    return "baseline" if card.slug in BASELINES else card.family


def _as_json(rows: list[tuple[Card, list[str]]], contents: FolderContents | None) -> dict[str, object]:
    methods = [
        {**dataclasses.asdict(card), "baseline": card.slug in BASELINES, "implemented": implemented(card.slug), "claims": claims_of(card)}
        | ({} if contents is None else {"matched_kinds": kinds})
        for card, kinds in rows
    ]
    if contents is None:
        return {"methods": methods}
    found: dict[str, object] = {"folder": str(contents.folder), "kinds": contents.kinds, "passed_over": contents.passed_over}
    found |= {"n_files": contents.n_files, "complete": contents.complete, "empty": contents.empty, "unread": contents.unread}
    return {"data": found, "methods": methods}


def _print_table(shown: list[Card]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    wide = console.width >= 120
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("runs", no_wrap=True)
    table.add_column("needs")
    if wide:
        table.add_column("choose it when")
    family = ""
    for card in shown:
        if _family(card) != family:
            family = _family(card)
            if table.row_count:
                table.add_section()
            table.add_row(f"[bold cyan]{family}[/]")
        runs = implemented(card.slug)
        measured = "".join(f"\n[cyan]claim, {words}[/]" for words in claims_of(card))
        cells = [f"[{'bold' if runs else 'dim'}]{card.slug}[/]", "[green]yes[/]" if runs else "[dim]card only[/]", card.needs + measured]
        table.add_row(*cells, *([card.choose_when] if wide else []))
    console.print(table)
