"""`headstart list --interventions`: every intervention, the flag that switches it on, and every method with which it has no sense. No torch here."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from headstart import interventions, methods
from headstart.catalog import BASELINES, CARDS, implementation
from headstart.verbs.config import preset_config

FITS = "yes"


def matrix() -> dict[str, dict[str, str | None]]:
    """Intervention -> method -> None, or the sentence why the two have no sense together. Of an example run from given weights."""
    found: dict[str, dict[str, str | None]] = {}
    for entry in interventions.settings():
        found[entry.card.slug] = {}
        for slug in (*BASELINES, *CARDS):
            if not (implementation(slug) or "").startswith(f"{methods.__name__}."):
                continue
            method = methods.settings(slug)
            config: Any = dataclasses.replace(preset_config(method, next(iter(method.presets)))[1], init=Path("MODEL"))
            config = dataclasses.replace(config, **{entry.group: dataclasses.replace(getattr(config, entry.group), **entry.example)})
            found[entry.card.slug][slug] = entry.refuse(method, config)
    return found


def print_interventions(as_json: bool) -> None:
    """To the screen as a table, into a pipe as tab-separated lines, or as JSON."""
    found = matrix()
    known = {entry.card.slug: entry for entry in interventions.settings()}
    if as_json:
        listed = [{"slug": slug, "title": known[slug].card.title, "flags": known[slug].flags, "refused": row} for slug, row in found.items()]
        print(json.dumps({"interventions": listed}, indent=2))
        return
    columns = list(next(iter(found.values())))
    if not sys.stdout.isatty():
        print("\t".join(["intervention", "flags", *columns]))
        for slug, row in found.items():
            print("\t".join([slug, known[slug].flags, *(row[name] or FITS for name in columns)]))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("method", *found):
        table.add_column(name, no_wrap=name == "method")
    table.add_row("", *(f"[cyan]{known[slug].flags}[/]" for slug in found))
    for name in columns:
        table.add_row(name, *(f"[green]{FITS}[/]" if row[name] is None else row[name] for row in found.values()))
    console = Console()
    console.print(table)
    for slug in found:
        card = known[slug].card
        console.print(f"{slug}: {card.title}. {card.choose_when[:1].upper()}{card.choose_when[1:]}.", highlight=False)
    console.print("`headstart pretrain METHOD FLAGS ...` puts one around a method; several compose.", highlight=False)
