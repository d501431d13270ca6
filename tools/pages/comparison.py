"""The block of the guide "Compare honestly": what `headstart compare` found on real data."""

from __future__ import annotations

from headstart.core import words
from tools.pages.results import read, there


def comparison_block(name: str) -> str:
    """A committed comparison: its arms, the answer, every pair, and what the intervals cover."""
    if not there(f"comparison-{name}"):
        return "Not measured yet."
    info = read(f"comparison-{name}")
    rows = [f"| arm | {info['metric']} (95 % interval) | training FLOPs | pre-training |", "| --- | --- | --- | --- |"]
    for row in info["compared"]:
        low, high = row["ci95"]
        cost = (f"{row['flops']:.3g}", words.duration(row["wall_s"])) if row["flops"] else ("-", "-")
        rows.append(f"| {row['arm']} | {row['value']:.3f} ({low:.3f} to {high:.3f}) | {' | '.join(cost)} |")
    pairs = [f"- **{one['verdict']}**: {one['sentence']}" for one in info["comparisons"]]
    hardware, minutes = info["hardware"], info["settings"]["budget"]["minutes"]
    where = f"{hardware['cpu']}, {hardware['cores']} cores, beside other work; {str(info['date'])[:10]}. {minutes:g} minutes: `{info['command']}`"
    said = [info["sentence"], "\n".join(pairs), " ".join([info["equal_compute"]["sentence"], *info["notes"], *info["leaks"]]), where]
    return "\n\n".join(["\n".join(rows), *(part.replace("<", "&lt;") for part in said)])
