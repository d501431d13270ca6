"""What comparisons on real data found: of `headstart compare` for the guide "Compare honestly", of a sparse ELECTRA for the page of SPDF, of
self-distillation on texts for its page."""

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


DISTILLED = "self_distill_text"


def distilled_block() -> str:
    """Self-distillation on texts beside all that it is compared with."""
    return distilled_text(read(DISTILLED)) if there(DISTILLED) else "Not measured yet: `python -m benchmarks.self_distill_text`."


def distilled_text(info: dict[str, Any]) -> str:
    """Arms, and differences by seed."""
    head = "| arm | test accuracy, mean (lowest to highest) | FLOPs of further pre-training | its setting of fine-tuning |"
    rows = [head, "| --- |" + " --- |" * 3]
    for name, arm in info["arms"].items():
        test, spent = arm["test"], sum(arm["further_flops"]) / len(arm["further_flops"])
        setting = ", ".join(f"{key.split('.')[-1]} {value}" for key, value in arm["setting"].items())
        reached = f"{sum(test) / len(test):.3f} ({min(test):.3f} to {max(test):.3f})"
        rows.append(f"| {name} | {reached} | {f'{spent:.3g}' if spent else '-'} | {setting} |")
    pairs = [f"- {one['a']} - {one['b']}: {difference(one)}" for one in info["pairs"]]
    if all(one["ci95"] is not None and one["ci95"][0] <= 0 <= one["ci95"][1] for one in info["pairs"]):
        pairs.append("\nEvery interval holds 0: at this size and with so few labels the arms cannot be told apart.")
    where = f"{info['hardware']['cpu']}, {info['hardware']['cores']} cores; {str(info['date'])[:10]}. `{info['command']}`"
    return "\n\n".join([f"{info['what'][0].upper()}{info['what'][1:]}.", "\n".join(rows), "\n".join(pairs), where])


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
