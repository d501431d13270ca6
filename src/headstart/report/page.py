"""The page: what was found, put into the template, thinned until it fits, with a policy that lets nothing but our own script run.

Whatever comes from files (names, samples, settings, sentences) is escaped by Jinja, and in the JSON of the charts no character is left that
HTML knows. Should one slip through all the same, the Content-Security-Policy runs only the script whose hash it names, and nothing is loaded from
anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from headstart import __version__
from headstart.catalog import BASELINES, DATA_KINDS, FAMILIES, Card, cards, implemented
from headstart.core import words
from headstart.core.errors import MissingDependency
from headstart.core.run import now
from headstart.report.parts import Evidence, Finding
from headstart.report.runs import RunSection, progress_words
from headstart.report.thin import rounded

MAX_PAGE_BYTES = 2_000_000
COLUMNS = (1200, 800, 500, 300, 200, 120, 80, 50, 30)
"""Pixel columns of a curve that are tried until the page fits."""
SHOWN_FINDINGS = 8
RUNS_TOGETHER = 8
SOURCES = ("advice", "comparison", "fine-tuning", "probe", "claim")
"""Where a finding comes from, in the order in which it answers a user's question."""
TONE_ORDER = {"good": 0, "open": 1, "bad": 2}
AXIS_LABELS = {"tokens": "tokens", "flops": "FLOPs", "wall_s": "seconds"}
KINDS_FIRST = (
    ("advice", "Advice", "What trials on the data itself say about the full budget."),
    ("comparison", "Comparisons", "Runs side by side at equal compute."),
    ("fine-tuning", "Fine-tuning", "Downstream training, beside the same network from a random start."),
    ("probe", "Probes", "What networks know as they are, without fine-tuning, beside random starts of the same shape."),
)
KINDS_LAST = (
    ("claim", "Claims", "Each paper's central statement at small scale, at equal counted training FLOPs. Negative results stay."),
    ("damaged", "Not readable", "Files that were found and could not be read."),
)


@dataclass
class Contents:
    """All that a page shows."""

    runs: list[RunSection] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    places: str = "runs"

    def findings(self) -> list[Finding]:
        """Every difference, those that helped first, and of these what answers a user's question first; what did not help by its size."""
        found = [finding for entry in self.evidence for finding in entry.findings] + [run.finding for run in self.runs if run.finding]

        def place(finding: Finding) -> tuple[int, int, float]:
            if finding.tone == "good":
                return TONE_ORDER["good"], SOURCES.index(finding.source), -(finding.ci95[0] if finding.ci95 else -math.inf)
            return TONE_ORDER[finding.tone], 0, -finding.difference if math.isfinite(finding.difference) else math.inf

        return sorted(found, key=place)


def render(contents: Contents, *, served: bool = False, limit: int = MAX_PAGE_BYTES) -> str:
    """The page.

    Args:
        served: it comes from `--serve` and asks for itself again while runs go on. It does not say when it was made: one that did not change is the
            same bytes.
        limit: bytes that it may have: curves are thinned more, then the oldest runs lose their sections (the table keeps them).
    """
    page_template = template("page.html.jinja")
    with_section = [run for run in contents.runs if run.anchor]
    kept = len(with_section)
    while True:
        shown = _without_sections(contents, kept)
        mark = secrets.token_hex(16)  # nothing from a file can be this
        frame = page_template.render(**_variables(shown, served), data=mark)
        page = frame
        for columns in COLUMNS:
            data = safe_json(chart_data(shown, columns))
            page = frame.replace(mark, data)
            if len(page.encode()) <= limit:
                return page
        if kept == 0:
            return page
        kept //= 2


def _without_sections(contents: Contents, kept: int) -> Contents:
    """The same with sections for the newest `kept` runs only."""
    with_section = [run for run in contents.runs if run.anchor]
    if kept >= len(with_section):
        return contents
    newest = {run.anchor for run in sorted(with_section, key=lambda run: dict(run.facts).get("Started", ""), reverse=True)[:kept]}
    runs = []
    for run in contents.runs:
        if run.anchor in newest:
            runs.append(run)
        else:
            runs.append(RunSection(**{**run.__dict__, "anchor": ""}))
            if run.finding:
                runs[-1].finding = Finding(**{**run.finding.__dict__, "anchor": "runs"})
    older = len(with_section) - kept
    note = f"{older} older runs stand in the table only: with them the page would pass {MAX_PAGE_BYTES / 1e6:g} MB. Name fewer runs."
    return Contents(runs, contents.evidence, [*contents.warnings, note], contents.places)


