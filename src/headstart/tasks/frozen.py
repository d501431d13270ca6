"""What a network knows before any fine-tuning, in seconds: a linear probe, the nearest neighbours and the effective rank of its frozen features,
always beside the same network from random starts. Texts and images with a class each.

    result = probe_texts(["runs/mlm-tiny-0/export"], "train.jsonl", "test.jsonl")
    print(*result.lines(), sep="\\n")

A random network is no zero: its features of texts are hashes of their words, from which a linear probe learns much. What pre-training gave is the
difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headstart.backbones.vit import ViTConfig
from headstart.core.errors import UsageError
from headstart.core.progress import Reporter
from headstart.core.words import aligned, change, plural
from headstart.data.image.reading import Reading
from headstart.data.text.tokenizer import FAILS, library_errors
from headstart.engine.device import use_device
from headstart.engine.probes import fit_linear_probe, knn_predictions, linear_predictions, rankme
from headstart.engine.update import autocast, precision_of
from headstart.interop.transformers_io import load_encoder
from headstart.interop.vit import load_vit, stated_reading
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TextData, read_classification
from headstart.tasks.frozen_config import FrozenConfig
from headstart.tasks.image_classification import build, statistics
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData, read_images
from headstart.tasks.image_leaks import image_leaks
from headstart.tasks.image_network import of_whole_images
from headstart.tasks.label_curve import frozen_features
from headstart.tasks.leaks import find_overlap, training_leaks
from headstart.tasks.metrics import FEWEST_SEEDS, Difference, Records, difference, difference_range
from headstart.tasks.result import ALIKE, RANDOM
from headstart.tasks.text_classification import TextClassification

PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
"""L2 penalties that are tried. A wide network and few labels want a strong one, a narrow one and many labels a weak one; with one for all, the probe
would measure the width."""
FOLDS, FEW_RECORDS = 5, 2000
"""Of the training records, to choose the penalty by; the probe that counts learns from all."""
ROUGHLY = 50
"""Iterations of a probe that only chooses."""
ACCURACY = "accuracy"


@dataclass
class Scores:
    """What the frozen features of one network say.

    Attributes:
        linear, neighbours: bool [test records], where the linear probe and the vote of the nearest training records are right.
        rankme: effective rank of the test features, of at most `dim`.
        penalty: of the linear probe, chosen on training records.
    """

    linear: np.ndarray
    neighbours: np.ndarray
    rankme: float
    dim: int
    penalty: float

    def to_json(self) -> dict[str, Any]:
        return {
            "linear_probe_accuracy": float(self.linear.mean()),
            "knn_accuracy": float(self.neighbours.mean()),
            "rankme": self.rankme,
            "dim": self.dim,
            "l2": self.penalty,
        }


@dataclass
class Frozen:
    """One network, and the same from random starts."""

    model: str
    scores: Scores
    random: list[Scores]
    notes: list[str] = field(default_factory=list)

    def difference(self) -> Difference | None:
        """Of the linear probe's accuracy to that of the random starts, over starts and test records; None without random starts."""
        if not self.random:
            return None
        fresh = np.array([Records.of_shares(one.linear).values for one in self.random])  # [starts, records]
        mine = np.broadcast_to(Records.of_shares(self.scores.linear).values, fresh.shape)
        found = difference(mine, fresh, bounds=difference_range(ACCURACY))
        if found.interval is not None and found.interval[1] - found.interval[0] <= ALIKE:
            return dataclasses.replace(found, interval=None)
        return found

    def verdict(self) -> str:
        """One sentence: is it better than a random start, and by how much?"""
        mine = float(self.scores.linear.mean())
        found = self.difference()
        if found is None:
            return f"{self.model}: a linear probe reaches {mine:.4f}; without a random start beside it that says nothing of what pre-training gave."
        fresh = float(np.mean([one.linear.mean() for one in self.random]))
        against = f"a linear probe reaches {mine:.4f} against {fresh:.4f} from random initialisation, {change(found.mean)}"
        if found.interval is None:
            return f"{self.model}: {against}. {plural(len(self.random), 'random start')} cannot decide: give --random-starts {FEWEST_SEEDS} or more."
        low, high = found.interval
        word = "knows more than" if low > 0 else "knows less than" if high < 0 else "may know no more than"
        over = f"{len(self.random)} random starts and {len(self.scores.linear):,} test records"
        return f"{self.model} {word} a random start: {against} (95 % interval {change(low)} to {change(high)} over {over})."

    def to_json(self) -> dict[str, Any]:
        found = self.difference()
        return {
            "model": self.model,
            **self.scores.to_json(),
            "random": [one.to_json() for one in self.random],
            "difference": None if found is None else found.mean,
            "ci95": None if found is None or found.interval is None else list(found.interval),
            "verdict": self.verdict(),
            "notes": self.notes,
        }


