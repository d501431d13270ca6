"""The few parts that every result is read into, whatever its kind: what the page shows of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.core import words

TONES = {
    "reproduced": "good", "helps": "good", "should help": "good", "better": "good", "wins": "good",
    "not reproduced": "bad", "hurts": "bad", "does not help": "bad", "worse": "bad",
}  # fmt: skip
"""Verdict words -> how the page colours them; every other word is open."""
SHARES = frozenset(
    {"accuracy", "f1", "macro_f1", "exact_match", "halves", "knn_halves", "miou", "pixel_accuracy", "mean_accuracy", "delta1"}
)
"""Metrics from 0 to 1 whose differences are said in points."""


@dataclass
class Finding:
    """One difference between two ways of training: a row of the first screen."""

    a: str
    b: str
    """What is measured, and against what."""
    metric: str
    where: str
    difference: float
    ci95: tuple[float, float] | None
    verdict: str
    tone: str
    anchor: str
    source: str
    """claim, comparison, advice, fine-tuning or probe."""
    slugs: tuple[str, ...] = ()
    flops: float = math.nan
    seconds: float = math.nan
    percent: bool = False
    higher_is_better: bool = True
    reached: float = math.nan
    """The metric of `a` itself: the largest gain is not always the best network."""
    over_start: bool = False
    """`b` is a random start, not another way of training."""
    model: str = ""
    """The folder of the network that was trained on or looked at; a run among those of the page says what it cost."""

    @property
    def what(self) -> str:
        return f"{self.a} over {self.b}"

    def shown(self, value: float) -> str:
        """A difference; in points where the metric is a share."""
        return f"{100 * value:+.1f}".replace("-", words.MINUS) if self.percent else words.signed(value)

    @property
    def unit(self) -> str:
        return f"points of {self.metric}" if self.percent else self.metric

    def reached_words(self) -> str:
        return f"reaches {value_words(self.reached, self.percent)}" if math.isfinite(self.reached) else ""

    def interval_words(self) -> str:
        return "no interval" if self.ci95 is None else f"{self.shown(self.ci95[0])} to {self.shown(self.ci95[1])}"

    def cost(self) -> str:
        parts = [words.duration(self.seconds), f"{words.flops(self.flops)} FLOPs"]
        return ", ".join(part for part in parts if not part.startswith("–")) or "–"


@dataclass
class Arm:
    """One way of training and what it reached."""

    name: str
    values: list[float]
    flops: float = math.nan
    seconds: float = math.nan
    ci95: tuple[float, float] | None = None
    note: str = ""

    @property
    def mean(self) -> float:
        known = [value for value in self.values if math.isfinite(value)]
        return sum(known) / len(known) if known else math.nan


@dataclass
class Evidence:
    """One result file, as the page shows it."""

    path: Path
    kind: str
    title: str
    anchor: str = ""
    sentence: str = ""
    verdict: str = ""
    slugs: tuple[str, ...] = ()
    metric: str = ""
    percent: bool = False
    findings: list[Finding] = field(default_factory=list)
    arms: list[Arm] = field(default_factory=list)
    arms_caption: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    """Caption, head, rows."""
    charts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    figure: str = ""
    """data: URI of the figure that was drawn with it."""
    figure_alt: str = ""
    error: str = ""

    @property
    def tone(self) -> str:
        return TONES.get(self.verdict, "open")


def word_of(interval: tuple[float, float] | None, higher_is_better: bool = True) -> str:
    """The words of `finetune` for a difference to a random start."""
    return "open" if interval is None or interval[0] <= 0 <= interval[1] else "helps" if (interval[0] > 0) is higher_is_better else "hurts"


def value_words(value: float, percent: bool) -> str:
    return f"{words.number(100 * value, 3)}{words.NARROW}%" if percent else words.number(value)


def interval_words(interval: tuple[float, float] | None, percent: bool) -> str:
    return "" if interval is None else f" ({value_words(interval[0], percent)} to {value_words(interval[1], percent)})"
