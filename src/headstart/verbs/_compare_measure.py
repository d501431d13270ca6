"""The measured points of a comparison: labelled records, draws, fine-tuning, and a file in which each point is kept as soon as it is known.

A point's key is a hash of all that decides its value (weights, records, recipe, seed), so nothing stale is ever reused: other labels or another
recipe in the same folder simply are other points.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.config import plain
from headstart.core.errors import BadInput
from headstart.core.journal import Known
from headstart.core.words import did_you_mean
from headstart.data.tables import records, wrong_delimiter
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TextData, read_classification, read_regression
from headstart.tasks.label_curve import TEST_SHARE, Bench, Draw, Measure, Scored, draw_labels, epochs
from headstart.tasks.leaks import normalise
from headstart.verbs._advise_measure import LARGE_NETWORK
from headstart.verbs._compare_arms import Arm, Export, hash_of
from headstart.verbs.demo import FINETUNE

LARGE_RATES = (3e-5, 1e-4)
FEWEST_RECORDS = 20


@dataclass
class Labelled:
    """The labelled records, without repeated texts, and how each seed divides them."""

    task: str
    records: TextData
    test: TextData | None
    groups: list[str] | None  # the document of each record
    repeated: int  # records left out because their text came before
    draws: list[Draw]
    main: int  # labels of the points that decide: what every seed's training part holds

    @property
    def stratify(self) -> bool:
        return self.task == "classification"

    @property
    def test_share(self) -> float:
        """Of each split; 0 with a test file."""
        return 0.0 if self.draws[0].test is None else len(self.draws[0].test) / len(self.records)

    @property
    def test_records(self) -> int:
        return len(self.test) if self.test is not None else round(self.test_share * len(self.records))

    @property
    def least(self) -> int:
        """The smallest sensible number of labels: two a class."""
        return max(8, 2 * len(self.records.classes))

    def split(self) -> str:
        """In words."""
        whole = "documents whole" if self.groups is not None else "stratified" if self.stratify else "at random"
        if self.test is not None:
            return f"one test file, {len(self.draws)} draws of labels"
        return f"{len(self.draws)} random splits, {whole}, {self.test_share:.0%} for testing"

    def hash(self) -> str:
        return hash_of([[part.texts, part.seconds, part.labels, part.classes] for part in (self.records, self.test) if part is not None])

    def with_counts(self, counts: Sequence[int], seeds: int) -> Labelled:
        """The same with these numbers of labels in each draw (those that every seed can have)."""
        labels: list[Any] = list(self.records.labels)
        draws = draw_labels(
            labels, sorted({*counts, self.main}), seeds, has_test=self.test is not None, test_share=TEST_SHARE, stratify=self.stratify,
            groups=self.groups,
        )  # fmt: skip
        return dataclasses.replace(self, draws=draws)


def read_labelled(path: Path, test: Path | None, task: str, config: FinetuneConfig, group_field: str | None, seeds: int) -> Labelled:
    """The labelled file (and the test file, held to its classes).

    Raises:
        BadInput: a file cannot be used, or has too few records to be divided.
    """

    def read(file: Path, classes: Sequence[str] | None = None) -> TextData:
        if task == "classification":
            return read_classification(file, config.text_field, config.second_field, config.label_field, classes)
        return read_regression(file, config.text_field, config.second_field, config.label_field, config.minimum, config.maximum)

    data = read(path, list(config.labels) or None)
    groups = None if group_field is None else _groups(path, group_field)
    seen: dict[str, int] = {}
    for number, text in enumerate(data.leak_texts()):
        seen.setdefault(normalise(text) or text, number)
    kept = list(seen.values())
    if test is None and len(kept) < FEWEST_RECORDS:
        mend = f"Label at least {FEWEST_RECORDS}, or give --test FILE."
        raise BadInput(f"has {len(kept)} different labelled records, too few to learn from some and test on the others.", mend, file=path)
    pool = _taken(data, kept)
    if task == "classification" and (rare := np.flatnonzero(np.bincount(pool.labels, minlength=len(pool.classes)) < 2)).size and test is None:
        raise BadInput(f"has one record of the class {pool.classes[rare[0]]!r}, which cannot be divided.", "Label another one.", file=path)
    labelled = Labelled(
        task, pool, None if test is None else read(test, data.classes or None), None if groups is None else [groups[i] for i in kept],
        len(data) - len(kept), [], 0,
    )  # fmt: skip
    labels: list[Any] = list(pool.labels)
    draws = draw_labels(labels, [], seeds, has_test=test is not None, test_share=TEST_SHARE, stratify=labelled.stratify, groups=labelled.groups)
    return dataclasses.replace(labelled, draws=draws, main=min(len(draw.train) for draw in draws)).with_counts([], seeds)


def _groups(path: Path, name: str) -> list[str]:
    found = []
    for number, record in records(path):
        if name not in record:
            what = f"has no field {name!r}, only {', '.join(map(repr, list(record)[:8]))}."
            mend = wrong_delimiter(path, record) or f"{did_you_mean(name, record)}Name that of the document: --group-field."
            raise BadInput(what, mend, file=path, record=number)
        found.append(str(record[name]))
    if len(set(found)) < 2:
        raise BadInput(f"has one document in the field {name!r}, which cannot be divided.", "Name another field.", file=path)
    return found


def _taken(data: TextData, index: Sequence[int]) -> TextData:
    labels: Any = [data.labels[i] for i in index]
    seconds = None if data.seconds is None else [data.seconds[i] for i in index]
    return TextData([data.texts[i] for i in index], labels, data.classes, seconds, data.source)


# --- points ---------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One training: which arm, source, export (from the end), how many labels, which seed."""

    arm: int
    source: int
    station: int
    count: int
    seed: int


