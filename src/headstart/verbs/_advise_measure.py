"""How good an arm of `advise` is: on the user's labels by fine-tuning, or without labels by what held-out documents say of it.

With labels every arm is fine-tuned as the final use is, on the same halves of the labelled records, its learning rate the better of two on a part of
the first training half (the same effort for all, never on the test half). A linear probe is cheaper and was measured too: docs/guides/which-method.md
says how well each ranks arms.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from headstart.core.errors import BadInput, UsageError
from headstart.engine.device import resolve_device
from headstart.engine.method import Method
from headstart.engine.probes import rankme
from headstart.engine.text_method import model_folder
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TextData, read_classification
from headstart.tasks.splits import nested_subsets, stratified_splits
from headstart.tasks.text_classification import TextClassification
from headstart.tasks.training import predict, train
from headstart.verbs._advise_candidates import Candidate, built
from headstart.verbs._verdict import PROBE_BATCH, features
from headstart.verbs.demo import FINETUNE

SPLITS = 5
MAX_TRAIN = 200
"""Labelled records that one fine-tuning of the trial learns from; the final use takes all."""
MAX_TEST = 1000
FEWEST_LABELS = 20
FEW_LABELS = 100
LARGE_NETWORK = 20_000_000
"""Parameters from which on the learning rates of fine-tuning are those of BERT (Devlin et al. 2019) instead of those of small networks."""
MAX_DOCUMENTS = 1000


@dataclass
class Labels:
    """The labelled records and how they are divided."""

    data: TextData
    splits: list[tuple[np.ndarray, np.ndarray]]  # (train, test) record numbers of each split

    @property
    def train_size(self) -> int:
        return len(self.splits[0][0])


def read_labels(path: Path, text_field: str, label_field: str, seed: int) -> Labels:
    """The labelled file as five stratified halves; of a large file at most 200 records to train and 1,000 to test on.

    Raises:
        BadInput: the file cannot be used, or has too few records to be divided.
    """
    data = read_classification(path, text_field, label_field=label_field)
    counts = np.bincount(data.labels, minlength=len(data.classes))
    if len(data) < FEWEST_LABELS:
        mend = f"Label at least {FEWEST_LABELS}, better {FEW_LABELS}, or leave out --labels: then held-out documents are the (weaker) evidence."
        raise BadInput(f"has {len(data)} labelled records, too few to learn from one half and test on the other.", mend, file=path)
    if counts.min() < 2:
        rare = data.classes[int(counts.argmin())]
        raise BadInput(f"has one record of the class {rare!r}, which cannot be divided.", "Label another one, or remove it.", file=path)
    labels = np.asarray(data.labels)
    splits = [
        (limited(train_part, labels, MAX_TRAIN, seed), limited(test_part, labels, MAX_TEST, seed))
        for train_part, test_part in stratified_splits(labels, SPLITS, 0.5, seed)
    ]
    return Labels(data, splits)


def limited(part: np.ndarray, labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of the records, stratified."""
    count = max(limit, len(np.unique(labels[part])))
    return part if len(part) <= count else part[nested_subsets(labels[part], [count], seed)[count]]


def describe_labels(data: TextData) -> dict[str, Any]:
    """What the page says of the labelled file."""
    counts = np.bincount(data.labels, minlength=len(data.classes))
    seen: dict[str, set[Any]] = {}
    for text, label in zip(data.texts, data.labels, strict=True):
        seen.setdefault(text, set()).add(label)
    return {
        "records": len(data),
        "classes": {name: int(n) for name, n in zip(data.classes, counts, strict=True)},
        "repeated": len(data) - len(seen),
        "contradictory": sum(len(found) > 1 for found in seen.values()),
    }


def subset(data: TextData, rows: np.ndarray) -> TextData:
    """Some records, with the classes of all."""
    return TextData([data.texts[i] for i in rows], [data.labels[i] for i in rows], data.classes, source=data.source)


# --- with labels --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What fine-tuning begins from: a model folder, or (`fresh`) its network with new random weights for each split."""

    folder: Path
    fresh: bool = False


def recipe(parameters: int, device: str) -> FinetuneConfig:
    """One recipe for every arm: that of `demo`, with rates that fit the size of the network."""
    rates = (3e-5, 1e-4) if parameters >= LARGE_NETWORK else FINETUNE.learning_rates
    return dataclasses.replace(FINETUNE, learning_rates=rates, max_length=None, device=device)


def final_recipe(rate: float | None, text_field: str, label_field: str, device: str) -> FinetuneConfig:
    """The trial's fine-tuning at one learning rate, for the user's own use of all labels."""
    config = dataclasses.replace(FINETUNE, learning_rates=(), learning_rate=rate or FINETUNE.learning_rates[0], max_length=None, device=device)
    return dataclasses.replace(config, text_field=text_field, label_field=label_field)


