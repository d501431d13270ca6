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
from headstart.tasks.label_curve import Bench, Draw, draw_labels, epochs
from headstart.tasks.rows import take
from headstart.tasks.splits import nested_subsets, stratified_splits
from headstart.tasks.training import train
from headstart.verbs._advise_candidates import Candidate, built
from headstart.verbs._advise_fit import TEST_SHARE
from headstart.verbs._verdict import PROBE_BATCH, features
from headstart.verbs.demo import FINETUNE

SPLITS = 5
PROBE_STEPS = 5
MAX_TRAIN = 200
"""Labelled records that one fine-tuning of the trial learns from; the final use takes all."""
MAX_TEST = 1000
FEWEST_LABELS = 20
FEW_LABELS = 100
LARGE_NETWORK = 20_000_000
"""Parameters from which on the learning rates of fine-tuning are those of BERT (Devlin et al. 2019) instead of those of small networks."""
MAX_DOCUMENTS = 1000
MAX_CURVE = 300  # labels of the largest point of the label curve
CURVE_TEST_SHARE = 0.25


@dataclass
class Labels:
    """The labelled records and how they are divided."""

    data: TextData
    splits: list[Draw]


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
        Draw(number, limited(fit, labels, MAX_TRAIN, seed), limited(test, labels, MAX_TEST, seed), {})
        for number, (fit, test) in enumerate(stratified_splits(labels, SPLITS, TEST_SHARE, seed))
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


# --- with labels --------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """What fine-tuning begins from: a model folder, or (`fresh`) its network with new random weights for each split."""

    folder: Path
    fresh: bool = False


def fine_tuning(start: Start, labels: Labels, device: str) -> Bench:
    """The bench that trains from one start on the labelled records; two learning rates are tried, which fit the size of the network."""
    folder = model_folder(start.folder)
    parameters = sum(p.numel() for p in load_encoder(folder, fresh=True).module.parameters())
    rates = (3e-5, 1e-4) if parameters >= LARGE_NETWORK else FINETUNE.learning_rates
    config = dataclasses.replace(FINETUNE, learning_rates=rates, max_length=None, device=device)
    return Bench(folder, labels.data, None, config, fresh=start.fresh)


def curve_draws(labels: Labels) -> list[Draw]:
    """Draws for a label curve: a quarter, half and all of three quarters of the records (at most 300), tested on the rest."""
    kinds = labels.data.labels
    n = min(len(draw_labels(kinds, [], 1, test_share=CURVE_TEST_SHARE)[0].train), MAX_CURVE)
    counts = sorted({max(len(labels.data.classes), n // part) for part in (4, 2, 1)})
    draws = draw_labels(kinds, counts, SPLITS, test_share=CURVE_TEST_SHARE)
    return [dataclasses.replace(draw, subsets={count: draw.subsets[count] for count in counts}) for draw in draws]


def final_recipe(rate: float | None, text_field: str, label_field: str, device: str) -> FinetuneConfig:
    """The trial's fine-tuning at one learning rate, for the user's own use of all labels."""
    config = dataclasses.replace(FINETUNE, learning_rates=(), learning_rate=rate or FINETUNE.learning_rates[0], max_length=None, device=device)
    return dataclasses.replace(config, text_field=text_field, label_field=label_field)


def seconds_a_point(bench: Bench, labels: Labels) -> float:
    """About what one arm's splits and the choice of its rate take, from one short training: a trained network costs what a fresh one does."""
    draw, config = labels.splits[0], bench.config
    assert draw.test is not None
    steps = epochs(config, len(draw.train)) * len(draw.train) / config.batch
    part = draw.train[: PROBE_STEPS * config.batch]
    one_pass = dataclasses.replace(config, epochs=1)
    for _ in range(2):  # the first one also wakes up threads and libraries
        encoder = load_encoder(bench.folder, fresh=True)
        started = time.perf_counter()
        train(bench.job, encoder, take(bench.train_rows, part), one_pass, config.learning_rates[0], 0, bench.device)
    a_step = (time.perf_counter() - started) / max(1, len(part) // config.batch)
    return (SPLITS + 2) * a_step * (steps + len(draw.test) / (3 * config.batch))  # scoring is the third of a step


# --- without labels -----------------------------------------------------------------------------------------------------------------------------


def text_halves(store: Any, limit: int) -> tuple[list[str], list[str]]:
    """First and second halves, by words, of held-out documents of at least four words."""
    firsts, seconds = [], []
    for number in store.documents("held_out")[:limit]:
        words = store.decode(store.document(int(number))).split()
        if len(words) >= 4:
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
