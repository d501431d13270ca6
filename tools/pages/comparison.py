"""What `headstart compare` found on real data: for the guide "Compare honestly", and of a sparse ELECTRA for the page of SPDF."""

from __future__ import annotations

from typing import Any

from headstart.core import words
from tools.pages.results import read, there


def comparison_block(name: str) -> str:
    """A committed comparison."""
    return comparison_text(read(f"comparison-{name}")) if there(f"comparison-{name}") else "Not measured yet."


def comparison_text(info: dict[str, Any]) -> str:
    """Its arms, the answer, every pair, and what the intervals cover."""
    rows = [f"| arm | {info['metric']} (95 % interval) | training FLOPs | pre-training |", "| --- | --- | --- | --- |"]
    for row in info["compared"]:
        low, high = row["ci95"]
        cost = (f"{row['flops']:.3g}", words.duration(row["wall_s"])) if row["flops"] else ("-", "-")
        rows.append(f"| {row['arm']} | {row['value']:.3f} ({low:.3f} to {high:.3f}) | {' | '.join(cost)} |")
    pairs = [f"- **{one['verdict']}**: {one['sentence']}" for one in info["comparisons"]]
    hardware, minutes = info["hardware"], info["settings"]["budget"]["minutes"]
    given = "" if minutes is None else f"{minutes:g} minutes: "
    where = f"{hardware['cpu']}, {hardware['cores']} cores, beside other work; {str(info['date'])[:10]}. {given}`{info['command']}`"
    said = [info["sentence"], "\n".join(pairs), " ".join([info["equal_compute"]["sentence"], *info["notes"], *info["leaks"]]), where]
    return "\n\n".join(["\n".join(rows), *(part.replace("<", "&lt;") for part in said)])


SPARSE = "comparison-sparse-electra"


def sparse_block() -> str:
    """What half of the weights at zero does to ELECTRA."""
    return sparse_text(read(SPARSE)) if there(SPARSE) else "Not measured yet: `python -m benchmarks.sparse_electra`."


def sparse_text(info: dict[str, Any]) -> str:
    """What the runs reached on held-out text, and the comparison on labels."""
    found = info["pretraining"]
    rows = ["| run | steps | FLOPs, counted | FLOPs, executed | held-out MLM loss (nats) | AUC of the discriminator |", "| --- |" + " --- |" * 5]
    for name, runs in found["arms"].items():
        cells = [f"{mean(runs, 'steps'):,.0f}", f"{mean(runs, 'flops'):.3g}", f"{mean(runs, 'executed_flops'):.3g}"]
        rows.append(f"| {name} | {' | '.join([*cells, spread(runs, 'mlm_loss_hidden'), spread(runs, 'disc_auc')])} |")
    beside = found["sparse - dense"]
    said = f"Sparse - dense: MLM loss {difference(beside['mlm_loss_hidden'])}, AUC {difference(beside['disc_auc'])}."
    return "\n\n".join(["\n".join(rows), said, comparison_text(info)])


def mean(runs: list[dict[str, float]], name: str) -> float:
    return sum(run[name] for run in runs) / len(runs)


def spread(runs: list[dict[str, float]], name: str) -> str:
    """Mean, lowest and highest of the seeds."""
    values = [run[name] for run in runs]
    return f"{mean(runs, name):.3f} ({min(values):.3f} to {max(values):.3f})"


def difference(one: dict[str, Any]) -> str:
    """A difference with its interval."""
    if one["ci95"] is None:
        return f"{one['difference']:+.3f}"
    low, high = one["ci95"]
    return f"{one['difference']:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