@dataclass
class Values:
    """What an arm reached somewhere: [pre-training seeds, fine-tuning seeds], and [.., .., records] where it is known which records were right (NaN:
    not tested with that seed)."""

    values: np.ndarray
    right: np.ndarray | None = None
    stuck: int = 0
    documents: bool = False  # the records are documents without labels, and each network has one value


class Measuring:
    """Measures items, each once.

    Args:
        arms: the runs and model folders, then the random starts.
        say: gets a line for each learning rate chosen.
        live: gets one that changes with every training.
    """

    def __init__(
        self,
        arms: Sequence[Arm],
        labelled: Labelled,
        config: FinetuneConfig,
        measure: Measure,
        points: Known,
        say: Callable[[str], None],
        live: Callable[[str], None] | None = None,
    ) -> None:
        self.arms, self.labelled, self.config, self.measure, self.points, self.say = arms, labelled, config, measure, points, say
        self.data_hash = labelled.hash()
        self.rates: dict[int, tuple[float, dict[float, float]]] = {}
        self.live = live or (lambda line: None)
        self.done, self.total = 0, 0  # trainings of the plan
        self._bench: tuple[Any, Bench] | None = None
        self._configs: dict[str, FinetuneConfig] = {}

    @property
    def metric(self) -> str:
        return "accuracy" if self.labelled.task == "classification" else "spearman"

    def rate(self, arm: int) -> tuple[float, dict[float, float]]:
        """The arm's learning rate, chosen with its first source's final export on a part of the first seed's training records."""
        if arm not in self.rates:
            export, draw = self.arms[arm].final, self.labelled.draws[0]
            config = self.config_of(export)
            if len(config.learning_rates) < 2 or self.measure == "linear-probe":
                self.rates[arm] = (config.learning_rates[0], {})
                return self.rates[arm]
            bench = lambda: self.bench(arm, 0, -1)  # noqa: E731
            train = hash_of(draw.train.tolist())

            def tried() -> dict[str, Any]:
                best, found = bench().best_rate(draw)
                return {"rate": best, "tried": [[rate, value] for rate, value in found.items()]}

            known = self.points.get(self.key(arm, export, "rate", train, draw.seed, 0.0), tried)
            self.rates[arm] = (float(known["rate"]), {float(rate): float(value) for rate, value in known["tried"]})
            said = ", ".join(f"{rate:g}: {value:.3f}" for rate, value in self.rates[arm][1].items())
            self.say(f"{self.arms[arm].name}: learning rate {known['rate']:g} ({self.metric} on a part of the training records: {said}).")
        return self.rates[arm]

    def score(self, item: Item) -> Scored:
        """The item's point, from the file or measured now."""
        draw = self.labelled.draws[item.seed]
        chosen = draw.subsets[item.count]
        export = self.arms[item.arm].sources[item.source].exports[item.station]
        rate = self.rate(item.arm)[0]

        def measured() -> dict[str, Any]:
            scored = self.bench(item.arm, item.source, item.station).score(chosen, draw.test, draw.seed, rate)
            right = None if scored.right is None else "".join(map(str, scored.right))
            return {**dataclasses.asdict(scored), "right": right, "arm": self.arms[item.arm].name, "labels": item.count, "seed": item.seed}

        found = self.points.get(self.key(item.arm, export, "score", hash_of([chosen.tolist(), _listed(draw.test)]), draw.seed, rate), measured)
        right = None if found["right"] is None else tuple(map(int, found["right"]))
        if self.total:
            self.done += 1
            self.live(f"{self.done} of {self.total} trainings")
        return Scored(found["value"], right, found["stuck"], found["train_s"], found["test_s"])

    def values(self, arm: int, station: int, count: int, seeds: int) -> Values:
        """All seeds of an arm at one export and number of labels."""
        rows, rights, stuck = [], [], 0
        for source in range(len(self.arms[arm].sources)):
            scored = [self.score(Item(arm, source, station, count, seed)) for seed in range(seeds)]
            rows.append([one.value for one in scored])
            rights.append([self._on_all_records(draw, one) for draw, one in zip(self.labelled.draws, scored, strict=False)])
            stuck += sum(one.stuck is not None for one in scored)
        return Values(np.array(rows), np.array(rights) if self.labelled.task == "classification" else None, stuck)

    def _on_all_records(self, draw: Draw, scored: Scored) -> np.ndarray:
        """float [records]: 1 and 0 where the seed tested the record, NaN elsewhere."""
        if draw.test is None:
            return np.asarray(scored.right, dtype=np.float64)
        found = np.full(len(self.labelled.records), np.nan)
        found[draw.test] = np.nan if scored.right is None else scored.right
        return found

    def seconds(self, item: Item, first: Scored) -> float:
        """About what an item takes, from one of the same arm with `main` labels."""
        steps, main = (self.steps(item.arm, count) for count in (item.count, self.labelled.main))
        return first.train_s * steps / main + first.test_s

    def steps(self, arm: int, count: int) -> float:
        if self.measure == "linear-probe":
            return 1.0
        config = self.config_of(self.arms[arm].final)
        return math.ceil(count / min(config.batch, count)) * epochs(config, count)

    def bench(self, arm: int, source: int, station: int) -> Bench:
        """The network of an export, loaded; the last one is kept."""
        where = (arm, source, station)
        if self._bench is None or self._bench[0] != where:
            found, export = self.arms[arm], self.arms[arm].sources[source].exports[station]
            config, data = self.config_of(export), self.labelled
            self._bench = (where, Bench(export.folder, data.records, data.test, config, task=data.task, fresh=found.fresh, measure=self.measure))
        return self._bench[1]

    def config_of(self, export: Export) -> FinetuneConfig:
        """The recipe with the rates that fit the network, unless rates were given: BERT's for a large one, those of `demo` for a small one."""
        key = export.architecture
        if key not in self._configs:
            rates = self.config.learning_rates
            if not rates and self.config.learning_rate != FinetuneConfig.learning_rate:
                rates = (self.config.learning_rate,)
            if not rates:
                rates = LARGE_RATES if _parameters(export.folder) >= LARGE_NETWORK else FINETUNE.learning_rates
            self._configs[key] = dataclasses.replace(self.config, learning_rates=rates)
        return self._configs[key]

    def key(self, arm: int, export: Export, what: str, chosen: str, seed: int, rate: float) -> str:
        fresh = self.arms[arm].fresh
        network = export.architecture if fresh else export.contents
        return hash_of([what, network, fresh, self.data_hash, chosen, seed, rate, plain(self.config_of(export)), self.measure, self.labelled.task])


def _parameters(folder: Path) -> int:
    from headstart.interop.transformers_io import load_encoder

    return sum(p.numel() for p in load_encoder(folder, fresh=True).module.parameters())


def _listed(index: np.ndarray | None) -> list[int] | None:
    return None if index is None else index.tolist()
