"""What fine-tuning found: every run, mean and standard error, and whether the head start helped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.config import plain
from headstart.core.files import whole_folder, write_json
from headstart.core.words import aligned, change
from headstart.tasks.metrics import ANY, FEWEST_SEEDS, Interval, Records, difference, difference_range, standard_error

if TYPE_CHECKING:
    from headstart.tasks.kept import Kept

MODEL = "model"
"""In the folder of a result: the model of the first seed."""
ALIKE = 1e-9
"""Of the metric: an interval of less width is none."""
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
    records: Records | None = field(default=None, repr=False, compare=False)  # of the metric that decides; not in result.json
    notes: list[str] = field(default_factory=list)  # sentences on it; not in result.json, whose warnings have them


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

    def to_json(self, metric: str) -> dict[str, Any]:
        """The runs without what each test record adds, mean and standard error."""
        found = asdict(replace(self, runs=[replace(run, records=None) for run in self.runs]))
        for run in found["runs"]:
            del run["records"], run["notes"]
        return found | {"mean": self.mean(metric), "standard_error": self.standard_error(metric)}


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

    def tested(self) -> int | None:
        """The test records whose choice the interval covers beside the seeds; None: it covers the seeds alone."""
        found = [run.records for arm in self.arms for run in arm.runs]
        if any(one is None or len(one.values) < 2 for one in found):
            return None
        return found[0].count if found[0] is not None else None

    def difference(self) -> tuple[float, Interval | None] | None:
        """Mean of pretrained - random paired by seed, and its 95 % interval (None for fewer than three seeds, and where it would have no width); None
        without a baseline."""
        if len(self.arms) < 2:
            return None
        bounds = difference_range(self.metric) if self.higher_is_better and self.metric != "r2" else ANY  # errors have no upper end, r2 no lower
        runs = [self.arm(name).runs for name in (PRETRAINED, RANDOM)]
        if self.tested() is None:
            a, b = (np.array([run.metrics[self.metric] for run in of_arm]) for of_arm in runs)
            found = difference(a, b, bounds=bounds)
        else:
            kept = [[run.records for run in of_arm if run.records is not None] for of_arm in runs]
            a, b = (np.array([one.values for one in of_arm]) for of_arm in kept)
            found = difference(a, b, bounds=bounds, shares=kept[0][0].shares)
        interval = found.interval
        if interval is not None and interval[1] - interval[0] <= ALIKE * max(abs(a.mean()), abs(b.mean())):
            interval = None
        return found.mean, interval

    def verdict(self) -> str:
        """One sentence: did the head start help, and by how much?"""
        mine = self.arm(PRETRAINED)
        has = f"{self.metric} {mine.mean(self.metric):.4f}{'' if self.higher_is_better else ' (lower is better)'}"
        compared = self.difference()
        if compared is None:
            return f"The network reaches {has}; without a random start beside it nothing can be said of what pre-training gave."
        gain, interval = compared
        against = f"{has} against {self.arm(RANDOM).mean(self.metric):.4f} from random initialisation, {change(gain)}"
        many, tested = len(mine.runs), self.tested()
        if interval is None and many >= FEWEST_SEEDS:
            return f"Whether the head start helps is open: {against} in each of {many} seeds. Values that are all alike give no interval."
        if interval is None:
            return f"{'One seed decides' if many == 1 else f'{many} seeds decide'} nothing: {against}. Use at least {FEWEST_SEEDS} seeds."
        over = f"{many} seeds alone, not over the choice of test records" if tested is None else f"{many} seeds and {tested:,} test records"
        within = f"{against} (95 % interval {change(interval[0])} to {change(interval[1])} over {over})"
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
        return [*aligned(self.table()), *(f"Warning: {warning}" for warning in self.warnings), *self.leaks, self.verdict()]

    def save(self, out: str | Path, write: Callable[[Path], None], kept: Kept | None = None) -> None:
        """Writes result.json into `out`, which is made.

        Args:
            write: writes the model into a folder, which becomes out/model, whole or not at all.
            kept: the trainings of `out`, whose model may be there already.
        """
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "result.json", self.to_json())
        if kept is None or not kept.has_model():
            with whole_folder(folder / MODEL) as model:
                write(model)

    def to_json(self) -> dict[str, Any]:
        """Everything, for result.json: runs, means, the comparison and the verdict."""
        compared = self.difference()
        found = {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "model": self.model,
            "data": self.data,
            "arms": [arm.to_json(self.metric) for arm in self.arms],
            "difference": None if compared is None else compared[0],
            "ci95": None if compared is None or compared[1] is None else list(compared[1]),
            "ci95_over": None if compared is None or compared[1] is None else ["seeds"] if self.tested() is None else ["seeds", "test records"],
            "verdict": self.verdict(),
            "leaks": self.leaks,
            "warnings": self.warnings,
            "config": self.config,
        }
        return dict(plain(found))
