"""Measured evidence: every kind of result, each read into the same few parts (`parts`) that the page shows; here claims, comparisons and advice.

Formats: docs/claims.md, the docstrings of `headstart.verbs.compare` and `headstart.verbs.advise`, `tasks.result.Result.to_json` and
`tasks.frozen.FrozenResult.to_json`. A file may be old, damaged or a stranger's: what it lacks is left out, and what is wrong in it never ends the
report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart.core import words
from headstart.core.errors import BadInput, HeadstartError
from headstart.core.files import read_bounded
from headstart.report.find import read_result
from headstart.report.loose import labelled, listed, mapping, mean_of, pair, text
from headstart.report.parts import SHARES, TONES, Arm, Evidence, Finding, interval_words, value_words, word_of
from headstart.report.pictures import data_uri
from headstart.report.tuned import demo, fine_tuning, probe
from headstart.verbs._follow import finite

MAX_FIGURE_BYTES = 256 * 2**10


def read_evidence(path: Path, anchor: str) -> Evidence | None:
    """The evidence in a result file; None for JSON of another kind. A damaged one carries the error instead of an end."""
    try:
        content = read_result(path)
        kind = kind_of(content)
        return None if kind is None else _with_anchor(READERS[kind](content, path), anchor)
    except HeadstartError as error:
        return Evidence(path, "damaged", path.name, anchor, error=str(error))
    except Exception as error:  # a stranger's file: any type anywhere
        what = f"{path} has a form that this version does not know ({type(error).__name__}: {error})."
        return Evidence(path, "damaged", path.name, anchor, error=what)


def kind_of(content: dict[str, Any]) -> str | None:
    if content.get("kind") in READERS:
        return str(content["kind"])
    if {"slug", "claim", "comparisons"} <= content.keys():
        return "claim"
    if content.get("name") == "demo":
        return "demo"
    if {"metric", "models", "data"} <= content.keys():
        return "probe"
    return "fine-tuning" if {"task", "metric", "arms"} <= content.keys() else None


def _with_anchor(evidence: Evidence, anchor: str) -> Evidence:
    evidence.anchor = anchor
    for finding in evidence.findings:
        finding.anchor = anchor
    return evidence


# the kinds


def claim(content: dict[str, Any], path: Path) -> Evidence:
    """claims/results/SLUG-PRESET.json."""
    slug, preset, metric = text(content["slug"]), text(content.get("preset")), text(content.get("metric"))
    data, paper = mapping(content.get("data")), mapping(content.get("paper"))
    percent = content.get("percent") is True
    comparisons = [mapping(one) | {"tasks": list(map(text, listed(mapping(one).get("tasks"))))} for one in listed(content["comparisons"])]
    measured = list(dict.fromkeys(tuple(one["tasks"]) for one in comparisons))
    several = len(measured) > 1  # comparisons over different tasks: an arm has a figure for each (docs/claims.md)
    arms = [
        _claim_arm(arm, tasks, f" on {', '.join(tasks)}" if several else "")
        for tasks in (measured if several else [()])
        for arm in map(mapping, listed(content.get("arms")))
        if all(task in mapping(mapping(run).get("tasks")) for run in listed(arm.get("runs")) for task in tasks)  # not every arm has every measurement
    ]
    by_name = {arm.name: arm for arm in arms}
    evidence = Evidence(path, "claim", f"{slug}, preset {preset}", slugs=(slug,), metric=metric, percent=percent, arms=arms)
    evidence.sentence = text(content.get("sentence")) or text(content["claim"])
    for comparison in comparisons:
        a, b, over = text(comparison.get("a")), text(comparison.get("b")), ", ".join(comparison["tasks"])
        verdict = text(comparison.get("verdict"))
        spent = by_name.get(f"{a} on {over}" if several else a, Arm(a, []))
        evidence.findings.append(
            Finding(
                a, b, over if several else metric, text(data.get("name")), finite(comparison.get("difference")), pair(comparison.get("ci95")),
                verdict, TONES.get(verdict, "open"), "", "claim", (slug,), spent.flops, spent.seconds, percent,
                content.get("higher_is_better") is not False, spent.mean,
            )
        )  # fmt: skip
        if why := text(comparison.get("why")):
            evidence.notes.append(f"{a} over {b}{f' on {over}' if several else ''}: {why}.")
    evidence.verdict = text(content.get("verdict")) or (evidence.findings[0].verdict if evidence.findings else "")
    evidence.facts = labelled(
        ("Claim", content["claim"]),
        ("Paper", " ".join(part for part in (text(paper.get("statement")), text(paper.get("value"))) if part)),
        ("Where", paper.get("where")),
        ("Data", _data_words(data)),
        ("Machine", content.get("hardware") if isinstance(content.get("hardware"), str) else ""),
        ("Date", content.get("date")),
    )
    evidence.notes += [text(note) for key in ("notes", "leaks") for note in listed(content.get(key))]
    evidence.commands = [command] if (command := text(content.get("command"))) else []
    evidence.figure, evidence.figure_alt = _figure_beside(path), f"Figure of the claim: {evidence.sentence}"
    return evidence


def _claim_arm(arm: dict[str, Any], tasks: tuple[str, ...], on: str) -> Arm:
    """Its figures: the mean over these tasks; none: the metric."""
    runs = [mapping(run) for run in listed(arm.get("runs"))]
    scores = [mapping(run.get("tasks")) for run in runs]
    unequal = text(arm.get("unequal"))
    return Arm(
        text(arm.get("arm")) + on,
        [mean_of(mean_of(listed(of_run.get(task))) for task in tasks) for of_run in scores] if tasks else [finite(run.get("metric")) for run in runs],
        mean_of(run.get("train_flops") for run in runs),
        mean_of(run.get("wall_s") for run in runs),
        note=unequal,
    )


def _data_words(data: dict[str, Any]) -> str:
    sizes = [f"{words.number(data[name])} {name}" for name in ("train", "test") if isinstance(data.get(name), int)]
    split = text(data.get("split"))
    return ", ".join(part for part in (text(data.get("name")), *sizes, f"split {split}" if split else "") if part)


def advice(content: dict[str, Any], path: Path) -> Evidence:
    """runs/advice/NAME/advice.json."""
    verdict, look = mapping(content.get("verdict")), mapping(content.get("look"))
    measured = text(content.get("metric"))
    percent, metric = measured in SHARES, {"knn_halves": "kNN of document halves"}.get(measured, measured)
    evidence = Evidence(path, "advice", f"Advice for {text(look.get('data')) or path.parent.name}", metric=metric, percent=percent)
    evidence.verdict = text(verdict.get("word")) or text(content.get("status"))
    evidence.sentence = text(verdict.get("sentence")) or "The trial is going on."
    arms = [mapping(arm) for arm in listed(content.get("arms"))]
    methods = {text(arm.get("arm")): text(arm.get("method")) for arm in arms}
    evidence.slugs = tuple(dict.fromkeys(filter(None, methods.values())))
    candidates = {text(entry.get("arm")): entry for entry in map(mapping, listed(content.get("candidates")))}
    budget = mapping(content.get("budget"))
    for entry in arms:
        evidence.arms.append(_tried(entry, percent))
        gain = mapping(entry.get("gain"))
        if "value" in gain and text(entry.get("kind")) != "random start":
            name, interval = text(entry.get("arm")), pair(gain.get("ci95"))
            word = {"helps": "should help", "hurts": "does not help"}.get(word_of(interval), "not enough evidence")
            evidence.findings.append(
                Finding(
                    name, "a random start", metric, f"expected at the full budget, {path.parent.name}", finite(gain["value"]), interval, word,
                    TONES.get(word, "open"), "", "advice", (methods[name],), finite(budget.get("flops")),
                    60 * finite(candidates.get(name, {}).get("minutes")), percent, reached=finite(mapping(entry.get("full")).get("value")),
                    over_start=True,
                )
            )  # fmt: skip
    chart = [_series(entry, "flops", lambda point: mean_of(listed(point.get("values")))) for entry in arms]
    evidence.arms_caption = "At the last rung that each arm reached; a dot is one split of the labels."
    evidence.charts = [_points_chart(f"{metric} against training FLOPs", "FLOPs", chart)]
    if left_out := [mapping(row) for row in listed(content.get("left_out"))]:
        rows = [[text(row.get("method")), text(row.get("why")), _budget(row.get("minutes"))] for row in left_out]
        evidence.tables.append(("Left out of the trial", ["Method", "Why", "Budget that would do"], rows))
    worth = text(mapping(content.get("labels_worth")).get("sentence"))
    leaks = text(mapping(content.get("leaks")).get("sentence"))
    evidence.notes = [note for note in (worth, leaks, *map(text, listed(verdict.get("notes")))) if note]
    evidence.facts = labelled(
        ("Evidence", content.get("evidence")),
        ("Found in the data", ", ".join(f"{words.number(n)} {kind}" for kind, n in mapping(look.get("kinds")).items())),
        ("Budget asked about", _minutes(budget.get("minutes"))),
        ("Ranking", " > ".join(text(name) for name in listed(content.get("ranking"))[:20])),
        ("Date", content.get("date")),
    )
    commands = mapping(content.get("commands"))
    evidence.commands = [command for key in ("pretrain", "after") for command in _lines(commands.get(key))]
    return evidence


def _tried(entry: dict[str, Any], percent: bool) -> Arm:
    """An arm of a trial: its last point, and what the full budget should reach."""
    points, full = [mapping(point) for point in listed(entry.get("points"))], mapping(entry.get("full"))
    last = points[-1] if points else {}
    arm = Arm(text(entry.get("arm")), [finite(value) for value in listed(last.get("values"))], finite(last.get("flops")), finite(last.get("wall_s")))
    if "value" in full:
        arm.note = f"full budget: {value_words(finite(full['value']), percent)}" + interval_words(pair(full.get("ci95")), percent)
        arm.note += "" if entry.get("fitted") else ", a range, no curve"
    if isinstance(entry.get("dropped_after"), int):
        arm.note += f"{'; ' if arm.note else ''}left the trial after rung {entry['dropped_after'] + 1}"
    return arm


def comparison(content: dict[str, Any], path: Path) -> Evidence:
    """runs/comparisons/NAME/comparison.json."""
    measured = text(content.get("metric"))
    percent, metric = measured in SHARES, {"halves": "document halves"}.get(measured, measured)
    evidence = Evidence(path, "comparison", text(content.get("name")) or path.parent.name, metric=metric, percent=percent)
    going_on = content.get("status") == "running"
    evidence.sentence = text(content.get("sentence")) or ("The comparison is going on." if going_on else "")
    evidence.verdict = "running" if going_on else "better" if content.get("winner") is not None else "not enough evidence"
    rows = {text(row.get("arm")): row for row in map(mapping, listed(content.get("compared")))}
    arms = [mapping(arm) for arm in listed(content.get("arms"))]
    methods = {text(arm.get("arm")): text(arm.get("method")) for arm in arms}
    evidence.slugs = tuple(dict.fromkeys(filter(None, methods.values())))
    starts = {text(arm.get("arm")) for arm in arms if arm.get("kind") == "random"}
    for found in map(mapping, listed(content.get("comparisons"))):
        a, b, word = text(found.get("a")), text(found.get("b")), text(found.get("verdict"))
        spent = rows.get(a, {})
        evidence.findings.append(
            Finding(
                a, b, metric, evidence.title, finite(found.get("difference")), pair(found.get("ci95")), word, TONES.get(word, "open"), "",
                "comparison", tuple(filter(None, (methods.get(a),))), finite(spent.get("flops")), finite(spent.get("wall_s")), percent,
                reached=finite(spent.get("value")), over_start=b in starts,
            )
        )  # fmt: skip
        if found.get("equal_compute") is False:
            evidence.notes.append(text(found.get("sentence")) or f"{a} and {b} did not have equal compute.")
    for arm in arms:
        row, points = rows.get(text(arm.get("arm")), {}), _of_most_labels(arm)
        values = [finite(value) for seeds in listed(points[-1].get("values")) for value in _flat(seeds)] if points else []
        note = f"at equal compute {value_words(finite(row.get('value')), percent)}{interval_words(pair(row.get('ci95')), percent)}" if row else ""
        if values or row or not going_on:
            evidence.arms.append(Arm(text(arm.get("arm")), values, finite(row.get("flops")), finite(row.get("wall_s")), note=note))
    evidence.arms.sort(key=lambda arm: list(rows).index(arm.name) if arm.name in rows else len(rows))
    if evidence.arms:
        evidence.arms_caption = "With all labels; a dot is one training. The interval is that of the comparison at equal compute."
        with_all = [arm | {"points": _of_most_labels(arm)} for arm in arms]
        evidence.charts = [
            _points_chart(f"{metric} against training FLOPs", "FLOPs", [_series(arm, "flops") for arm in with_all]),
            _points_chart(f"{metric} against pre-training time", "seconds", [_series(arm, "wall_s") for arm in with_all]),
        ]
    ends = [arm | {"points": [p for p in map(mapping, listed(arm.get("points"))) if p.get("final") is not False]} for arm in arms]
    by_labels = [_series(arm, "labels") for arm in ends]
    if len({x for series in by_labels for x in series["x"]}) > 1:
        evidence.charts.append(_points_chart(f"{metric} against the number of labels", "labels", by_labels))
    worth = [text(mapping(row).get("sentence")) for row in listed(content.get("worth"))]
    evidence.notes += [note for note in (*worth, *(text(note) for key in ("notes", "leaks") for note in listed(content.get(key)))) if note]
    data = mapping(content.get("data"))
    evidence.facts = labelled(
        ("Evidence", content.get("evidence")),
        ("Task", ", ".join(filter(None, (text(content.get("task")), text(content.get("measure")))))),
        ("Labelled records", data.get("train_records")),
        ("Test records", data.get("test_records")),
        ("Split", data.get("split")),
        ("Compute", mapping(content.get("equal_compute")).get("sentence")),
        ("Date", content.get("date")),
    )
    commands = mapping(content.get("commands"))
    evidence.commands = [command for key in ("load", "finetune") for command in _lines(commands.get(key))]
    return evidence


def _of_most_labels(arm: dict[str, Any]) -> list[dict[str, Any]]:
    """The points of an arm that were measured with the most labels."""
    points = [mapping(point) for point in listed(arm.get("points"))]
    most = max((finite(point.get("labels")) for point in points), default=math.nan)
    return [point for point in points if finite(point.get("labels")) == most]


def _series(arm: dict[str, Any], x: str, y: Callable[[dict[str, Any]], float] = lambda point: finite(point.get("mean"))) -> dict[str, Any]:
    """The points of an arm as a series of a chart: their field `x`, and what `y` says of them."""
    points = [mapping(point) for point in listed(arm.get("points"))]
    return {"label": text(arm.get("arm")), "x": [finite(point.get(x)) for point in points], "y": [y(point) for point in points]}


READERS: dict[str, Callable[[dict[str, Any], Path], Evidence]] = {
    "claim": claim,
    "comparison": comparison,
    "advice": advice,
    "fine-tuning": fine_tuning,
    "probe": probe,
    "demo": demo,
}
"""Kind of a result -> who reads it."""


# words


def _flat(value: Any) -> list[Any]:
    return listed(value) if isinstance(value, list) else [value]


def _minutes(value: Any) -> str:
    return words.duration(60 * minutes) if math.isfinite(minutes := finite(value)) else ""


def _budget(value: Any) -> str:
    """A budget that would do: as `advise` says it, never less than the number in the file."""
    minutes = finite(value)
    return f"{words.rounded_up(minutes)} min" if math.isfinite(minutes) and minutes > 0 else ""


def _lines(value: Any) -> list[str]:
    return [text(line) for line in (value if isinstance(value, list) else [value]) if text(line)]


def _points_chart(title: str, x_label: str, series: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A chart of measured points by a quantity of compute."""
    kept = [
        {"label": entry["label"], "x": [x for x, _ in points], "y": [y for _, y in points]}
        for entry in series
        if (points := sorted((x, y) for x, y in zip(entry["x"], entry["y"], strict=True) if math.isfinite(x) and math.isfinite(y)))
    ]
    return {"title": title, "x_label": x_label, "points": True, "series": kept}


def _figure_beside(path: Path) -> str:
    """The SVG or PNG of the same name; as an image of a page it can run nothing."""
    for ending, kind in ((".svg", "image/svg+xml"), (".png", "image/png")):
        figure = path.with_suffix(ending)
        if figure.is_file() and not figure.is_symlink():
            try:
                return data_uri(read_bounded(figure, MAX_FIGURE_BYTES, "figure of a report"), kind)
            except BadInput:
                continue
    return ""
