"""What a person reads of a comparison. Pure: JSON-ready dictionaries in, lines out."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.core.words import aligned, plural
from headstart.engine.metrics import duration
from headstart.tasks.config import FinetuneConfig
from headstart.verbs._advise_verdict import in_words
from headstart.verbs._compare_arms import Arm


def question(found: Sequence[Arm], labels: Path | None, minutes: float | None) -> str:
    """What is asked, in a sentence."""
    names = [arm.name for arm in found if not arm.fresh]
    several = f"which of {', '.join(names)} is best, and is it better than a random start"
    asked = several if len(names) > 1 else f"is {names[0]} better than a random start"
    judged = "without labels, by halves of held-out documents" if labels is None else f"by the labels in {labels}"
    time = "" if minutes is None else f", in {in_words(minutes)}"
    return f"Question: {asked}? Judged {judged}{time}."


def arms(found: Sequence[Arm], equal: Mapping[str, Any] | None) -> list[str]:
    """What is compared."""
    lines = []
    for arm in found:
        if arm.fresh:
            lines.append(f"  {arm.name}: the same network, never pre-trained")
            continue
        flops = arm.flops(-1)
        cost = f"{flops:.3g} FLOPs, {duration(arm.wall_s(-1) or 0)}" if flops is not None else "pre-training compute not known"
        seeds = f", {len(arm.sources)} pre-training seeds" if len(arm.sources) > 1 else ""
        exports = f", {len(arm.stations())} exports" if len(arm.stations()) > 1 else ""
        lines.append(f"  {arm.name}: {arm.info.get('method', 'a model folder')}, {cost}{seeds}{exports}")
    return ["Compared:", *lines, *([] if equal is None else [equal["sentence"]])]


def plan(found: Mapping[str, Any], minutes: float | None) -> list[str]:
    """What will be measured, and how long it takes."""
    about = f"about {found['minutes']:.1f} minutes" if found["minutes"] >= 1 else f"about {60 * found['minutes']:.0f} s"
    line = (
        f"Plan: {plural(found['points'], 'training')} of about {found['seconds_a_point']:.1f} s, {about}:"
        f" {plural(found['seeds'], 'seed')}, labels {', '.join(map(str, found['labels']))}."
    )
    lines = [line]
    if found["left_out"]:
        lines.append(f"Left out to fit {in_words(minutes or 0)}: {', '.join(found['left_out'])}.")
    if minutes is not None and found["minutes"] > minutes:
        lines.append(f"Even the least takes about {found['minutes']:.1f} minutes, more than the {minutes:g} given.")
    return lines


def point(arm: str, found: Mapping[str, Any], metric: str) -> str:
    """A measured point in a line."""
    where = [] if found["final"] or found["step"] is None else [f"step {found['step']:,}"]
    labels = [] if found["labels"] is None else [f"{found['labels']:,} labels"]
    return f"{', '.join([arm, *where, *labels])}: {metric} {value(found['mean'], found['ci95'])}"


def value(mean: float, interval: Sequence[float] | None) -> str:
    """A metric with its interval."""
    return f"{mean:.3f}" if interval is None else f"{mean:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def closing(info: Mapping[str, Any], out: Path) -> list[str]:
    """Table, verdict, what to know, what to type next."""
    metric = info["metric"]
    beside = info["evidence"] == "no labels"
    header = ["arm", f"{metric} (95 % interval)", "FLOPs", "time", "read", *(["RankMe", "held-out loss"] if beside else [])]
    by_name = {arm["arm"]: arm for arm in info["arms"]}
    rows = [header]
    for row in info["compared"]:
        flops = "?" if row["flops"] is None else f"{row['flops']:.3g}"
        wall = "?" if row["wall_s"] is None else duration(row["wall_s"])
        cells = [row["arm"], value(row["value"], row["ci95"]), flops, wall, row["how"]]
        if beside:
            arm = by_name[row["arm"]]
            loss = arm["loss"]
            cells += ["" if arm["rankme"] is None else f"{arm['rankme']:.1f}", _loss(loss)]
        rows.append(cells)
    lines = ["", f"Answer: {info['sentence']}", "", *aligned(rows), ""]
    if len(info["comparisons"]) > 1:
        lines += [*(f"{one['verdict']}: {one['sentence']}" for one in info["comparisons"]), ""]
    covers = list(dict.fromkeys(one["covers"] for one in info["comparisons"]))
    lines += [f"The intervals cover {covers[0]}." if len(covers) == 1 else f"The intervals cover: {'; '.join(covers)}."]
    lines += [one["sentence"] for one in info["worth"]]
    lines += [*([] if info["equal_compute"] is None else [info["equal_compute"]["sentence"]]), *info["leaks"], *info["notes"]]
    lines += ["", f"Figures: {out / 'comparison.json'}", f"Load it:   {info['commands']['load']}", f"Fine-tune: {info['commands']['finetune']}"]
    return lines


def recipe_flags(config: FinetuneConfig, arm: Mapping[str, Any]) -> str:
    """The flags of `finetune` that repeat the recipe with the arm's learning rate."""
    default = FinetuneConfig()
    flags = "" if arm["learning_rate"] is None else f" --learning-rate {arm['learning_rate']:g}"
    names = (
        "epochs", "batch", "optimizer", "layer_decay", "pooling", "loss_reduction", "dropout", "max_length", "text_field", "second_field",
        "label_field",
    )  # fmt: skip
    for name in names:
        if (chosen := getattr(config, name)) != getattr(default, name):
            flags += f" --{name.replace('_', '-')} {shlex.quote(str(chosen))}"
    for name, chosen in vars(config.regulariser).items():
        if chosen != getattr(default.regulariser, name):
            flags += f" --regulariser.{name} {chosen}"
    return flags


def _loss(loss: Mapping[str, Any] | None) -> str:
    return "" if loss is None else f"{loss['value']:.3f}" if loss["comparable"] else f"{loss['value']:.3f} (not comparable)"