@dataclass
class FrozenResult:
    """The outcome of `probe`."""

    models: list[Frozen]
    data: dict[str, Any]
    leaks: list[str]
    config: dict[str, Any]

    def lines(self) -> list[str]:
        """What a person reads: table, notes, leaks, a verdict for each network."""
        rows = [["network", "linear probe", "nearest neighbours", "RankMe", "penalty"]]
        for one in self.models:
            rows += [_row(one.model, [one.scores]), *([_row(f"  {RANDOM} start", one.random)] if one.random else [])]
        rows.append(["most frequent class", f"{self.data['majority']:.4f}", "", "", ""])
        notes = [f"{one.model}: {note}" for one in self.models for note in one.notes]
        return [*aligned(rows), *notes, *self.leaks, *(one.verdict() for one in self.models)]

    def to_json(self) -> dict[str, Any]:
        """Everything, for probe.json."""
        models = [one.to_json() for one in self.models]
        return {"metric": "linear_probe_accuracy", "data": self.data, "models": models, "leaks": self.leaks, "config": self.config}


def _row(name: str, scores: Sequence[Scores]) -> list[str]:
    """Name, and the mean of each figure over networks."""
    linear, neighbours = (float(np.mean([getattr(one, which).mean() for one in scores])) for which in ("linear", "neighbours"))
    penalties = sorted({one.penalty for one in scores})
    return [name, f"{linear:.4f}", f"{neighbours:.4f}", f"{np.mean([one.rankme for one in scores]):.1f} of {scores[0].dim}",
            " ".join(f"{penalty:g}" for penalty in penalties)]  # fmt: skip


class Labelled(Protocol):
    """Labelled records of one kind."""

    def vectors(self, model: Path, fresh: int | None) -> tuple[Tensor, Tensor]:
        """float32 [n, dim] and [m, dim] on one device: frozen features of the training and the test records.

        Args:
            fresh: None: of the network as it is; else of one of the same shape from this random start.
        """

    def shape(self, model: Path) -> Any:
        """Equal for networks that have the same random starts and read the records alike."""

    def notes(self, model: Path) -> list[str]:
        """What was adapted of it, a sentence each."""

    def leaks(self, models: Sequence[Path]) -> list[str]:
        """A sentence for each place where some test records stand."""


def probe_texts(models: Sequence[str | Path], train: Any, test: Any, config: FrozenConfig | None = None) -> FrozenResult:
    """Measures text networks on labelled texts, or pairs of texts.

    Args:
        models: folders that `load_encoder` reads.
        train, test: files, or `TextData`.

    Raises:
        BadInput: a file or a folder cannot be used. UsageError: a setting is wrong.
    """
    config = config or FrozenConfig()
    if config.bands:
        raise UsageError("--bands is for images, the models read texts.", "Leave it out.")
    known = _texts(train, config, None)
    texts = _Texts(known, _texts(test, config, known.classes), config, use_device(config.device))
    return _measured(texts, [Path(model) for model in models], (known.labels, texts.test.labels), known.classes, config)


