"""What fine-tuning found: every run, mean and standard error, and whether the head start helped."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from headstart.tasks.metrics import ANY, FEWEST_SEEDS, difference_range, paired_difference, standard_error

PRETRAINED, RANDOM = "pretrained", "random"


@dataclass
class SeedRun:
    """One training."""

    seed: int
    metrics: dict[str, float]  # on the test file
    dev_metrics: dict[str, float] | None
    loss: float  # mean training loss an example over the last epoch
    stuck: str | None  # what is the matter with predictions that are all the same
    steps: int
    wall_s: float


@dataclass
class Arm:
    """All trainings from one start: `pretrained` or `random`."""

    arm: str
    learning_rate: float
    runs: list[SeedRun]
    tried: dict[str, float] = field(default_factory=dict)  # learning rate -> dev score, where several were tried

    def values(self, metric: str) -> list[float]:
        return [run.metrics[metric] for run in self.runs]

    def mean(self, metric: str) -> float:
        return float(np.mean(self.values(metric)))

    def standard_error(self, metric: str) -> float | None:
        return standard_error(self.values(metric))


@dataclass
class Result:
    """The outcome of `finetune`."""

    task: str
    metric: str  # the one that decides
    model: str
    arms: list[Arm]
    data: dict[str, Any]  # numbers of records, classes, dropped records
    leaks: list[str] = field(default_factory=list)  # sentences on test records that stand in the training data
    warnings: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    higher_is_better: bool = True

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.arm == name)

    def difference(self) -> tuple[float, tuple[float, float] | None] | None:
        """Mean of pretrained - random paired by seed, and its 95 % t interval (None for fewer than three seeds); None without a baseline."""
        if len(self.arms) < 2:
            return None
        bounds = difference_range(self.metric) if self.higher_is_better and self.metric != "r2" else ANY  # errors have no upper end, r2 no lower
        return paired_difference(self.arm(PRETRAINED).values(self.metric), self.arm(RANDOM).values(self.metric), bounds)

    def verdict(self) -> str:
        """One sentence: did the head start help, and by how much?"""
        mine = self.arm(PRETRAINED)
        has = f"{self.metric} {mine.mean(self.metric):.4f}{'' if self.higher_is_better else ' (lower is better)'}"
        compared = self.difference()
        if compared is None:
            return f"The network reaches {has}; without a random start beside it nothing can be said of what pre-training gave."
        gain, interval = compared
        against = f"{has} against {self.arm(RANDOM).mean(self.metric):.4f} from random initialisation, {gain:+.4f}"
        if interval is None:
            many = len(mine.runs)
            return f"{'One seed decides' if many == 1 else f'{many} seeds decide'} nothing: {against}. Use at least {FEWEST_SEEDS} seeds."
        within = f"{against} (95 % interval {interval[0]:+.4f} to {interval[1]:+.4f}, {len(mine.runs)} seeds)"
        better, worse = interval[0] > 0, interval[1] < 0
        if not self.higher_is_better:
            better, worse = worse, better
        if better:
            return f"The head start helps: {within}."
        if worse:
            return f"The head start hurts: {within}."
        return f"Whether the head start helps is open: {within}."

    def table(self) -> list[list[str]]:
        """Header and one row an arm: metrics as mean +- standard error over seeds."""
        names = list(self.arms[0].runs[0].metrics)
        names.sort(key=lambda name: name != self.metric)
        rows = [["start", *names, "seeds", "learning rate", "seconds a run"]]
        for arm in self.arms:
            cells = []
            for name in names:
                error = arm.standard_error(name)
                cells.append(f"{arm.mean(name):.4f}" + ("" if error is None else f" ± {error:.4f}"))
            seconds = float(np.mean([run.wall_s for run in arm.runs]))
            rows.append([arm.arm, *cells, str(len(arm.runs)), f"{arm.learning_rate:g}", f"{seconds:.1f}"])
        return rows

    def lines(self) -> list[str]:
        """What a person reads: table, warnings, leaks, verdict."""
        rows = self.table()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return [*lines, *(f"Warning: {warning}" for warning in self.warnings), *self.leaks, self.verdict()]

    def to_json(self) -> dict[str, Any]:
        """Everything, for result.json: runs, means, the comparison and the verdict."""
        compared = self.difference()
        return {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "model": self.model,
            "data": self.data,
            "arms": [
                asdict(arm) | {"mean": arm.mean(self.metric), "standard_error": arm.standard_error(self.metric)} for arm in self.arms
            ],
            "difference": None if compared is None else compared[0],
            "ci95": None if compared is None or compared[1] is None else list(compared[1]),
            "verdict": self.verdict(),
            "leaks": self.leaks,
            "warnings": self.warnings,
            "config": self.config,
        }
