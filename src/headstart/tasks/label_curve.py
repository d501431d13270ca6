"""Metric against number of labels, for a network and for the same network from random initialisation: what a head start is worth in labels.

Each seed draws its own records (and, without a test file, its own split), so the spread over seeds is that of fine-tuning *and* of which records
happened to be labelled. All networks get the same draws. Texts are tokenised once and weights read once for all points of a network.

    draws = draw_labels(pool.labels, [20, 50, 200], seeds=5)
    mine = label_curve(folder, pool, None, draws, config)
    start = label_curve(folder, pool, None, draws, config, fresh=True)
    print(labels_worth(mine, start, 20).sentence())
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from headstart.core.errors import UsageError
from headstart.data.text.tokenizer import FAILS, library_errors
from headstart.engine.device import use_device
from headstart.engine.probes import fit_linear_probe, linear_predictions
from headstart.interop.transformers_io import Encoder, load_encoder
from headstart.tasks.config import TEXT_TASKS, FinetuneConfig, Measure, Pooling
from headstart.tasks.data import TextData
from headstart.tasks.kinds import TASKS
from headstart.tasks.metrics import Interval, classification_metrics, difference
from headstart.tasks.recipe import epochs
from headstart.tasks.rows import DeviceRows, Rows, take
from headstart.tasks.splits import nested_subsets, stratified_splits
from headstart.tasks.text_classification import choose_pooling, pool
from headstart.tasks.training import EVAL_BATCH, predict, train

TEST_SHARE = 0.25
DEV_SHARE = 0.25
_GRID = 200  # counts at which the two curves are compared, evenly spaced in their logarithm


@dataclass(frozen=True)
class Draw:
    """The records of one seed."""

    seed: int
    train: np.ndarray  # the training part of the pool
    test: np.ndarray | None  # its test part; None: there is a test file
    subsets: dict[int, np.ndarray]  # count -> records of the training part, each smaller subset inside each larger one


@dataclass(frozen=True)
class Scored:
    """One training and its test."""

    value: float  # the task's metric
    right: tuple[int, ...] | None  # 1 for each test record that was right; None for a metric that is no mean over records
    stuck: str | None  # what is the matter with predictions that are all the same
    train_s: float
    test_s: float


@dataclass
class Curve:
    """Metric against number of labels: one value a count and seed."""

    metric: str
    values: dict[int, list[float]] = field(default_factory=dict)  # count -> one value a seed
    test_share: float = 0.0  # of each split; 0: one test file
    seconds_a_point: float = 0.0
    learning_rate: float | None = None

    @property
    def counts(self) -> list[int]:
        return sorted(self.values)

    def mean(self, count: int) -> float:
        return float(np.mean(self.values[count]))


@dataclass(frozen=True)
class LabelsWorth:
    """How many labels a random start needs for what the pre-trained network reaches with `labels`."""

    labels: int
    target: float  # what the pre-trained network reaches
    random_labels: float | None  # None: a random start does not get there with `largest`
    ci95: tuple[float, float | None] | None  # a high end of None: beyond `largest`; None: too few seeds
    smallest: int  # counts of labels that the random start was measured with
    largest: int

    def sentence(self) -> str:
        has = f"with {self.labels:,} labels ({self.target:.3f})"
        if self.random_labels is None:
            said = f"needs more than {self.largest:,} labels for what pre-training reaches {has}"
        elif self.random_labels <= self.smallest:
            said = f"needs at most {self.smallest:,} labels for what pre-training reaches {has}"
        else:
            said = f"needs about {round(self.random_labels):,} labels for what pre-training reaches {has}"
        if self.ci95 is None:
            return f"A random start {said}; the seeds are too few for an interval."
        low, high = self.ci95
        if high is None and round(low) >= self.largest:
            return f"A random start {said}, in the whole 95 % interval."
        reach = f"{round(low):,} to {round(high):,}" if high is not None else f"{round(low):,} to more than {self.largest:,}"
        return f"A random start {said} (95 % interval {reach})."


def draw_labels(
    labels: Sequence[Any],
    counts: Sequence[int],
    seeds: int,
    *,
    has_test: bool = False,
    test_share: float = TEST_SHARE,
    stratify: bool = True,
    groups: Sequence[Any] | None = None,
) -> list[Draw]:
    """The records of each seed: a split (without a test file) and nested subsets of its training part.

    Args:
        labels: of all records.
        counts: numbers of labels; the whole training part is always there, whether named or not.
        stratify: False for numbers instead of classes.
        groups: the document of each record; documents stay whole.

    Raises:
        UsageError: a count that the training part does not hold, or that is smaller than the number of classes.
    """
    kinds = np.asarray(labels) if stratify else np.zeros(len(labels), dtype=np.int64)
    places = None if groups is None else np.asarray(groups)
    parts: list[tuple[np.ndarray, np.ndarray | None]]
    if has_test:
        parts = [(np.arange(len(kinds)), None)] * seeds
    else:
        parts = [*stratified_splits(kinds, seeds, test_share, 0, places)]
    found = []
    for seed, (part, test) in enumerate(parts):
        wanted = sorted({*counts, len(part)})
        chosen = nested_subsets(kinds[part], wanted, seed, None if places is None else places[part])
        found.append(Draw(seed, part, test, {count: part[index] for count, index in chosen.items()}))
    return found


class Bench:
    """One network on one labelled set.

    Args:
        folder: a transformers folder.
        records: the labelled records that draws number.
        test: the test records; None: each draw has its own.
        fresh: its architecture from random initialisation, a new one for each seed.
        measure: finetune, the whole network; linear-probe, a logistic regression on its frozen mean-pooled hidden states: a few hundred times as
            fast, and another question (what is there already, not what can be learned from there).

    Raises:
        BadInput: the folder cannot be used. UsageError: a task or measure that is not for texts.
    """

    def __init__(
        self,
        folder: str | Path,
        records: TextData,
        test: TextData | None,
        config: FinetuneConfig,
        *,
        task: str = "classification",
        fresh: bool = False,
        measure: Measure = "finetune",
    ) -> None:
        if task not in TEXT_TASKS or (measure == "linear-probe" and task != "classification"):
            raise UsageError(f"The measure {measure} of {task} has no curve here.", f"The tasks: {', '.join(TEXT_TASKS)}; a probe: classification.")
        self.folder, self.config, self.fresh, self.measure = Path(folder), config, fresh, measure
        self.device = use_device(config.device)
        self.job: Any = TASKS[task](config, records)
        self.records, self.test = records, test
        encoder = load_encoder(self.folder, fresh=fresh, dropout=config.dropout)
        with library_errors(FAILS, self.folder, any_error=False):
            self.train_rows = self.job.rows(records, encoder, training=True)
            self.pool_rows = self.job.rows(records, encoder, training=False)
            self.test_rows = None if test is None else self.job.rows(test, encoder, training=False)
        self._encoders: dict[int, Encoder] = {} if fresh else {0: encoder}
        self._features: dict[int, tuple[Tensor, Tensor | None]] = {}

    @property
    def metric(self) -> str:
        return str(self.job.metric)

    def score(self, chosen: np.ndarray, test: np.ndarray | None, seed: int, learning_rate: float | None = None) -> Scored:
        """Trains on records of the pool and scores on others of it, or on the test records.

        Args:
            chosen, test: record numbers; None: the test records of the bench.
            seed: decides head, order, dropout and a fresh network.
            learning_rate: None: that of the config. A probe has none.
        """
        data = _subset(self.records, test) if test is not None else self.test
        assert data is not None
        if self.measure == "linear-probe":
            return self._probe(chosen, test, seed, data)
        encoder = self._encoder(seed)
        encoder = dataclasses.replace(encoder, module=copy.deepcopy(encoder.module))
        both = np.concatenate([chosen, chosen + len(self.records)]) if len(self.train_rows) > len(self.records) else chosen
        config = dataclasses.replace(self.config, epochs=epochs(self.config, len(both)))
        started = time.perf_counter()
        model, _, _ = train(self.job, encoder, take(self.train_rows, both), config, learning_rate or config.learning_rate, seed, self.device)
        trained = time.perf_counter()
        rows: Any = take(self.pool_rows, test) if test is not None else self.test_rows
        predictions = predict(model, self.job, rows, data, encoder, self.config, self.device)
        found = self.job.score(predictions, data)
        right = tuple(int(data.classes[int(y)] == p) for p, y in zip(predictions, data.labels, strict=True)) if data.classes else None
        return Scored(found[self.metric], right, self.job.stuck(predictions), trained - started, time.perf_counter() - trained)

    def best_rate(self, draw: Draw) -> tuple[float, dict[float, float]]:
        """The learning rate of the config that is best on a part of the draw's training records, never on test records, and what each reached."""
        rates = self.config.rates
        if len(rates) == 1 or self.measure == "linear-probe":
            return rates[0], {}
        kinds = np.asarray(self.records.labels)[draw.train] if self.records.classes else np.zeros(len(draw.train))
        fit, dev = stratified_splits(kinds, 1, DEV_SHARE, 0)[0]
        tried = {rate: self.score(draw.train[fit], draw.train[dev], draw.seed, rate).value for rate in rates}
        return max(rates, key=lambda rate: tried[rate]), tried

    def _encoder(self, seed: int) -> Encoder:
        """The network that a seed begins with; the last fresh one is kept, since all counts of a seed begin with it."""
        key = seed if self.fresh else 0
        if key not in self._encoders:
            self._encoders = {key: load_encoder(self.folder, fresh=True, seed=seed, dropout=self.config.dropout)}
        return self._encoders[key]

    def _probe(self, chosen: np.ndarray, test: np.ndarray | None, seed: int, data: TextData) -> Scored:
        key = seed if self.fresh else 0
        started = time.perf_counter()
        if key not in self._features:
            encoder = self._encoder(seed)
            self._features = {key: (self._embed(encoder, self.pool_rows), None if self.test_rows is None else self._embed(encoder, self.test_rows))}
        in_pool, in_test = self._features[key]
        features = in_pool[torch.from_numpy(test)] if test is not None else in_test
        assert features is not None
        truth = np.asarray(data.labels)
        index = torch.from_numpy(chosen)
        probe = fit_linear_probe(in_pool[index], torch.tensor(self.records.labels)[index])
        trained = time.perf_counter()
        predicted = linear_predictions(probe, features).numpy()
        value = classification_metrics(predicted, truth, len(data.classes))[self.metric]
        return Scored(value, tuple((predicted == truth).astype(int).tolist()), None, trained - started, time.perf_counter() - trained)

    def _embed(self, encoder: Encoder, rows: Rows) -> Tensor:
        return frozen_features(encoder, rows, "mean" if self.config.pooling == "auto" else self.config.pooling, self.device)


