"""What a claim file declares. A claim is a paper's central statement as arms (ways of training), tasks (measurements) and comparisons.

    CLAIM = Claim(slug="...", statement="...", presets={"cpu": Scale(arms=..., seeds=3, ...)}, comparisons=(Comparison("new", "old"),), open_data=...)

Everything else is shared: `_run` trains and measures, `_result` compares and decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from headstart.core.errors import UsageError

Split = Literal["dev", "test"]


@dataclass(frozen=True)
class Paper:
    """What the paper says."""

    statement: str
    value: str
    """Its figures, in words."""
    where: str
    """Table or section."""


@dataclass(frozen=True)
class Arm:
    """One way of training."""

    name: str
    method: str
    """The method, as `headstart list` names it. Empty: what is measured is no network (an extractor); such an arm is not `trained`."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainConfig` in which this arm differs from the scale's, by dotted name: {"method.arm": "mlm"}."""
    trained: bool = True
    """False: the network as it is before step 1, or the `start` itself. It is left out of the equality of FLOPs."""
    start: Arm | None = None
    """An arm that is pre-trained first (once a seed, at its own or the scale's first learning rate). This one continues from its export; its FLOPs
    count. A start with one seed is shared by all seeds."""
    start_step: int | None = None
    """Of the start, its checkpoint after so many steps (its `trainer.keep_every` must keep it); its FLOPs up to there count. None: its end."""
    variants: tuple[Arm, ...] = ()
    """Tried in this order: the first whose guards hold stands for the arm, or the last where none does. They have its name, and a `tag` each."""
    variants_by: Literal["seed 0", "every seed"] = "seed 0"
    """With which seeds the guards must hold."""
    tag: str = ""
    """What tells the folders of variants apart."""
    corpus: str = "train"
    """Which of `Data.corpora` it is pre-trained on."""
    seeds: int | None = None
    """Pre-training seeds; None: those of the scale."""
    learning_rate: float | None = None
    """Its pre-training rate; None: the best of the scale's."""
    shared: bool = False
    """It lies beside the folders of the claims, under a name of all that decides it: several claims train it once. What a start may be."""
    unequal: str = ""
    """Why its training FLOPs may differ from the others'. It stands beside the result. Empty: they may not."""

    @property
    def reads(self) -> bool:
        """Whether its corpus is opened: to train on it, or to build a network for it."""
        return self.trained or (bool(self.method) and self.start is None)


@dataclass(frozen=True)
class Scale:
    """A preset of a claim: what is trained, how long, how often."""

    arms: tuple[Arm, ...]
    seeds: int
    """Pre-training seeds 0, 1, ...; the statistics pair by them."""
    learning_rates: tuple[float, ...]
    """One grid of pre-training rates for all arms; each takes its best on dev with seed 0."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainConfig` that every pre-training has, by dotted name; also `preset` of the method, and the budget."""
    repeats: int = 1
    """Measurements of each pre-trained model on each task, averaged."""
    comparisons: tuple[Comparison, ...] | None = None
    """Instead of those of the claim, where this preset has other tasks."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the claim's own functions need to know: numbers of labels, epochs ..."""

    def seeds_of(self, arm: Arm) -> int:
        return self.seeds if arm.seeds is None else arm.seeds


@dataclass(frozen=True)
class Model:
    """What an arm gave with one seed."""

    arm: Arm
    seed: int
    folder: Path
    """The run folder (of an untrained arm: a folder with `export/` alone)."""
    learning_rate: float | None
    """Of pre-training; None for an untrained arm."""
    flops: float
    """Training FLOPs, counted; those of its start included."""
    tokens: int
    wall_s: float
    step_flops: float
    """Of the dearest step of its run: equal budgets differ by up to one."""

    @property
    def export(self) -> Path:
        return self.folder / "export"


@dataclass(frozen=True)
class Score:
    """One measurement."""

    value: float
    items: np.ndarray | None = None
    """float [n, 2]: of each test item what it adds to the metric and its weight, if the metric is sum / sum: the bootstrap over items needs them. The
    order of items is that of the data, the same for every arm."""
    stuck: str | None = None
    """What is the matter with a downstream training that never left its start ("it says 'good' for every record")."""
    beside: Mapping[str, float] = field(default_factory=dict)
    """Further figures of the same measurement (BLEU beside a loss): shown, compared with nothing."""


@dataclass(frozen=True)
class Use:
    """What one measurement is asked for."""

    model: Model
    split: Split
    """dev: for choices. test: once, when all is chosen."""
    setting: Any
    """One of the task's `settings`."""
    repeat: int
    """0, 1, ... of `Scale.repeats`."""
    device: str

    @property
    def seed(self) -> int:
        """For what this measurement draws: its own for each pre-training seed and repeat, the same for every arm."""
        return 1000 * self.model.seed + self.repeat


@dataclass(frozen=True)
class Task:
    """A downstream measurement; the claim's metric is the mean over its tasks."""

    name: str
    measure: Callable[[Use], Score]
    settings: tuple[Any, ...] = (None,)
    """A grid for all arms (fine-tuning rates, for example); each takes its best on dev with seed 0. One entry: nothing is chosen, dev is not used."""
    texts: Sequence[str] = ()
    """The test records, if they are text: they are looked for in what the arms were pre-trained on, and the overlap is said beside the result."""
    arms: tuple[str, ...] = ()
    """The arms that have what it measures; of the others nothing is asked. Empty: all."""


