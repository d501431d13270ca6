"""Results of networks on labelled records, each beside random starts: fine-tuning, the demonstration, probes of frozen features."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from headstart.core import words
from headstart.report.loose import labelled, listed, mapping, mean_of, pair, text
from headstart.report.parts import SHARES, TONES, Arm, Evidence, Finding, value_words, word_of
from headstart.report.pictures import run_pictures
from headstart.verbs._follow import finite


def fine_tuning(content: dict[str, Any], path: Path) -> Evidence:
    """result.json of `headstart finetune --out FOLDER`."""
    metric, task = text(content.get("metric")), text(content.get("task"))
    percent, higher_is_better = metric in SHARES, content.get("higher_is_better") is not False
    evidence = Evidence(path, "fine-tuning", f"{task or 'fine-tuning'}, {path.parent.name}", metric=metric, percent=percent)
    evidence.sentence = text(content.get("verdict"))
    for entry in map(mapping, listed(content["arms"])):
        runs = [mapping(run) for run in listed(entry.get("runs"))]
        values = [finite(mapping(run.get("metrics")).get(metric)) for run in runs]
        rate = finite(entry.get("learning_rate"))
        note = f"learning rate {rate:g}" if math.isfinite(rate) else ""
        evidence.arms.append(Arm(text(entry.get("arm")), values, seconds=mean_of(run.get("wall_s") for run in runs), note=note))
    difference, interval = finite(content.get("difference")), pair(content.get("ci95"))
    if math.isfinite(difference):
        evidence.verdict = word_of(interval, higher_is_better)
        evidence.findings = [
            Finding(
                path.parent.name, "a random start", metric, task, difference, interval, evidence.verdict, evidence.tone, "", "fine-tuning",
                percent=percent, higher_is_better=higher_is_better, reached=evidence.arms[0].mean, over_start=True, model=text(content.get("model")),
            )
        ]  # fmt: skip
    evidence.facts = labelled(("Model", content.get("model")), *((text(k), v) for k, v in list(mapping(content.get("data")).items())[:12]))
    evidence.notes = [text(note) for key in ("warnings", "leaks") for note in listed(content.get(key))]
    pictures, left_out = run_pictures(path.parent)  # predictions of a dense task
    if pictures:
        evidence.figure, evidence.figure_alt = pictures[-1].uri, pictures[-1].caption
    evidence.notes += left_out
    return evidence


def demo(content: dict[str, Any], path: Path) -> Evidence:
    """result.json of `headstart demo`: each network beside its own random start."""
    from headstart.tasks.metrics import paired_difference

    task = mapping(content.get("task"))
    evidence = Evidence(path, "fine-tuning", f"The demonstration in {path.parent.name}", metric="accuracy", percent=True)
    evidence.sentence = text(content.get("sentence"))
    entries = [mapping(entry) for entry in listed(content["arms"])]
    evidence.arms = [
        Arm(text(entry.get("arm")), [finite(v) for v in listed(entry.get("accuracy"))], finite(entry.get("flops")), finite(entry.get("seconds")))
        for entry in entries
    ]
    for trained, start in zip(evidence.arms[::2], evidence.arms[1::2], strict=False):
        difference, interval = paired_difference(trained.values, start.values)
        word = word_of(interval)
        evidence.findings.append(
            Finding(
                trained.name, "a random start", "accuracy", "which package a sentence documents", difference, interval, word, TONES.get(word, "open"),
                "", "fine-tuning", (trained.name,), trained.flops, trained.seconds, percent=True, reached=trained.mean, over_start=True,
            )
        )  # fmt: skip
    evidence.facts = labelled(
        ("Classes", ", ".join(text(name) for name in listed(task.get("classes")))),
        ("Labelled sentences a class", task.get("labelled_per_class")),
        ("Split", task.get("split")),
        ("Date", content.get("date")),
    )
    return evidence


def probe(content: dict[str, Any], path: Path) -> Evidence:
    """probe.json of `headstart probe --out FOLDER`."""
    metric = "linear probe accuracy"
    evidence = Evidence(path, "probe", f"Probe, {path.parent.name}", metric=metric, percent=True)
    rows = []
    for entry in map(mapping, listed(content["models"])):
        name, random = text(entry.get("model")), [mapping(one) for one in listed(entry.get("random"))]
        mine = Arm(name, [finite(entry.get("linear_probe_accuracy"))])
        evidence.arms += [mine, *([Arm(f"{name}, random start", [finite(one.get("linear_probe_accuracy")) for one in random])] if random else [])]
        rank = f"{words.number(finite(entry.get('rankme')), 3)} of {words.number(entry.get('dim'))}"
        rows.append([name, value_words(mine.mean, True), value_words(finite(entry.get("knn_accuracy")), True), rank])
        difference, interval = finite(entry.get("difference")), pair(entry.get("ci95"))
        if math.isfinite(difference):
            word = word_of(interval)
            evidence.findings.append(
                Finding(
                    name, "a random start", metric, evidence.title, difference, interval, word, TONES.get(word, "open"), "", "probe", percent=True,
                    reached=mine.mean, over_start=True, model=name,
                )
            )  # fmt: skip
    evidence.sentence = " ".join(filter(None, (text(mapping(entry).get("verdict")) for entry in listed(content["models"]))))
    evidence.verdict = evidence.findings[0].verdict if len(evidence.findings) == 1 else ""
    evidence.tables = [("Frozen features", ["Network", "Linear probe", "Nearest neighbours", "RankMe"], rows)]
    data = mapping(content.get("data"))
    evidence.facts = labelled(*((text(name), value) for name, value in list(data.items())[:12]))
    evidence.notes = [text(note) for note in listed(content.get("leaks"))]
    return evidence