def chart_data(contents: Contents, columns: int) -> dict[str, Any]:
    """What the script draws: per run and per piece of evidence, by anchor."""
    data: dict[str, Any] = {run.anchor: run.data(columns) | {"settings": run.settings} for run in contents.runs if run.anchor}
    for entry in contents.evidence:
        if entry.charts:
            charts = [
                {
                    "title": chart["title"],
                    "x_label": chart["x_label"],
                    "points": True,
                    "large": True,
                    "plateau": None,
                    "series": [
                        {"label": series["label"], "at": list(map(rounded, series["x"])), "y": list(map(rounded, series["y"]))}
                        for series in chart["series"]
                    ],
                }
                for chart in entry.charts
            ]
            data[entry.anchor] = {"charts": charts, "axes": {}, "phases": [], "spikes": [], "restarts": []}
    for group in side_by_side(contents.runs):
        data[group["anchor"]] = {"together": group["anchors"], "names": group["names"], "metric": group["metric"]}
    return data


def side_by_side(runs: Sequence[RunSection]) -> list[dict[str, Any]]:
    """Runs whose first chart is the same loss of the same method: drawn together, at most `RUNS_TOGETHER`."""
    groups: dict[tuple[str, str], list[RunSection]] = {}
    for run in runs:
        if run.anchor and run.charts:
            groups.setdefault((run.method, run.charts[0].title), []).append(run)
    return [
        {
            "anchor": "t-" + hashlib.sha256(f"{method} {metric}".encode()).hexdigest()[:8],
            "title": f"Runs of {method} together",
            "metric": metric,
            "anchors": [run.anchor for run in members[:RUNS_TOGETHER]],
            "names": [run.name for run in members[:RUNS_TOGETHER]],
        }
        for (method, metric), members in groups.items()
        if len(members) > 1
    ]


def safe_json(value: Any) -> str:
    """JSON that may stand in a script element: without the characters that HTML, or JavaScript's line ends, know."""
    encoded = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return encoded.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _variables(contents: Contents, served: bool) -> dict[str, Any]:
    from markupsafe import Markup, escape

    findings = contents.findings()
    scales = _scales(findings)
    script, style = asset("vendor/uPlot.iife.min.js") + "\n" + asset("page.js"), asset("vendor/uPlot.min.css") + asset("page.css")
    by_kind: dict[str, list[Evidence]] = {kind: [] for kind, *_ in (*KINDS_FIRST, *KINDS_LAST)}
    for entry in contents.evidence:
        by_kind[entry.kind].append(entry)
    together = side_by_side(contents.runs)
    nav = [("top", "Results")]
    nav += [(kind, heading) for kind, heading, _ in KINDS_FIRST if by_kind[kind]]
    nav += [("runs", "Runs")] if contents.runs else []
    nav += [(kind, heading) for kind, heading, _ in KINDS_LAST if by_kind[kind]] + [("methods", "Methods")]

    def marked(line: str) -> Markup:
        """A sample's line with what the method itself wrote set apart: [guesses] after >>> and words in brackets."""
        return Markup(re.sub(r"(&gt;&gt;&gt; ?)(.*)", r"\1<mark>\2</mark>", str(escape(line))))

    return {
        "served": served,
        "csp": policy(script, style, served),
        "style": Markup(style),
        "script": Markup(script),
        "title": f"headstart report: {contents.places}",
        "headline": headline(findings, contents.runs),
        "lede": lede(contents),
        "findings": [(finding, scales[id(finding)]) for finding in findings],
        "shown_findings": SHOWN_FINDINGS,
        "scaled": lambda some: [(finding, scale) for finding, scale in zip(some, _scales(some).values(), strict=True)],
        "warnings": contents.warnings,
        "runs": contents.runs,
        "together": together,
        "evidence": by_kind,
        "kinds_first": KINDS_FIRST,
        "kinds_last": KINDS_LAST,
        "cards": _method_cards(findings),
        "families": [*FAMILIES, "baseline"],
        "data_kinds": sorted(DATA_KINDS),
        "nav": nav,
        "version": __version__,
        "made": "" if served else f" at {now()}",
        "places": contents.places,
        "marked": marked,
        **_helpers(),
    }


def _helpers() -> dict[str, Any]:
    from headstart.report import drawing

    def level(value: float, percent: bool) -> str:
        return f"{words.number(100 * value, 3)}{words.NARROW}%" if percent and math.isfinite(value) else words.number(value)

    def plateau_cell(run: RunSection) -> str:
        if not math.isfinite(run.entropy):
            return "–"
        line = words.number(run.entropy, 3)
        if run.left_plateau_at is not None:
            return f"{line}, left at {run.left_plateau_at:,}"
        return f"{line}, not left" if run.status == "done" else line

    def run_cells(run: RunSection) -> list[tuple[str, str]]:
        costs = [("Steps", f"{run.step:,}"), ("FLOPs", words.flops(run.flops)), ("Time", words.duration(run.seconds))]
        return [("Held-out loss", words.number(run.held_out)), ("Plateau", plateau_cell(run)), *costs]

    return {
        "words": words,
        "level": level,
        "run_cells": run_cells,
        "progress_words": progress_words,
        "interval": drawing.interval,
        "seeds": drawing.seeds,
        "arm_scale": lambda entry: drawing.scale_of([value for arm in entry.arms for value in arm.values]),
        "scale_of_one": lambda finding: _scales([finding])[id(finding)],
        "axes_of": lambda run: [(axis, run.unit if axis == "tokens" else AXIS_LABELS[axis]) for axis in AXIS_LABELS if axis in run.curves.series],
    }