class FineTuning:
    """Fine-tunes one start on splits of the labels."""

    def __init__(self, start: Start, labels: Labels, device: str) -> None:
        self.start, self.labels, self.device = start, labels, resolve_device(device)
        self.folder = model_folder(start.folder)
        encoder = load_encoder(self.folder, fresh=start.fresh)
        self.config = recipe(sum(p.numel() for p in encoder.module.parameters()), device)

    def best_rate(self) -> float:
        """The better of two learning rates on a fifth of the first split's training half."""
        labels = np.asarray(self.labels.data.labels)
        part = self.labels.splits[0][0]
        fit, dev = stratified_splits(labels[part], 1, 0.2, 0)[0]
        return max(self.config.learning_rates, key=lambda rate: self.score(part[fit], part[dev], rate, 0))

    def seconds_a_point(self) -> float:
        """About what all splits take, from one pass over a training half: a trained network costs what a fresh one does."""
        started = time.perf_counter()
        whole, self.config = self.config, dataclasses.replace(self.config, epochs=1)
        self.value(0, self.config.learning_rates[0])
        self.config = whole
        return (time.perf_counter() - started) * whole.epochs * (SPLITS + 1)  # one more for the choice of the rate

    def value(self, split: int, rate: float) -> float:
        """Test accuracy of one split."""
        return self.score(*self.labels.splits[split], rate, split)

    def score(self, train_rows: np.ndarray, test_rows: np.ndarray, rate: float, seed: int) -> float:
        """Accuracy on the test rows after training on the others; the seed decides head, order, dropout and a fresh network's weights."""
        fit, test = subset(self.labels.data, train_rows), subset(self.labels.data, test_rows)
        task = TextClassification(self.config, fit, self.labels.data.classes)
        encoder = load_encoder(self.folder, fresh=self.start.fresh, seed=seed, dropout=self.config.dropout)
        rows = task.rows(fit, encoder, training=True)
        model, _, _ = train(task, encoder, rows, self.config, rate, seed, self.device)
        predictions = predict(model, task, task.rows(test, encoder, training=False), test, encoder, self.config, self.device)
        return task.score(predictions, test)[task.metric]


# --- without labels -----------------------------------------------------------------------------------------------------------------------------


def text_halves(store: Any, limit: int) -> tuple[list[str], list[str]]:
    """First and second halves, by words, of held-out documents of at least eight words."""
    firsts, seconds = [], []
    for number in store.documents("held_out")[:limit]:
        words = store.decode(store.document(int(number))).split()
        if len(words) >= 8:
            firsts.append(" ".join(words[: len(words) // 2]))
            seconds.append(" ".join(words[len(words) // 2 :]))
    return firsts, seconds


HALVES: dict[str, Callable[[Any, int], tuple[Sequence[Any], Sequence[Any]]]] = {"text": text_halves}
"""How a held-out record of a store is halved into two records that `Method.encode` takes, by `Method.data_group`."""


@torch.no_grad()
def without_labels(arm: Candidate, weights: Path | None, seed: int) -> tuple[list[float], float]:
    """(five values, RankMe) of an arm's network.

    A value is the share of held-out records whose second half is the nearest (cosine) to their first among those of a random half of all records. Of
    data that cannot be halved here it is RankMe of such a half, as a share of the dimensions.

    Args:
        weights: a model folder; None: the weights that the run begins with.
    """
    method, corpus = built(arm, weights)
    device = resolve_device(str(arm.settings.get("device", "auto")))
    method.to(device)
    if type(method).data_group not in HALVES:
        rows = features(method, corpus.held_out_batches(PROBE_BATCH, MAX_DOCUMENTS), device)
        ranks = [rankme(rows[part]) / min(len(part), rows.shape[1]) for part in random_halves(len(rows), seed)]
        return ranks, rankme(rows)
    firsts, seconds = HALVES[type(method).data_group](corpus.store, MAX_DOCUMENTS)
    if len(firsts) < FEWEST_LABELS:
        raise UsageError(
            f"Only {len(firsts)} held-out records can be halved: too few to compare networks on.", "Give --labels FILE, or more data."
        )
    one, two = (encoded(method, part, device) for part in (firsts, seconds))
    values = []
    for chosen in random_halves(len(firsts), seed):
        a, b = F.normalize(one[chosen], dim=1), F.normalize(two[chosen], dim=1)
        values.append(float(((a @ b.T).argmax(1) == torch.arange(len(chosen))).double().mean()))
    return values, rankme(torch.cat([one, two]))


def random_halves(n: int, seed: int) -> list[torch.Tensor]:
    """Row numbers of a random half, for each of five draws."""
    return [torch.from_numpy(np.random.default_rng([seed, split]).permutation(n)[: (n + 1) // 2]) for split in range(SPLITS)]


def encoded(method: Method, records: Sequence[Any], device: torch.device) -> torch.Tensor:
    """float32 [n, dim]: centred vectors of the records (what all have in common tells nothing apart)."""
    batches = [method.encode(records[start : start + PROBE_BATCH]) for start in range(0, len(records), PROBE_BATCH)]
    vectors = features(method, batches, device)
    return vectors - vectors.mean(0)