@torch.no_grad()
def frozen_features(encoder: Encoder, rows: Rows, pooling: Pooling, device: torch.device) -> Tensor:
    """float32 [n, hidden] on the CPU: a vector of each row, dropout off."""
    module: Any = encoder.module
    module.to(device).eval()
    pad = encoder.tokenizer.pad_token_id
    source = DeviceRows(rows, pad if pad is not None else 0, device)
    order = np.argsort(rows.lengths, kind="stable")
    chosen = choose_pooling(pooling, encoder)
    found = torch.empty(len(rows), encoder.hidden_size)
    for part in np.split(order, range(EVAL_BATCH, len(order), EVAL_BATCH)):
        batch = source.batch(part)
        found[torch.from_numpy(part)] = pool(encoder.hidden_states(batch), batch.get("attention_mask"), chosen).float().cpu()
    return found


def label_curve(
    folder: str | Path,
    records: TextData,
    test: TextData | None,
    draws: Sequence[Draw],
    config: FinetuneConfig,
    *,
    task: str = "classification",
    fresh: bool = False,
    measure: Measure = "finetune",
    report: Callable[[str], None] | None = None,
) -> Curve:
    """Metric against number of labels for one network: every count of the draws with every seed, the learning rate chosen once.

    Args:
        folder, records, test, config, task, fresh, measure: as in `Bench`.
        draws: from `draw_labels`, the same for all networks that are compared.
        report: called with a line a point.

    Raises:
        as `Bench`.
    """
    bench = Bench(folder, records, test, config, task=task, fresh=fresh, measure=measure)
    rate, _ = bench.best_rate(draws[0])
    curve = Curve(bench.metric, {count: [] for count in draws[0].subsets}, 0.0 if test is not None else len(_tested(draws)) / len(records))
    spent = 0.0
    for draw in draws:
        for count, chosen in draw.subsets.items():
            scored = bench.score(chosen, draw.test, draw.seed, rate)
            curve.values[count].append(scored.value)
            spent += scored.train_s + scored.test_s
            if report is not None:
                report(f"{'random start' if fresh else 'pretrained'}, {count} labels, seed {draw.seed}: {bench.metric} {scored.value:.4f}")
    curve.seconds_a_point = spent / max(sum(map(len, curve.values.values())), 1)
    curve.learning_rate = rate if measure == "finetune" else None
    return curve


