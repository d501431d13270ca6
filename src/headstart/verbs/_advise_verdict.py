"""Ranking and verdict of `advise`, from the measured points of all arms. Pure: JSON-ready dictionaries in, the same filled out.

The rival of every arm is the best random start: with several networks the best of them, which speaks against pre-training. What an arm has over it
at its last rung is measured, and is one number with one interval wherever it is shown (`gain_now`); what the whole run should bring is a forecast.
The best of several methods is the luckiest too: its p value is corrected for their number (Holm 1979), as in `compare`, and so is a forecast's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.core.words import rounded_up
from headstart.engine.metrics import duration
from headstart.tasks.metrics import difference, holm
from headstart.verbs._advise_fit import TEST_SHARE, Interval, at_full_budget, fitted, resampled_means

CANDIDATE, RANDOM, GIVEN = "candidate", "random start", "given model"
SIGNIFICANT = 0.05
LARGER_BUDGETS = (2, 4, 8, 16, 32, 64, 128)


def judge(info: dict[str, Any]) -> None:
    """Sets `gain_now`, `full` and `gain` of every arm, `ranking` and `verdict` of an advice whose points are measured."""
    full_flops, minutes = info["budget"]["flops"], info["budget"]["minutes"]
    arms = {arm["arm"]: arm for arm in info["arms"] if arm["points"]}
    samples: dict[str, np.ndarray] = {}
    for name, arm in arms.items():
        values = measured(arm)
        if arm["kind"] == CANDIDATE:
            flops = np.array([point["flops"] for point in arm["points"]], dtype=np.float64)
            full, samples[name], arm["fitted"] = at_full_budget(flops, values, full_flops)
        else:  # costs nothing and gains nothing by waiting
            samples[name], arm["fitted"] = resampled_means(values)[:, 0], False
            full = Interval.of(float(values.mean()), np.clip(samples[name], 0.0, 1.0))
        arm["full"] = full.to_json()
    others = [arm for arm in arms.values() if arm["kind"] != RANDOM]
    starts = [arm for arm in arms.values() if arm["kind"] == RANDOM]
    random = max(starts, key=lambda arm: arm["full"]["value"]) if starts else None
    if random is not None:
        measured_gains(others, random)
        for arm in others:
            value = arm["full"]["value"] - random["full"]["value"]
            arm["gain"] = Interval.of(value, samples[arm["arm"]] - samples[random["arm"]]).to_json()
    info["ranking"] = sorted(arms, key=lambda name: -arms[name]["full"]["value"])
    others.sort(key=lambda arm: -arm["full"]["value"])
    if random is None or not others:
        info["verdict"] = no_trial(info)
        return
    best = others[0]
    lowest = float(np.quantile(samples[best["arm"]] - samples[random["arm"]], SIGNIFICANT / 2 / len(others)))
    verdict = compared(best, random, info, sure=bool(best["fitted"]) and lowest > 0)
    if len(others) > 1:
        second = others[1]
        apart = Interval.of(best["full"]["value"] - second["full"]["value"], samples[best["arm"]] - samples[second["arm"]])
        if apart.low <= 0:
            verdict["notes"].append(
                f"Not enough evidence that {best['arm']} is better than {second['arm']} after its whole run"
                f" ({apart.value:+.3f}, 95 % interval {apart.low:+.3f} to {apart.high:+.3f})."
            )
    if best["kind"] == CANDIDATE and not best["fitted"]:
        verdict["notes"].append(too_few(len(best["points"])))
    if verdict["word"] in ("does not help", "not enough evidence") and best["kind"] == CANDIDATE:
        verdict["notes"].append(larger_budget(best, random, full_flops, minutes))
    info["verdict"] = verdict


def measured_gains(arms: Sequence[dict[str, Any]], random: dict[str, Any]) -> None:
    """Sets `gain_now` of each arm: {value, ci95, p (corrected for the number of arms), over}."""
    found = [difference(measured(arm)[-1], measured(random)[0], test_share=TEST_SHARE, bounds=(-1.0, 1.0)) for arm in arms]
    for arm, one, p in zip(arms, found, holm([one.p for one in found]), strict=True):
        assert one.interval is not None, "no plan has fewer than four splits"
        arm["gain_now"] = {"value": one.mean, "ci95": list(one.interval), "p": p, "over": random["arm"]}


def too_few(points: int) -> str:
    """Why there is no curve."""
    if points == 1:
        return "One measured point makes no curve: what the whole run reaches is at least as uncertain as what was measured."
    reach = "from what was measured to what the last doubling promises"
    return f"{points} points are too few for a curve: what the whole run reaches is a range {reach}."


def measured(arm: dict[str, Any]) -> np.ndarray:
    """[points, splits]"""
    return np.array([point["values"] for point in arm["points"]], dtype=np.float64)


def compared(best: dict[str, Any], random: dict[str, Any], info: dict[str, Any], sure: bool) -> dict[str, Any]:
    """The verdict on the best arm against the best random start.

    Args:
        sure: its forecast is above that start, also as the best of several.
    """
    last, start = measured(best)[-1], measured(random)[0]
    now, gain, full, metric, name = best["gain_now"], best["gain"], best["full"], info["metric"], best["arm"]
    low, high = now["ci95"]
    clear = now["p"] < SIGNIFICANT
    methods = sum(arm["gain_now"] is not None for arm in info["arms"])
    corrected = f", p {now['p']:.2g} corrected for {methods} arms" if methods > 1 else ""
    share = best["points"][-1]["flops"] / info["budget"]["flops"]
    at = f"after {share:.0%} of its run" if best["kind"] == CANDIDATE else "as it is"
    seen = (
        f"{at} {metric} is {last.mean():.3f} against {start.mean():.3f} of the best random start"
        f" ({now['value']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}{corrected})"
    )
    should = (
        f"its whole run should reach {full['value']:.3f} ({full['ci95'][0]:.3f} to {full['ci95'][1]:.3f}),"
        f" {gain['value']:+.3f} ({gain['ci95'][0]:+.3f} to {gain['ci95'][1]:+.3f}) over that start"
    )
    sentence = f"{seen}; {should}" if best["kind"] == CANDIDATE and best["fitted"] else seen  # few points say nothing of the whole run
    winner: str | None = name
    if clear and now["value"] > 0:
        word, begins = "helps", f"{name} helps: "
    elif sure:
        word, begins = "should help", f"{name} should help by the end of its run: "
    elif (best["fitted"] and gain["ci95"][1] < 0) or (clear and now["value"] < 0 and gain["value"] <= 0):
        word, winner, begins = "does not help", None, f"Do not pre-train with this budget; the best method, {name}, stays behind: "
    else:
        word, begins = "not enough evidence", f"Not enough evidence that pre-training helps; the best guess is {name}: "
    if word == "not enough evidence" and full["value"] <= random["full"]["value"]:
        winner, begins = None, f"Not enough evidence that pre-training helps, and no sign of it; the best method is {name}: "
    weaker = "" if info["evidence"] == "labels" else " Without labels this is weak: vectors that tell documents apart need not tell your classes."
    return {"word": word, "winner": winner, "sentence": f"{begins}{sentence}.{weaker}", "gain_now": now, "notes": []}


def larger_budget(best: dict[str, Any], random: dict[str, Any], full_flops: float, minutes: float) -> str:
    """Which budget would do, as far as the curve says."""
    if best["fitted"]:
        flops = np.array([point["flops"] for point in best["points"]], dtype=np.float64)
        values, start = measured(best), measured(random)
        for times in LARGER_BUDGETS:
            reached = fitted(flops, values.mean(1)[None], times * full_flops)[0]
            low = np.quantile(fitted(flops, resampled_means(values), times * full_flops) - resampled_means(start)[:, 0], 0.025)
            if low > 0:
                return f"By this curve --budget.minutes {times * minutes:g} should do: it reaches {reached:.3f} against {start.mean():.3f}."
        return (
            f"By this curve not even {LARGER_BUDGETS[-1]} times the budget would clearly beat a random start: get more labels to see smaller"
            " differences, more unlabelled text, or a model to continue from (--init)."
        )
    return f"Too few points to say which budget would: try --budget.minutes {4 * minutes:g}, which makes a longer trial."


def in_words(minutes: float) -> str:
    return "1 minute" if minutes == 1 else f"{minutes:g} minutes"


def no_trial(info: dict[str, Any]) -> dict[str, Any]:
    """The verdict where nothing was tried."""
    reasons, notes = [entry for entry in info["left_out"] if entry["minutes"] is not None], []
    if info["candidates"]:
        if len(info["candidates"]) > 1:
            notes.append(f"Fewer methods need fewer minutes: --methods {info['candidates'][0]['method']}, for example.")
        needed = info["budget"]["needed_minutes"]
        sentence = f"No trial fits into a fifth of {duration(60 * info['budget']['minutes'])}: give --budget.minutes {rounded_up(needed)} or more."
    elif reasons:
        first = min(reasons, key=lambda entry: entry["minutes"])
        sentence = (
            f"Do not pre-train with this budget: no method leaves the unigram plateau in it. {first['method']} would with about"
            f" --budget.minutes {rounded_up(first['minutes'])}."
        )
    else:
        why = "; ".join(f"{entry['method']}: {entry['why']}" for entry in info["left_out"])
        sentence = f"No method can be tried on this data ({why})."
    return {"word": "no trial", "winner": None, "sentence": sentence, "notes": notes}