def _scales(findings: Sequence[Finding]) -> dict[int, Any]:
    """One axis for all differences of a metric, so that their lengths can be compared."""
    from headstart.report.drawing import scale_around_zero

    by_metric: dict[tuple[str, bool], list[float]] = {}
    for finding in findings:
        by_metric.setdefault((finding.metric, finding.percent), []).extend([finding.difference, *(finding.ci95 or ())])
    return {id(finding): scale_around_zero(by_metric[finding.metric, finding.percent]) for finding in findings}


def headline(findings: Sequence[Finding], runs: Sequence[RunSection]) -> str:
    """The answer in one sentence: what helped, how much, at what cost. A head start is a difference to a random start: one between two ways of
    training leads only where there is none of these."""
    if not findings:
        going = sum(run.status == "running" for run in runs)
        if not runs:
            return "Nothing has been run here yet."
        return f"{_count(len(runs), 'run')}{f', {going} going on' if going else ''}; no gain measured yet."
    first = next((finding for finding in findings if finding.over_start), findings[0])
    told = f"{first.shown(first.difference)} {first.unit} over {first.b}"
    if first.tone == "open":
        seen = "the most" if first.difference > 0 else "nothing looks like a gain, and the best"
        so = "its interval holds zero" if first.ci95 else "it has no interval"
        return f"Not enough evidence yet: {seen} that was seen is {first.a}, {told}; {so}."
    if first.tone == "bad":
        return f"Nothing here helped. {first.a}: {told}."
    word = {"helps": "helps", "should help": "should help"}.get(first.verdict, "is better")
    cost = first.cost()
    return f"{first.a} {word}: {told} ({first.interval_words()})" + ("." if cost == "–" else f", for {cost}.")


def lede(contents: Contents) -> str:
    """What the page is made from."""
    counts = [_count(len(contents.runs), "run")]
    for kind, name in (("claim", "claim"), ("comparison", "comparison"), ("advice", "advice"), ("fine-tuning", "fine-tuning"), ("probe", "probe")):
        n = sum(entry.kind == kind for entry in contents.evidence)
        counts += [_count(n, name)] if n else []
    going = sum(run.status == "running" for run in contents.runs)
    return ", ".join(counts) + (f"; {going} still going on" if going else "") + ". Differences are paired by seed or split; intervals are at 95 %."


def _count(n: int, name: str) -> str:
    plural = {"advice": "pieces of advice", "fine-tuning": "fine-tunings"}.get(name, f"{name}s")
    singular = {"advice": "piece of advice"}.get(name, name)
    return f"{n} {singular if n == 1 else plural}"


@dataclass(frozen=True)
class MethodCard:
    """A card with what was measured of its method."""

    card: Card
    family: str
    runs: bool
    findings: list[Finding]


def _method_cards(findings: Sequence[Finding]) -> list[MethodCard]:
    """Measured methods first, then those that run, then the rest."""
    everything = [MethodCard(c, "baseline", implemented(c.slug), []) for c in BASELINES.values()]
    everything += [MethodCard(c, c.family, implemented(c.slug), []) for c in cards()]
    for entry in everything:
        entry.findings.extend(finding for finding in findings if entry.card.slug in finding.slugs)
    return sorted(everything, key=lambda entry: (not entry.findings, not entry.runs))


# assets


def asset(name: str) -> str:
    """The text of a file of `report/assets`."""
    return (resources.files("headstart.report") / "assets" / name).read_text(encoding="utf-8")


def policy(script: str, style: str, served: bool) -> str:
    """The Content-Security-Policy: one script and one style, known by their hashes; pictures from the page itself; no network."""

    def known(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    connect = "'self'" if served else "'none'"
    rules = ("default-src 'none'", f"script-src {known(script)}", f"style-src {known(style)}", "img-src data:", f"connect-src {connect}")
    return "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])


def template(name: str) -> Any:
    """A page of `report/assets`; it escapes all that it is given."""
    try:
        import jinja2
    except ImportError:
        raise MissingDependency("jinja2", "report", "headstart report") from None
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(asset(name))