def labels_worth(curve: Curve, random_curve: Curve, labels: int | None = None) -> LabelsWorth:
    """How many labels a random start needs to reach what `curve` has with `labels`.

    The estimate: the mean of the random start, made monotone (isotonic regression) and interpolated in the logarithm of the count. Its interval: all
    counts at which the paired t interval of the difference holds 0, so it needs no resampling and widens with the scatter of the seeds.

    Args:
        labels: None: the smallest count of the curve.
    """
    n = labels if labels is not None else curve.counts[0]
    mine = np.asarray(curve.values[n])
    counts = random_curve.counts
    at = np.log(counts)
    theirs = np.array([random_curve.values[count] for count in counts])  # [counts, seeds]
    target = float(mine.mean())
    means = isotonic_regression(theirs.mean(1)).x
    needed: float | None
    if means[-1] < target:
        needed = None
    elif means[0] >= target:
        needed = float(counts[0])
    else:
        up = int(np.argmax(means >= target))
        needed = float(np.exp(np.interp(target, means[up - 1 : up + 1], at[up - 1 : up + 1])))
    return LabelsWorth(n, target, needed, _worth_interval(mine, at, theirs, curve.test_share), counts[0], counts[-1])


def _worth_interval(mine: np.ndarray, at: np.ndarray, theirs: np.ndarray, test_share: float) -> tuple[float, float | None] | None:
    grid = np.linspace(at[0], at[-1], _GRID) if len(at) > 1 else at
    there = np.array([np.interp(grid, at, seed) for seed in theirs.T])  # [seeds, grid]
    paired = len(mine) == len(there)
    intervals: list[Interval] = []
    for values in there.T:
        interval = difference(mine, values, paired=paired, test_share=test_share).interval
        if interval is None:
            return None
        intervals.append(interval)
    too_few = [low > 0 for low, _ in intervals]  # pre-training is still better than so many labels
    enough = [high < 0 for _, high in intervals]
    first = next((i for i, short in enumerate(too_few) if not short), len(grid) - 1)
    last = next((i for i in reversed(range(len(grid))) if not enough[i]), 0)
    return float(np.exp(grid[first])), None if last == len(grid) - 1 else float(np.exp(grid[last]))


def _tested(draws: Sequence[Draw]) -> np.ndarray:
    assert draws[0].test is not None
    return draws[0].test


def _subset(data: TextData, index: np.ndarray) -> TextData:
    """Some records, with the classes of all."""
    seconds = None if data.seconds is None else [data.seconds[i] for i in index]
    labels: Any = [data.labels[i] for i in index]
    return TextData([data.texts[i] for i in index], labels, data.classes, seconds, data.source)
