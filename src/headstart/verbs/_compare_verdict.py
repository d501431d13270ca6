"""Who wins, and is it more than noise: equal compute, intervals, the correction for several comparisons, and the sentences. Pure functions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from headstart.tasks.metrics import FEWEST_SEEDS, Difference, difference, difference_range, holm, metric_range
from headstart.verbs._compare_arms import EQUAL_WITHIN, Arm
from headstart.verbs._compare_measure import Values

SIGNIFICANT = 0.05
NOT_ENOUGH = "not enough evidence"


@dataclass(frozen=True)
class Reading:
    """Where an arm is read: exports (from the end) with weights that add to 1."""

    parts: tuple[tuple[int, float], ...]
    flops: float | None
    wall_s: float | None
    how: str  # "as it ended", "at a checkpoint", "interpolated between checkpoints", "random start", "compute unknown"

    @property
    def unfinished(self) -> bool:
        """Read inside its schedule, where the learning rate had not fallen yet."""
        return any(station != -1 for station, _ in self.parts)


def at_equal_compute(arms: Sequence[Arm]) -> tuple[dict[str, Any] | None, list[Reading]]:
    """What comparison.json says of the arms' FLOPs (None for fewer than two runs), and where each arm is read.

    The common value is the smallest of the runs' ends. An arm is read there from an export whose FLOPs agree within 2 %, or from the two around it,
    linearly in the logarithm of the FLOPs.
    """
    ends = [arm.flops(-1) for arm in arms]
    runs = [i for i, arm in enumerate(arms) if not arm.fresh]
    plainly = [_as_ended(arm) for arm in arms]
    known = [flops for i in runs if (flops := ends[i]) is not None and flops > 0]
    if len(runs) < 2:
        return None, plainly
    if len(known) < len(runs):
        which = ", ".join(arms[i].name for i in runs if not ends[i])
        said = f"What the pre-training of {which} cost is not known, so compute cannot be held equal."
        return {"equal": False, "flops": None, "ratio": None, "how": "unknown", "sentence": said}, plainly
    common, ratio = min(known), max(known) / min(known)
    if ratio <= EQUAL_WITHIN:
        said = f"All runs had {common:.3g} training FLOPs (within {100 * (ratio - 1):.1f} %)."
        return {"equal": True, "flops": common, "ratio": ratio, "how": "as the runs ended", "sentence": said}, plainly
    unequal = f"The runs' training FLOPs differ by a factor of {ratio:.3g} ({min(known):.3g} to {max(known):.3g})"
    found = [_read_at(arm, common) if i in runs else plainly[i] for i, arm in enumerate(arms)]
    if missing := [arm.name for arm, reading in zip(arms, found, strict=True) if reading is None]:
        said = (
            f"{unequal}, and {', '.join(missing)} kept no export from around {common:.3g}, so they are compared as they ended, at unequal compute."
            f" A run of the same method with --budget.flops {common:.4g} makes it equal (or --trainer.keep-every N: its checkpoints stay)."
        )
        return {"equal": False, "flops": None, "ratio": ratio, "how": "not possible", "sentence": said}, plainly
    readings = [reading for reading in found if reading is not None]
    between = any(len(reading.parts) > 1 for reading in readings)
    how = "interpolated between checkpoints" if between else "at checkpoints"
    inside = ", ".join(arm.name for arm, reading in zip(arms, readings, strict=True) if reading.unfinished)
    said = (
        f"{unequal}; they are compared at {common:.3g}, the most that all have had ({how}). {inside} is read inside its schedule, before its learning"
        f" rate has fallen, which understates it: a run with --budget.flops {common:.4g} would say it exactly."
    )
    return {"equal": True, "flops": common, "ratio": ratio, "how": how, "sentence": said}, readings


def read(measured: Mapping[int, Values], reading: Reading) -> Values:
    """The values of an arm where it is read; `measured` has those of its exports."""
    parts = [(measured[station], weight) for station, weight in reading.parts]
    values = sum(weight * part.values for part, weight in parts)
    rights = [(part.right, weight) for part, weight in parts]
    right = None if any(one is None for one, _ in rights) else sum(weight * one for one, weight in rights if one is not None)
    return Values(np.asarray(values), None if right is None else np.asarray(right), max(part.stuck for part, _ in parts), parts[0][0].documents)


def interval_of(values: Values, metric: str, test_share: float) -> tuple[float, list[float] | None]:
    """Mean, and its interval over pre-training seeds where there are three, otherwise over fine-tuning seeds (without labels: documents)."""
    many = len(values.values) >= FEWEST_SEEDS
    if values.documents and values.right is not None and not many:
        units = values.right.mean((0, 1))
    else:
        units = _units(values, over=1 if many else 0)
    found = difference(units, np.zeros_like(units), test_share=0.0 if many else test_share, bounds=metric_range(metric))
    return float(values.values.mean()), None if found.interval is None else list(found.interval)


def compare_values(a: Values, b: Values, seeds: tuple[Sequence[Any], Sequence[Any]], metric: str, test_share: float) -> tuple[Difference, str]:
    """a - b, and what its interval covers.

    Where both arms have three pre-training seeds these decide (paired if they are the same seeds, otherwise Welch); where only one has, its
    pre-training seeds stand against the other's fine-tuning seeds if that is a random start, for which every fine-tuning seed is a new network.
    Otherwise fine-tuning seeds, which all arms share, are paired.

    Args:
        seeds: pre-training seeds of both; empty for a random start or a model folder.
    """
    bounds = difference_range(metric)
    many = [len(one.values) >= FEWEST_SEEDS for one in (a, b)]
    records = " and test records" if a.right is not None and b.right is not None else ""
    if all(many):
        paired = list(seeds[0]) == list(seeds[1])
        units = [_units(one, over=1) for one in (a, b)]
        return difference(*units, paired=paired, bounds=bounds), f"pre-training seeds{records}"
    if any(many) and not seeds[0 if many[1] else 1]:
        units = [_units(one, over=1 if of_many else 0) for one, of_many in zip((a, b), many, strict=True)]
        return difference(*units, paired=False, bounds=bounds), f"pre-training seeds, random starts{records}"
    if a.documents and a.right is not None and b.right is not None:
        units = [one.right.mean((0, 1)) for one in (a, b) if one.right is not None]
        return difference(*units, bounds=bounds), "the choice of documents; not the seed of the pre-training"
    units = [_units(one, over=0) for one in (a, b)]
    return difference(*units, test_share=test_share, bounds=bounds), f"fine-tuning seeds, label draws{records}; not the seed of the pre-training"


def judged(
    arms: Sequence[Arm], values: Sequence[Values], readings: Sequence[Reading], network: Mapping[int, int], equal: Mapping[str, Any] | None,
    metric: str, test_share: float,
) -> list[dict[str, Any]]:  # fmt: skip
    """`comparisons` of comparison.json: every pair of runs, and each run against its random start, Holm-corrected together.

    Args:
        network: arm -> its random start.
    """
    runs = [i for i, arm in enumerate(arms) if not arm.fresh]
    pairs = [*combinations(runs, 2), *((i, network[i]) for i in runs)]
    found: list[dict[str, Any]] = []
    for a, b in pairs:
        seeds = tuple([source.seed for source in arms[i].sources] if arms[i].kind == "run" else [] for i in (a, b))
        result, covers = compare_values(values[a], values[b], (seeds[0], seeds[1]), metric, test_share)
        same = arms[b].fresh or (equal is not None and bool(equal["equal"]))
        spent = (readings[a].flops, readings[b].flops)
        ratio = spent[0] / spent[1] if spent[0] and spent[1] else None
        found.append(
            {
                "a": arms[a].name, "b": arms[b].name, "difference": result.mean, "ci95": None if result.interval is None else list(result.interval),
                "p": result.p, "p_holm": None, "verdict": NOT_ENOUGH, "equal_compute": same, "flops_ratio": ratio, "covers": covers,
            }
        )  # fmt: skip
    for one, p in zip(found, holm([one["p"] for one in found]), strict=True):
        one["p_holm"] = p
        if p is not None and p < SIGNIFICANT:
            one["verdict"] = "better" if one["difference"] > 0 else "worse"
        one["sentence"] = _sentence(one, metric, len(found))
    return found


def conclude(arms: Sequence[Arm], values: Sequence[Values], comparisons: Sequence[dict[str, Any]], metric: str) -> tuple[str | None, str]:
    """(winner, sentence): the run that is better than every other run and than its own random start, at equal compute or with less; where a random
    start heads the table, the sentence begins with that."""
    winner, said = _concluded(arms, values, comparisons, metric)
    means = {arm.name: float(one.values.mean()) for arm, one in zip(arms, values, strict=True)}
    first, best = (max((arm.name for arm in arms if arm.fresh is fresh), key=means.__getitem__) for fresh in (True, False))
    runs = sum(not arm.fresh for arm in arms)
    if runs > 1 and means[first] > means[best]:  # of one run the sentence says it
        has = f"{first} reaches {metric} {means[first]:.3f}, {best}, the best of them, {means[best]:.3f}"
        said = f"None of the {runs} runs beat a random start: {has}. {said}"
    return winner, said


def _concluded(arms: Sequence[Arm], values: Sequence[Values], comparisons: Sequence[dict[str, Any]], metric: str) -> tuple[str | None, str]:
    means = {arm.name: float(one.values.mean()) for arm, one in zip(arms, values, strict=True)}
    runs = sorted((arm.name for arm in arms if not arm.fresh), key=lambda name: -means[name])
    best = runs[0]
    start = _against(best, comparisons, {arm.name for arm in arms if arm.fresh}, metric)[0]
    if len(runs) == 1:
        words = {"better": "The head start helps", "worse": "The head start hurts"}
        said = words.get(start["verdict"], "Not enough evidence that the head start helps")
        return (best if start["verdict"] == "better" else None), f"{said}: {start['sentence']}"
    others = sorted(_against(best, comparisons, set(runs) - {best}, metric), key=lambda one: one["difference"])
    beside = _of_start(start)
    if unclear := [one for one in others if one["verdict"] != "better"]:
        return None, f"Not enough evidence that {best} is better than {unclear[0]['b']}: {unclear[0]['sentence']} {beside}"
    closest = others[0]
    if dearer := [one for one in others if not one["equal_compute"] and not (one["flops_ratio"] or math.inf) <= EQUAL_WITHIN]:
        one = dearer[0]
        cost = f"with {one['flops_ratio']:.3g} times the FLOPs" if one["flops_ratio"] else "at a compute that is not known"
        return None, f"{best} is better than {one['b']}, but {cost}, which may be the reason: {one['sentence']} {beside}"
    if start["verdict"] != "better":
        return None, f"{best} is the best of the runs, but this does not show that it is better than a random start: {start['sentence']}"
    how = "at equal compute" if all(one["equal_compute"] for one in others) else "with fewer FLOPs"
    return best, f"{best} wins {how}: {closest['sentence']} {beside}"


def _against(name: str, comparisons: Sequence[dict[str, Any]], others: set[str], metric: str) -> list[dict[str, Any]]:
    """The comparisons of an arm with others, each as seen from the arm."""
    found = []
    for one in comparisons:
        if one["a"] == name and one["b"] in others:
            found.append(one)
        elif one["b"] == name and one["a"] in others:
            turned = one | {"a": name, "b": one["a"], "difference": -one["difference"]}
            turned["ci95"] = None if one["ci95"] is None else [-one["ci95"][1], -one["ci95"][0]]
            turned["verdict"] = {"better": "worse", "worse": "better"}.get(one["verdict"], one["verdict"])
            turned["flops_ratio"] = None if one["flops_ratio"] is None else 1 / one["flops_ratio"]
            found.append(turned | {"sentence": _sentence(turned, metric, len(comparisons))})
    return found


def _of_start(one: dict[str, Any]) -> str:
    word = {"better": "Over a random start it gains", "worse": "A random start is better than it by"}.get(one["verdict"])
    if word is None:
        return f"Over a random start it is {one['difference']:+.3f}, which may be noise."
    return f"{word} {abs(one['difference']):.3f}."


def _sentence(one: Mapping[str, Any], metric: str, comparisons: int) -> str:
    said = f"{one['a']} {one['difference']:+.3f} {metric} against {one['b']}"
    if one["ci95"] is None:
        return f"{said}; with fewer than {FEWEST_SEEDS} seeds nothing can be said of noise."
    low, high = one["ci95"]
    corrected = f", p {one['p_holm']:.2g} corrected for {comparisons} comparisons" if comparisons > 1 else ""
    return f"{said} (95 % interval {low:+.3f} to {high:+.3f}{corrected})."


def _as_ended(arm: Arm) -> Reading:
    how = "random start" if arm.fresh else "as it ended" if arm.flops(-1) is not None else "compute unknown"
    return Reading(((-1, 1.0),), arm.flops(-1), arm.wall_s(-1), how)


def _read_at(arm: Arm, flops: float) -> Reading | None:
    """Where the arm had had so many FLOPs; None if it kept nothing around there."""
    there = [(station, spent) for station in arm.stations() if (spent := arm.flops(station)) is not None]
    near = [(abs(math.log(spent / flops)), station) for station, spent in there if max(spent, flops) <= EQUAL_WITHIN * min(spent, flops)]
    if near:
        station = min(near)[1]
        return Reading(((station, 1.0),), arm.flops(station), arm.wall_s(station), "as it ended" if station == -1 else "at a checkpoint")
    before = [(station, spent) for station, spent in there if spent < flops]
    after = [(station, spent) for station, spent in there if spent > flops]
    if not before or not after:
        return None
    (first, low), (second, high) = before[-1], after[0]
    weight = math.log(flops / low) / math.log(high / low)
    walls = arm.wall_s(first), arm.wall_s(second)
    wall = None if walls[0] is None or walls[1] is None else (1 - weight) * walls[0] + weight * walls[1]
    return Reading(((first, 1 - weight), (second, weight)), flops, wall, "interpolated between checkpoints")


def _units(values: Values, over: int) -> np.ndarray:
    """[units] or [units, records]: the mean over pre-training seeds (axis 0) or fine-tuning seeds (axis 1)."""
    if values.right is None:
        return values.values.mean(over)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a record that no seed tested stays NaN
        return np.nanmean(values.right, over)
