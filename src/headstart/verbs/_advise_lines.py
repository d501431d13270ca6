"""What `advise` says, as lines; all of it from advice.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.engine.metrics import duration
from headstart.verbs import _advise_look
from headstart.verbs._advise_verdict import CANDIDATE

SHOWN_CLASSES = 6
SHOWN_LEFT_OUT = 6


def look_lines(info: dict[str, Any]) -> list[str]:
    """The page on data, labels and machine."""
    page = info["look"]
    report = ["Look", *_advise_look.lines(page)]
    if labels := page["labels"]:
        counts = list(labels["classes"].items())
        shown = ", ".join(f"{name} {n:,}" for name, n in counts[:SHOWN_CLASSES]) + (", ..." if len(counts) > SHOWN_CLASSES else "")
        report.append(f"  labels     {labels['records']:,} records in {len(counts)} classes: {shown}")
        if labels["repeated"]:
            contradicting = f", {labels['contradictory']:,} texts with two labels" if labels["contradictory"] else ""
            report.append(f"  WARNING    {labels['repeated']:,} labelled records repeat the text of another{contradicting}")
        if labels["records"] < 100:
            report.append("  WARNING    under 100 labels: only large differences will show")
    else:
        report.append("  labels     none: the evidence is how well held-out documents are told apart, which is weaker; give --labels FILE")
    machine = page["machine"]
    memory = "" if machine["memory_bytes"] is None else f", {machine['memory_bytes'] / 2**30:.0f} GiB"
    rate = machine["flops_per_second"] / 1e9
    report.append(f"  machine    {machine['device']}, {machine['cores']} cores{memory}; a large matrix product runs at {rate:,.0f} GFLOP/s")
    return report


def candidate_lines(info: dict[str, Any]) -> list[str]:
    """The candidates with their cost, and what was left out."""
    report = []
    if info["candidates"]:
        budget = info["budget"]
        report.append(f"Candidates, each with the same {budget['flops']:.3g} training FLOPs: {budget['minutes']:g} minutes or less here")
    for entry in info["candidates"]:
        plateau = "" if entry["plateau_step"] is None else f"; off the unigram plateau after about {entry['plateau_step']:,} steps"
        report.append(
            f"  {entry['arm']:<22} {entry['steps']:>7,} steps, {entry['minutes']:.1f} min, {entry['tokens_per_second']:,.0f} tokens/s{plateau}"
        )
    tried = [entry for entry in info["left_out"] if entry["why"] != "fits the data, has no code yet"]
    for entry in tried[:SHOWN_LEFT_OUT]:
        needs = "" if entry["minutes"] is None else f"; about --budget.minutes {entry['minutes']:.2g} would do"
        report.append(f"  left out: {entry['method']}: {entry['why']}{needs}")
    if waiting := [entry["method"] for entry in info["left_out"] if entry not in tried]:
        report.append(f"  fit the data, but have no code yet: {', '.join(waiting)}")
    return report


def spending_lines(info: dict[str, Any], seconds_a_point: float | None) -> list[str]:
    """What the trial will spend, said before it begins."""
    rungs = info["rungs"]
    training = sum(rung["seconds"] for rung in rungs)
    points = sum(rung["keep"] for rung in rungs) + sum(arm["kind"] != CANDIDATE for arm in info["arms"])
    count = "one rung," if len(rungs) == 1 else f"{len(rungs)} rungs"
    measuring = "a moment" if seconds_a_point is None else f"about {duration(seconds_a_point * points)}"
    return [
        f"Trial: {count} up to {rungs[-1]['flops'] / info['budget']['flops']:.1%} of the budget: about {duration(training)} of training"
        f" (a fifth of the budget is {duration(info['budget']['trial_seconds'])}), and {measuring} of measuring ({points} measurements)"
    ]


def point_line(arm: dict[str, Any], point: dict[str, Any], info: dict[str, Any]) -> str:
    """One measurement."""
    values = np.array(point["values"])
    share = point["flops"] / info["budget"]["flops"]
    where = "" if arm["kind"] != CANDIDATE else f" at step {point['step']:,} ({share:.1%} of the budget)"
    rank = "" if point["rankme"] is None else f", RankMe {point['rankme']:.1f}"
    return f"  {arm['arm']}{where}: {info['metric']} {values.mean():.3f} ± {values.std(ddof=1):.3f} over {len(values)} splits{rank}"


def closing_lines(info: dict[str, Any]) -> list[str]:
    """Ranking, verdict, commands."""
    arms = {arm["arm"]: arm for arm in info["arms"]}
    minutes = {entry["arm"]: entry["minutes"] for entry in info["candidates"]}
    report = []
    if info["ranking"]:
        report += [f"Ranking by what {info['budget']['minutes']:g} minutes should reach ({info['metric']}, 95 % intervals)"]
        width = max(map(len, info["ranking"])) + 2
        for place, name in enumerate(info["ranking"], start=1):
            arm = arms[name]
            full, last = arm["full"], float(np.mean(arm["points"][-1]["values"]))
            gain = ""
            if arm["gain"] is not None:
                low, high = arm["gain"]["ci95"]
                gain = f"  gain {arm['gain']['value']:+.3f} ({low:+.3f} to {high:+.3f})"
            cost = f"{minutes[name]:.1f} min" if arm["kind"] == CANDIDATE else "no cost"
            how = "" if arm["kind"] != CANDIDATE or arm["fitted"] else "  (a range, no curve)"
            dropped = "" if arm["dropped_after"] is None else f"  (left the trial after rung {arm['dropped_after'] + 1})"
            report.append(
                f"  {place}  {name:<{width}}now {last:.3f}  full {full['value']:.3f} ({full['ci95'][0]:.3f} to {full['ci95'][1]:.3f}){gain}"
                f"  {cost}{how}{dropped}"
            )
    verdict = info["verdict"]
    report.append(f"Verdict: {verdict['sentence']}")
    report += [f"  {note}" for note in verdict["notes"]]
    if info["labels_worth"] is not None:
        report.append(f"Labels: {info['labels_worth']['sentence']}")
    if info["leaks"] is not None:
        report.append(f"Leaks: {info['leaks']['sentence']}")
    spent = info["spent"]
    report.append(f"Spent: {duration(spent['training_s'])} of training, {duration(spent['measuring_s'])} of measuring.")
    commands = info["commands"]
    if commands["pretrain"] is not None:
        winner = verdict["winner"] is not None
        report.append("Do it (the run goes on where the trial left it):" if winner else "If you want to pre-train all the same, this run goes on:")
        report.append(f"  {commands['pretrain']}")
    if commands["after"] is not None:
        report += ["Then:", f"  {commands['after']}"]
    return report
