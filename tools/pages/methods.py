"""The pages of the methods, as far as the code knows: card, data, presets, settings, claim; and the catalog of all cards."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

from headstart import catalog, interventions, methods
from headstart.catalog import Card
from headstart.catalog.card import DATA_KINDS
from headstart.claims._committed import anchor_words, compared_words, difference_words, measures, of_seeds, results_of_card, shown
from headstart.cli.show import flatten
from tools.pages import settings
from tools.pages.results import ROOT, cell

CLAIMS = ROOT / "claims" / "results"


def with_code() -> list[str]:
    """Slugs of the methods that `pretrain` runs, baselines first."""
    slugs = [*catalog.BASELINES, *catalog.CARDS]
    return [slug for slug in slugs if (catalog.implementation(slug) or "").startswith("headstart.methods.")]


def interventions_with_code() -> list[str]:
    """Slugs of the interventions that `pretrain` puts around a method."""
    return [entry.card.slug for entry in interventions.settings()]


def planning_with_code() -> list[str]:
    """Slugs of the ways of planning, which train nothing themselves."""
    return [slug for slug in catalog.CARDS if (catalog.implementation(slug) or "").startswith("headstart.planning.")]


def paper(card: Card) -> str:
    """Title, venue, year, as a link where there is an arXiv id."""
    title = f"[{card.title}](https://arxiv.org/abs/{card.arxiv})" if card.arxiv else card.title
    return f"{title}, {card.venue} {card.year}"


def code(card: Card) -> str:
    """The authors' code, as a link where it is a repository."""
    owner_and_name = card.official_code.split("/")
    is_link = len(owner_and_name) == 2 and " " not in card.official_code
    return f"[{card.official_code}](https://github.com/{card.official_code})" if is_link else card.official_code


def card_block(slug: str) -> str:
    """What the card says."""
    card = catalog.card(slug)
    facts = {
        "paper": paper(card),
        "official code": code(card),
        "needs": card.needs,
        "gives": card.gives,
        "expect": card.expect,
        "choose it when": card.choose_when,
        "avoid it when": card.avoid_when,
    }
    return "| | |\n| --- | --- |\n" + "\n".join(f"| {name} | {cell(text)} |" for name, text in facts.items())


def data_block(slug: str) -> str:
    """Kinds of data and example lines."""
    card = catalog.card(slug)
    kinds = "; ".join(DATA_KINDS[kind] for kind in card.data_kinds)
    return f"It reads {kinds}:\n\n```text\n{card.data_example}\n```"


def presets_block(slug: str) -> str:
    """The presets beside each other: those settings in which one differs from another or from the default."""
    method = methods.load(slug)
    presets: dict[str, dict[str, Any]] = {}
    for preset_name, preset in method.presets.items():
        fields = dataclasses.asdict(preset)
        presets[preset_name] = flatten({method.data_group if name == "data" else name: value for name, value in fields.items()})
    defaults = flatten({"method": dataclasses.asdict(method.Config())})
    names = dict.fromkeys(name for fields in presets.values() for name in fields)
    shown = [n for n in names if len({repr(fields.get(n, defaults.get(n))) for fields in presets.values()} | {repr(defaults.get(n))}) > 1]
    rows = ["| setting | " + " | ".join(f"`{name}`" for name in presets) + " |", "| --- |" + " --- |" * len(presets)]
    for name in shown:
        values = [fields.get(name, defaults.get(name)) for fields in presets.values()]
        rows.append(f"| `{name}` | " + " | ".join(map(shown_value, values)) + " |")
    return "\n".join(rows) + "\n\nA dash: the default of that setting; `steps`: the paper's own number, your budget decides."


def shown_value(value: Any) -> str:
    """A setting's value in the table of presets."""
    if value is None:
        return "-"
    return ("off", "on")[value] if isinstance(value, bool) else f"{value:,}" if isinstance(value, int) else str(value)


def settings_block(slug: str) -> str:
    """The own flags of a method or an intervention."""
    for entry in interventions.settings():
        if entry.card.slug == slug:
            return settings.table(entry.Config, entry.group)
    return settings.table(methods.load(slug).Config, "method")


def claim_block(slug: str, folder: Path = CLAIMS) -> str:
    """The committed results of the paper's claim, good or bad."""
    card = catalog.card(slug)
    head = f"The statement: *{card.claim}*"
    results = results_of_card(slug, folder)
    if not results:
        return f"{head}\n\nNot run yet: there is no `claims/results/{slug}-*.json`."
    several = len({result["slug"] for result in results}) > 1
    return "\n\n".join([head, *(result_table(result, named=several) for result in results), "[All claims](../claims.md)"])