def probe_images(models: Sequence[str | Path], train: Any, test: Any, config: FrozenConfig | None = None) -> FrozenResult:
    """Measures vision transformers on labelled images.

    Args:
        models: what `load_vit` reads.
        train, test: what `read_images` reads, or `ImageData`.

    Raises:
        BadInput: an image or a folder cannot be used. UsageError: a setting is wrong.
    """
    config = config or FrozenConfig()
    if config.pooling == "last":
        raise UsageError("--pooling last is for texts.", "Give mean or cls.")
    for name in ("max_length", "text_field", "second_field"):
        if getattr(config, name) != getattr(FrozenConfig, name):
            raise UsageError(f"--{name.replace('_', '-')} is for texts, the models read images.", "Leave it out.")
    folders = [Path(model) for model in models]
    images = _Images(train, test, config, use_device(config.device))
    known, tested = images.read(folders[0])
    return _measured(images, folders, (known.labels, tested.labels), known.classes, config)


def _measured(records: Labelled, models: Sequence[Path], labels: tuple[Any, Any], classes: Sequence[str], config: FrozenConfig) -> FrozenResult:
    train, test = (torch.as_tensor(np.asarray(part)) for part in labels)
    found: list[Frozen] = []
    shapes = [records.shape(model) for model in models]
    random: dict[Any, list[Scores]] = {}
    with Reporter("probe", total=len(models) + config.random_starts * len({*shapes}), unit="networks") as progress:

        def scores(model: Path, fresh: int | None) -> Scores:
            of_one = score(*records.vectors(model, fresh), train, test, config.neighbours)
            progress.advance()
            return of_one

        for model, shape in zip(models, shapes, strict=True):
            mine = scores(model, None)
            if shape not in random:
                random[shape] = [scores(model, seed) for seed in range(config.random_starts)]
            found.append(Frozen(str(model), mine, random[shape], records.notes(model)))
    majority = float((test == train.bincount().argmax()).double().mean())
    data = {"train": len(train), "test": len(test), "classes": list(classes), "majority": majority}
    settings = {each.name: getattr(config, each.name) for each in dataclasses.fields(FrozenConfig)}
    return FrozenResult(found, data, records.leaks(models), settings)


def score(known: Tensor, tested: Tensor, labels: Tensor, truth: Tensor, neighbours: int = 20) -> Scores:
    """What features say of the test records.

    Args:
        known, tested: [n, dim] and [m, dim].
        labels, truth: int64 [n] and [m], 0..classes-1.
    """
    labels, truth = labels.to(known.device), truth.to(known.device)
    penalty = best_penalty(known, labels)
    linear = linear_predictions(fit_linear_probe(known, labels, penalty), tested) == truth
    nearest = knn_predictions(known, labels, tested, neighbours) == truth
    return Scores(linear.cpu().numpy(), nearest.cpu().numpy(), rankme(tested), known.shape[1], penalty)


def best_penalty(features: Tensor, labels: Tensor) -> float:
    """The L2 penalty whose probe is right most often on training records that it did not learn from, the strongest of equals: by five folds, of which
    one is enough where there are many records.

    Args:
        features: [n, dim]; labels: int64 [n].
    """
    fold = folds(labels)
    right = dict.fromkeys(PENALTIES, 0)
    for number in range(FOLDS if len(labels) <= FEW_RECORDS else 1):
        held = fold == number
        for penalty in PENALTIES:
            probe = fit_linear_probe(features[~held], labels[~held], penalty, ROUGHLY)
            right[penalty] += int((linear_predictions(probe, features[held]) == labels[held]).sum())
    return max(PENALTIES, key=lambda penalty: (right[penalty], penalty))


def folds(labels: Tensor) -> Tensor:
    """int64 [n]: the fold of each record, each class spread evenly over all; the same every time."""
    generator = torch.Generator().manual_seed(0)
    fold = torch.zeros_like(labels)
    start = 0
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator).to(members.device)]
        fold[members] = (torch.arange(len(members), device=labels.device) + start) % FOLDS  # goes on where the last class ended
        start += len(members)
    return fold


