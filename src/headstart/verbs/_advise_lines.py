"""What `advise` says, as lines; all of it from advice.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core.words import aligned, rounded_up
from headstart.engine.metrics import duration
from headstart.verbs import _advise_look
from headstart.verbs._advise_trial import TRIAL_SHARE
from headstart.verbs._advise_verdict import CANDIDATE, in_words

SHOWN_CLASSES = 6
SHOWN_LEFT_OUT = 6


def opening_line(asked: dict[str, Any]) -> str:
    """The question, and what the answer may take."""
    minutes = asked["budget"]["minutes"]
    judged = "by held-out documents, without labels" if asked["labels"] is None else f"by the labels in {asked['labels']}"
    return (
        f"Question: which pre-training on {', '.join(asked['data'])} helps, how much, at what cost? Judged {judged}. {in_words(minutes)} in all:"
        f" a fifth ({duration(60 * TRIAL_SHARE * minutes)}) for the answer, the rest for the winner's run."
    )


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
    """What this budget can judge, the candidates with their cost, and what was left out."""
    budget = info["budget"]
    tried = [entry for entry in info["left_out"] if entry["why"] != "fits the data, has no code yet"]
    report = [*judged_lines(info, tried)]
    if info["candidates"]:
        report.append(f"Candidates: a whole run has {budget['flops']:.3g} training FLOPs, {budget['run_minutes']:g} minutes or less here")
    for entry in info["candidates"]:
        plateau = "" if entry["plateau_step"] is None else f"; off the unigram plateau after about {entry['plateau_step']:,} steps"
        report.append(
            f"  {entry['arm']:<22} {entry['steps']:>7,} steps, {entry['minutes']:.1f} min, {entry['tokens_per_second']:,.0f} tokens/s{plateau}"
        )
    for entry in tried[:SHOWN_LEFT_OUT]:
        needs = "" if entry["minutes"] is None else f"; about --budget.minutes {rounded_up(entry['minutes'])} would do"
        report.append(f"  left out: {entry['method']}: {entry['why']}{needs}")
    if waiting := [entry["method"] for entry in info["left_out"] if entry not in tried]:
        report.append(f"  fit the data, but have no code yet: {', '.join(waiting)}")
    return report


def judged_lines(info: dict[str, Any], tried: list[dict[str, Any]]) -> list[str]:
    """The budget in plain words: whom it can judge, and where its minutes go. Nothing where there is no trial."""
    if not info["rungs"]:
        return []
    budget, plan, rungs, spent = info["budget"], info["plan"], info["rungs"], info["spent"]
    names = [arm["arm"] for arm in info["arms"] if arm["kind"] == CANDIDATE]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    missing = [entry for entry in tried if entry["minutes"] is not None]
    without = "".join(f", not {entry['method']} (from {rounded_up(entry['minutes'])} minutes on)" for entry in missing[:SHOWN_LEFT_OUT])
    before = spent["speed_s"] if spent["training_s"] else spent["speed_s"] + spent["measuring_s"]
    answer = before + plan["training_s"] + plan["measuring_s"]
    how = f"{plan['splits']} halves of the labels" if info["evidence"] == "labels" else f"{plan['documents']:,} held-out documents at most"
    stops = "one stop" if len(rungs) == 1 else f"{len(rungs)} stops"
    return [
        f"This budget can judge {listed}{without}: the answer in about {duration(answer)} ({duration(plan['training_s'])} of training, "
        f"{duration(plan['measuring_s'])} of measuring), then at most {duration(60 * budget['run_minutes'])} for the winner's run:"
        f" {in_words(budget['minutes'])} in all, beside the {duration(spent['preparing_s'])} of preparing the data.",
        f"Trial: {stops} at equal FLOPs, the last after {rungs[-1]['flops'] / budget['flops']:.1%} of a run; each arm is measured on {how}.",
    ]


def point_line(arm: dict[str, Any], point: dict[str, Any], info: dict[str, Any]) -> str:
    """One measurement."""
    values = np.array(point["values"])
    share = point["flops"] / info["budget"]["flops"]
    where = "" if arm["kind"] != CANDIDATE else f" at step {point['step']:,} ({share:.1%} of its run)"
    rank = "" if point["rankme"] is None else f", RankMe {point['rankme']:.1f}"
    return f"  {arm['arm']}{where}: {info['metric']} {values.mean():.3f} ± {values.std(ddof=1):.3f} over {len(values)} splits{rank}"


def shortened_line(share: float, kept: Sequence[str], gone: Sequence[str]) -> str:
    """What becomes of a trial whose measuring takes longer than expected.

    Args:
        share: of a whole run, at its last rung. kept, gone: the arms that there is time for, and those that there is none for.
    """
    less = f", and there is time for {' and '.join(kept)}, not for {' and '.join(gone)}" if gone else ""
    return f"Measuring takes longer here than expected: the trial ends after {share:.1%} of a run{less}."


def closing_lines(info: dict[str, Any]) -> list[str]:
    """The answer: verdict, ranking, what it cost, commands."""
    verdict, budget, spent = info["verdict"], info["budget"], info["spent"]
    report = ["", f"Answer: {verdict['sentence']}", *(f"  {note}" for note in verdict["notes"]), *ranking_lines(info)]
    if info["labels_worth"] is not None:
        report.append(f"Labels: {info['labels_worth']['sentence']}")
    if info["leaks"] is not None:
        report.append(f"Leaks: {info['leaks']['sentence']}")
    answer = spent["speed_s"] + spent["training_s"] + spent["measuring_s"]
    report.append(
        f"Spent: {duration(answer)} for the answer ({duration(spent['speed_s'])} measuring speeds, {duration(spent['training_s'])} of training,"
        f" {duration(spent['measuring_s'])} of measuring) of {duration(budget['trial_seconds'])}, a fifth of {in_words(budget['minutes'])};"
        f" beside it {duration(spent['preparing_s'])} of preparing the data."
    )
    commands = info["commands"]
    if commands["pretrain"] is not None:
        left = f"about {duration(run_left_s(info))} more; it goes on where the trial left it"
        winner = verdict["winner"] is not None
        report.append(f"Do it ({left}):" if winner else f"If you want to pre-train all the same ({left}):")
        report.append(f"  {commands['pretrain']}")
    if commands["after"] is not None:
        report += ["Then, for the final verdict on a test file:", f"  {commands['after']}"]
    return report


def ranking_lines(info: dict[str, Any]) -> list[str]:
    """A table: measured and forecast, each gain over the same best random start."""
    if not info["ranking"]:
        return []
    arms = {arm["arm"]: arm for arm in info["arms"]}
    minutes = {entry["arm"]: entry["minutes"] for entry in info["candidates"]}
    over = next((arm["gain_now"]["over"] for arm in info["arms"] if arm["gain_now"] is not None), None)
    rows = [["", "arm", f"{info['metric']} now", "over the best random start", "after its whole run", "cost", ""]]
    for place, name in enumerate(info["ranking"], start=1):
        arm = arms[name]
        trained = arm["kind"] == CANDIDATE
        gain = "the best random start" if name == over else "" if arm["gain_now"] is None else between(arm["gain_now"], "+.3f")
        remarks = [] if not trained or arm["fitted"] else ["a range, no curve"]
        remarks += [] if arm["dropped_after"] is None else [f"left after stop {arm['dropped_after'] + 1}"]
        last = f"{np.mean(arm['points'][-1]['values']):.3f}"
        full = between(arm["full"], ".3f") if trained else "as now"
        rows.append([str(place), name, last, gain, full, f"{minutes[name]:.1f} min" if trained else "none", ", ".join(remarks)])
    head = f"Ranking by what a whole run of {info['budget']['run_minutes']:g} minutes or less should reach (95 % intervals)"
    return [head, *(f"  {line}" for line in aligned(rows))]


def between(found: dict[str, Any], form: str) -> str:
    """A value with its interval."""
    low, high = found["ci95"]
    return f"{found['value']:{form}} ({low:{form}} to {high:{form}})"


def run_left_s(info: dict[str, Any]) -> float:
    """Seconds of the best candidate's run that the trial has not trained."""
    best = next(arm for name in info["ranking"] for arm in info["arms"] if arm["arm"] == name and arm["kind"] == CANDIDATE)
    entry = next(entry for entry in info["candidates"] if entry["arm"] == best["arm"])
    done, start = 0.0, 0
    for phase, stop in entry["spans"]:
        done += max(0, min(stop, best["points"][-1]["step"]) - start) * entry["seconds_per_step"][phase]
        start = stop
    return max(0.0, 60 * float(entry["minutes"]) - done)