def result_table(result: dict[str, Any], named: bool = False) -> str:
    """One result: arms with their spread over seeds, each comparison with its interval, its verdict and why, and what was measured beside.

    Args:
        named: with the name of the claim, where a page has several.
    """
    columns = measures(result)
    preset = f"`{result['slug']}`, preset" if named else "Preset"
    head = f"**{preset} `{result['preset']}`**" + (f", {result['metric']}" if len(columns) > 1 else "")
    each = next((c["paired_by"] for c in result["comparisons"] if "paired_by" in c), "seed")
    rows = [f"| arm | {' | '.join(columns)} | training FLOPs | {each}s |", "| --- " * (len(columns) + 3) + "|"]
    for arm in result["arms"]:
        cells = [spread(result, of_seeds(arm, tasks)) for tasks in columns.values()]
        flops = statistics.fmean(run["train_flops"] for run in arm["runs"])
        rows.append(f"| {arm['arm']} | {' | '.join(cells)} | {flops:.3g} | {len(arm['runs'])} |")
    lines = [verdict_line(result, comparison) for comparison in result["comparisons"]]
    beside = [f"- {name}: {figures}" for name, figures in anchor_words(result)] + [f"- {note}" for note in result.get("notes", ())]
    parts = ["\n".join([head, "", *rows]), "\n".join(lines), *(["Beside it, without a verdict:", "\n".join(beside)] if beside else ())]
    where = f"{result['data']['name']}, {str(result['date'])[:10]}. Again: `{result['command']}`"
    return "\n\n".join([*parts, where])


def verdict_line(result: dict[str, Any], comparison: dict[str, Any]) -> str:
    """One comparison; an undecided one with what such an experiment could have told."""
    why = f" ({comparison['why']})" if comparison.get("why") else ""
    return f"- {compared_words(result, comparison)}: {difference_words(result, comparison)}: **{comparison['verdict']}**{why}"


def effect_block(slug: str, names: tuple[str, ...], folder: Path = CLAIMS) -> str:
    """One line: what arms of the claim reached, and how the first differs from each other one."""
    results = results_of_card(slug, folder)
    if not results:
        return f"Not measured yet: `headstart claim {slug} --preset cpu`."
    result = results[0]
    (first, *others), (task, *_) = names, measures(result).values()
    runs = {arm["arm"]: statistics.fmean(of_seeds(arm, task)) for arm in result["arms"]}
    reached = ", ".join(f"{name} {shown(result, runs[name])}" for name in names)
    pairs = [c for c in result["comparisons"] if c["a"] == first and c["b"] in others]
    beside = {c["b"]: f"{first} - {c['b']} {difference_words(result, c)}" for c in reversed(pairs)}  # of several measures the first
    return f"Measured ({result['metric']}, {result['data']['name']}; [below](#does-the-claim-hold)): {reached}. " + "; ".join(
        beside[name] for name in others if name in beside
    ) + "."


def spread(result: dict[str, Any], values: list[float]) -> str:
    """82.3 %, 81.9 % to 82.7 %: the mean over seeds, the lowest and the highest; a dash where nothing is measured."""
    if not values:
        return "-"
    mean = shown(result, statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean}, {shown(result, min(values))} to {shown(result, max(values))}"


def catalog_block() -> str:
    """Every card, by family: what it is, needs and gives, and whether there is code."""
    by_family: dict[str, list[Card]] = {"baselines": list(catalog.BASELINES.values())}
    for card in catalog.cards():
        by_family.setdefault(card.family, []).append(card)
    parts = [catalog_table(by_family)]
    for family, cards in by_family.items():
        parts.append(f"## {family.capitalize()}")
        parts += [entry(card) for card in cards]
    return "\n\n".join(parts)


def catalog_table(by_family: dict[str, list[Card]]) -> str:
    rows = ["| method | runs | family | needs |", "| --- | --- | --- | --- |"]
    for family, cards in by_family.items():
        for card in cards:
            runs = "yes" if catalog.implemented(card.slug) else "not yet"
            rows.append(f"| [{card.slug}](#{card.slug}) | {runs} | {family} | {cell(card.needs)} |")
    return "\n".join(rows)


def entry(card: Card) -> str:
    """One card of the catalog."""
    runs = f"**Runs.** [Its page]({card.slug}.md); `headstart show {card.slug}`."
    status = runs if catalog.implemented(card.slug) else "**Not yet:** the card is here, the code is not."
    lines = [
        f"### {card.slug} {{ #{card.slug} }}",
        f"{paper(card)}. {status}",
        f"- needs: {' '.join(card.needs.split())}\n- gives: {' '.join(card.gives.split())}\n- claim: {' '.join(card.claim.split())}\n"
        f"- choose it when {card.choose_when}\n- avoid it when {card.avoid_when}\n- official code: {code(card)}",
    ]
    return "\n\n".join(lines)