def _texts(data: Any, config: FrozenConfig, classes: list[str] | None) -> TextData:
    if isinstance(data, TextData):
        return data
    return read_classification(data, config.text_field, config.second_field, config.label_field, classes)


@dataclass
class _Texts:
    train: TextData
    test: TextData
    config: FrozenConfig
    device: torch.device

    def vectors(self, model: Path, fresh: int | None) -> tuple[Tensor, Tensor]:
        encoder = load_encoder(model, fresh=fresh is not None, seed=fresh or 0, dropout=0.0)
        task = TextClassification(FinetuneConfig(max_length=self.config.max_length, dropout=0.0), classes=self.train.classes)
        with library_errors(FAILS, model, any_error=False):
            rows = [task.rows(part, encoder, training=False) for part in (self.train, self.test)]
        with autocast(self.device, precision_of(self.config, self.device)):
            one, two = (frozen_features(encoder, part, self.config.pooling, self.device) for part in rows)
        return one, two

    def shape(self, model: Path) -> Any:
        return tuple((model / name).read_bytes() if (model / name).is_file() else b"" for name in ("config.json", "tokenizer.json", "vocab.txt"))

    def notes(self, model: Path) -> list[str]:
        return []  # what does not fit a network of texts is refused

    def leaks(self, models: Sequence[Path]) -> list[str]:
        tested = self.test.leak_texts()
        found = [find_overlap(tested, self.train.leak_texts()).sentence("the training file")]
        return list(dict.fromkeys([*found, *(line for model in models for line in training_leaks(tested, model))]))


@dataclass(frozen=True)
class _Look:
    """What is read of a vision transformer once.

    Attributes:
        shape: of the network. reading: how its images are read. notes: what was adapted of it.
    """

    shape: ViTConfig
    reading: Reading
    notes: list[str]

    @property
    def form(self) -> tuple[int, int, Reading]:
        """Channels, pixels a side and reading of its images."""
        return self.shape.channels, self.shape.image_size[0], self.reading


@dataclass
class _Images:
    train: Any
    test: Any
    config: FrozenConfig
    device: torch.device
    _looks: dict[Path, _Look] = field(default_factory=dict)
    _read: dict[Any, tuple[ImageData, ImageData]] = field(default_factory=dict)

    def look(self, model: Path) -> _Look:
        if model not in self._looks:
            network, notes = load_vit(model)
            self._looks[model] = _Look(network.config, stated_reading(model).with_bands(self.config.bands), notes)
        return self._looks[model]

    def read(self, model: Path) -> tuple[ImageData, ImageData]:
        """The labelled images in the form that a network takes; networks of one form share them."""
        form = self.look(model).form
        if form not in self._read:
            train = self._data(self.train, *form)
            self._read[form] = train, self._data(self.test, *form, train.classes)
        return self._read[form]

    def _data(self, data: Any, channels: int, size: int, reading: Reading, classes: list[str] | None = None) -> ImageData:
        return data if isinstance(data, ImageData) else read_images(
            data, channels, size, classes, reading=reading, label_field=self.config.label_field
        )

    def vectors(self, model: Path, fresh: int | None) -> tuple[Tensor, Tensor]:
        config = ImageFinetuneConfig(linear_probe="regression", pooling=self.config.pooling, precision=self.config.precision)  # type: ignore[arg-type]
        parts = self.read(model)
        network = build(model, config, parts[0], *statistics(model, parts[0]), fresh or 0, fresh=fresh is not None)
        one, two = (of_whole_images(network, network.features, part.images, config, self.device) for part in parts)
        return one, two

    def shape(self, model: Path) -> Any:
        look = self.look(model)
        return str(look.shape), *(tuple(value.tolist()) for value in statistics(model, self.read(model)[0])), look.form

    def notes(self, model: Path) -> list[str]:
        return self.look(model).notes

    def leaks(self, models: Sequence[Path]) -> list[str]:
        found = (line for model in models for line in image_leaks(self.read(model)[1], [self.read(model)[0]], model))
        return list(dict.fromkeys(found))
