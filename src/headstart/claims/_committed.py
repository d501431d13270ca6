"""Results of claims in `claims/results/` of the checkout, as `headstart list`, `show`, the docs and the report read them. No torch here.

The comparisons of one claim may be over different tasks ("labels", "mirrored"). Then each says over which, and an arm has a figure for each of these
sets of tasks: two comparisons of the same arms are told apart, and no mean is taken over measurements that were never meant to be averaged.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.core.files import read_json

CHECKOUT = Path(__file__).parents[3]


def results_folder() -> Path | None:
    """claims/results of the checkout, there or not yet; None for an installed package."""
    return CHECKOUT / "claims" / "results" if (CHECKOUT / "pyproject.toml").is_file() else None


def read_results(slug: str | None = None, folder: Path | None = None) -> list[dict[str, Any]]:
    """The committed results, of one method (those that belong to its card and have a longer name among them) or of all, by file name.

    Raises:
        BadInput: one is damaged.
    """
    folder = folder or results_folder()
    found = [] if folder is None else [read_json(path) for path in sorted(folder.glob(f"{slug or ''}*-*.json"))]  # webmath_text-cpu.json too
    return [result for result in found if slug in (None, result["slug"], *result.get("of", ()))]


def results_of_card(slug: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The committed results that belong to a card, whatever their names; reads all."""
    return [result for result in read_results(None, folder) if slug in (result["slug"], *result.get("of", ()))]


def shown(result: Mapping[str, Any], value: float, signed: bool = False) -> str:
    """A value of the metric as a person reads it: .823 as 82.3 %, a difference of .031 as +3.1 points."""
    if not result.get("percent", True):
        return f"{value:+.4g}" if signed else f"{value:.4g}"
    return f"{100 * value:+.1f} points" if signed else f"{100 * value:.1f} %"


def measures(result: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What is measured of each arm: name -> the tasks that it is the mean over. The metric alone, over all tasks (), unless the comparisons are over
    different ones."""
    over = list(dict.fromkeys(tuple(comparison.get("tasks", ())) for comparison in result["comparisons"] if not comparison.get("correlation")))
    return {", ".join(tasks): tasks for tasks in over} if len(over) > 1 else {result["metric"]: ()}


def of_seeds(arm: Mapping[str, Any], tasks: tuple[str, ...] = ()) -> list[float]:
    """One value a seed: the mean over these tasks (none: the metric, which is that over all) of the mean over repeats. Empty where the arm is not
    measured on one of them."""
    if not tasks:
        return [run["metric"] for run in arm["runs"]]
    if any(task not in run["tasks"] for run in arm["runs"] for task in tasks):
        return []
    return [statistics.fmean(statistics.fmean(run["tasks"][task]) for task in tasks) for run in arm["runs"]]


def compared_words(result: Mapping[str, Any], comparison: Mapping[str, Any], minus: str = "-") -> str:
    """droppos - mae on mirrored; where all comparisons are over the same tasks, the arms alone."""
    if comparison.get("correlation"):
        return f"rank correlation of {comparison['a']} and {comparison['b']}"
    on = f" on {', '.join(comparison['tasks'])}" if len(measures(result)) > 1 else ""
    if comparison.get("base"):
        share = f"{100 * comparison['share']:.0f} % of what {comparison['b']} gains over {comparison['base']}"
        return f"gain of {comparison['a']} over {comparison['base']} {minus} {share}{on}"
    return f"{comparison['a']} {minus} {comparison['b']}{on}"


def difference_words(result: Mapping[str, Any], comparison: Mapping[str, Any]) -> str:
    """+3.1 points (95 % interval +1.2 to +5.0, 3 seeds)."""
    difference = shown(result, comparison["difference"], signed=True)
    if comparison["ci95"] is None:
        return f"{difference} ({few_seeds(comparison['seeds'], comparison.get('paired_by', 'seed'))})"
    low, high = (shown(result, end, signed=True).removesuffix(" points") for end in comparison["ci95"])
    return f"{difference} (95 % interval {low} to {high}, {comparison['seeds']} {comparison.get('paired_by', 'seed')}s)"


def few_seeds(seeds: int, each: str = "seed") -> str:
    return f"one {each} decides nothing" if seeds == 1 else f"{seeds} {each}s decide nothing"


def verdict_words(result: Mapping[str, Any]) -> str:
    """One line for a list: "cpu: reproduced, +3.1 points (...)"."""
    deciding = next((comparison for comparison in result["comparisons"] if comparison.get("decides", True)), None)
    words = f"{result['preset']}: {result.get('verdict') or (deciding or {}).get('verdict', 'no verdict')}"
    return words if deciding is None else f"{words}, {compared_words(result, deciding)} {difference_words(result, deciding)}"


def anchor_words(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and figures of each anchor."""
    found = []
    for name, value in result.get("anchors", {}).items():
        parts = value.items() if isinstance(value, Mapping) else [("", value)]
        found.append((name, ", ".join(f"{part} {shown(result, number)}".strip() for part, number in parts)))
    return found
