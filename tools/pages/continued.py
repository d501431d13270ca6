"""The table of the guide "Continue a model on your corpus", from the committed result of `benchmarks.continue_guide`."""

from __future__ import annotations

from typing import Any

from tools.pages.results import read, there, where

RESULT = "continue_guide"
COLUMNS = {"new bits per byte": "new text", "old bits per byte": "old text", "medterm": "new items", "genterm": "old items"}
"""Key of the result -> head of its column."""
ARMS = {
    "naive": "new text alone, at the old rate",
    "rewarm": "... re-warmed",
    "subset": "... re-warmed, its best quarter four times",
    "replay": "the planned share of old text, at the old rate",
    "recommended": "**what `plan cpt` recommended**: all three",
    "merged": "no training: half the model before, half the naive run",
    "merged-recommended": "half the model before, half the recommended run",
}
"""Arm -> what it is, in the order of the table."""


def guide_block() -> str:
    """What was planned, what came of it, and each arm beside the naive one."""
    if not there(RESULT):
        return "Not measured yet: there is no `benchmarks/results/continue_guide.json`."
    result = read(RESULT)
    rows = ["| arm | " + " | ".join(COLUMNS.values()) + " |", "| --- |" + " --- |" * len(COLUMNS)]
    rows.append("| the model before | " + " | ".join(shown(key, result["before"][key]) for key in COLUMNS) + " |")
    for name, what in ARMS.items():
        if name in result["arms"]:
            rows.append(f"| {what} | " + " | ".join(cell(result, name, key) for key in COLUMNS) + " |")
    return "\n\n".join([planned(result["plan"]), "\n".join(rows), beaten(result), f"({where(result)}; `{result['command']}`.)"])


def shown(key: str, value: float) -> str:
    return f"{value:.3f}" if key.endswith("bits per byte") else f"{100 * value:.1f} %"


def cell(result: dict[str, Any], name: str, key: str) -> str:
    """The mean over seeds; beside it the interval of the difference from the naive run."""
    arm = result["arms"][name]
    interval = arm["minus naive"][key]["interval"]
    value = shown(key, arm["mean"][key])
    if name == "naive" or interval is None:
        return value
    low, high = interval if key.endswith("bits per byte") else (100 * interval[0], 100 * interval[1])
    digits = 3 if key.endswith("bits per byte") else 1
    return f"{value} ({low:+.{digits}f} to {high:+.{digits}f})"


def planned(plan: dict[str, Any]) -> str:
    """What the plan said."""
    chosen, predicted = plan["recommended"], plan["predicted"]
    text = "" if plan["subset"] is None else f" of the {plan['subset']['tokens']:,} tokens that a reference chose"
    losses = ", ".join(
        f"{what} {predicted[name]['value']:.3f} (before: {plan['before'][part]:.3f})"
        for what, name, part in (("on old text", "general_loss", "old"), ("on new text", "domain_loss", "new"))
    )
    run = f"with a limit of {100 * plan['limit']:g} % take r_d = {chosen['r_d']:g}{text}, {chosen['steps']:,} steps"
    return f"The plan: {run}. Losses that it predicted, nats a token of validation text: {losses}."


TEXTS = ("old bits per byte", "new bits per byte")


def beaten(result: dict[str, Any]) -> str:
    """Which arms the recommended run is better than on both texts, on one, on none."""
    arms = result["arms"]
    lower = {name: sum(arms["recommended"]["mean"][key] < arms[name]["mean"][key] for key in TEXTS) for name in arms if name != "recommended"}
    words = ("It is worse on both than", "It is better on one and worse on the other than", "On both texts the recommended run is better than")
    groups = [(words[count], [name for name, found in lower.items() if found == count]) for count in (2, 1, 0)]
    return " ".join(f"{what}: {', '.join(names)}." for what, names in groups if names)