@dataclass(frozen=True)
class Data:
    """The opened data of a claim."""

    facts: Mapping[str, Any]
    """For the result: name, source, train, test (numbers of records), split (in words)."""
    corpora: Mapping[str, Sequence[Path | str]]
    """Name -> entries of --data to pre-train on: files, folders, stores, also named parts; most claims have "train" alone."""
    tasks: tuple[Task, ...]
    files: tuple[Path, ...] = ()
    """What it was read from: a change of their bytes makes the measurements of before void."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `PretrainConfig` that every pre-training has and that name files of `open_data`: the tokenizer, for example."""
    of_arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> the same of this arm alone."""
    leaks: tuple[str, ...] = ()
    """Sentences on test records that stand in training data."""
    anchors: Mapping[str, Any] = field(default_factory=dict)
    """Scores of simple methods to see the arms beside: chance, naive Bayes."""

    def tasks_of(self, arm: Arm | str) -> list[Task]:
        """Those that an arm is measured on."""
        name = arm if isinstance(arm, str) else arm.name
        return [task for task in self.tasks if not task.arms or name in task.arms]


@dataclass(frozen=True)
class Guard:
    """A condition without which a comparison says nothing: the network has left the plateau, for example."""

    what: str
    value: float
    limit: float
    passed: bool

    def sentence(self) -> str:
        return f"{self.what} {self.value:.3f}, limit {self.limit:.3f}"


@dataclass(frozen=True)
class Comparison:
    """a against b, paired by seed. The paper's side: a is better."""

    a: str
    b: str
    decides: bool = True
    """Whether the claim's verdict depends on it; otherwise it is shown beside."""
    margin: float = 0.0
    """Of no interest: a difference that is surely not above it does not reproduce the claim. In units of the metric."""
    claimed: Literal["better", "not worse"] = "better"
    """not worse: the paper's side is a difference above -margin."""
    tasks: tuple[str, ...] = ()
    """Those that the metric is the mean over; empty: all."""
    base: str = ""
    """An arm from which both count: a minus base against `share` of b minus base. "a keeps 80 % of what b gains over base": share 0.8."""
    share: float = 1.0
    gate: str = ""
    """Where this difference is not surely on the paper's side, nothing is decided, for this reason."""
    meaning: Mapping[str, str] = field(default_factory=dict)
    """Verdict -> what it says in the claim's own words ("no overfitting seen at this scale"); it stands beside the result."""
    cases: tuple[float, float] | None = None
    """For a share of cases that fail, instead of the interval: reproduced up to the first share, not reproduced from the second on."""


@dataclass(frozen=True)
class Correlation:
    """The rank correlation (Spearman) of two tasks over several arms and all seeds; its interval is by drawing seeds anew. The paper's side: above
    0."""

    x: str
    y: str
    arms: tuple[str, ...]
    decides: bool = True


@dataclass(frozen=True)
class Claim:
    """A paper's central statement."""

    slug: str
    statement: str
    """One sentence: what is better than what, at equal what."""
    paper: Paper
    metric: str
    """In words: "mean test accuracy of three tasks"."""
    presets: Mapping[str, Scale]
    comparisons: tuple[Comparison, ...]
    """Those whose arms a scale has are made."""
    open_data: Callable[[Scale, Path], Data]
    """(scale, folder to write into) -> data. Called at every start, so what it writes is the same each time.

    Raises BadInput when the data is missing; `_data.data_folder` does."""
    guards: Callable[[Model, Data, str], list[Guard]] = lambda model, data, device: []
    """(model, data, device) -> what must hold of it. Called for every trained arm and seed."""
    curves: Callable[[Sequence[Model]], bytes | None] = lambda models: None
    """(all models) -> an SVG beside that of the result, PLACE-curves.svg: the paper's own figure. None: there is none."""
    notes: Callable[[Mapping[str, float]], list[str]] = lambda means: []
    """Arm -> mean metric; sentences that stand beside the result without a verdict."""
    remarks: Callable[[Mapping[str, Mapping[str, float]]], list[str]] = lambda figures: []
    """As `notes`, for sentences about single tasks: arm -> task, or "task: name" of a `Score.beside`, -> mean over seeds and repeats."""
    validity: Callable[[Mapping[str, Mapping[str, float]], Data], list[str] | Mapping[str, str]] = lambda scores, data: []
    """(arm -> task -> mean test score, data) -> why nothing is decided, each in words; or task -> why nothing is decided on it. Empty: what the
    figures say stands."""
    correlations: tuple[Correlation, ...] = ()
    """Beside the comparisons; of the arms of a scale."""
    methods: Mapping[str, Any] = field(default_factory=dict)
    """Name -> class of methods that are ablations of this claim alone, and no methods of the library."""
    of: tuple[str, ...] = ()
    """The cards that it belongs to, where its slug is none: a paper may make several claims. The slug begins with that of the first."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Module -> extra that brings it: what is measured with, looked for before anything is trained."""
    paired_by: str = "seed"
    """What the numbers 0, 1, ... of the runs stand for, by which differences are paired: seeds of training, or pages of a set."""
    higher_is_better: bool = True
    percent: bool = True
    """Shown in per cent and points; the JSON holds the metric as it is."""

    def scale(self, preset: str) -> Scale:
        """Raises UsageError for a preset that the claim does not have."""
        if preset not in self.presets:
            raise UsageError(f"The claim {self.slug} has no preset '{preset}'.", f"Its presets: {', '.join(self.presets)}.")
        return self.presets[preset]

    def comparisons_of(self, scale: Scale) -> list[Comparison]:
        names = {arm.name for arm in scale.arms}
        declared = self.comparisons if scale.comparisons is None else scale.comparisons
        return [comparison for comparison in declared if {comparison.a, comparison.b, comparison.base or comparison.a} <= names]
