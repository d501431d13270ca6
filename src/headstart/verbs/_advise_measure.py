"""How good an arm of `advise` is: on the user's labels by fine-tuning, or without labels by what held-out documents say of it.

With labels every arm is fine-tuned as the final use is, on the same halves of the labelled records, its learning rate the better of two on a part of
the first training half (the same effort for all, never on the test half; one rate for all where time is short). A linear probe is cheaper and was
measured too: docs/guides/which-method.md says how well each ranks arms.

What measuring costs is measured first, and on how many threads it is fastest: on a busy machine two threads that wait for each other took 67 s for
what one did in 5.5 s.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from headstart.core.errors import BadInput, UsageError
from headstart.engine.device import use_device
from headstart.engine.method import Method
from headstart.engine.probes import rankme
from headstart.engine.text_method import model_folder
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TextData, read_classification
from headstart.tasks.label_curve import Bench, Draw, epochs
from headstart.tasks.rows import take
from headstart.tasks.splits import nested_subsets, stratified_splits
from headstart.tasks.training import train
from headstart.verbs._advise_candidates import Candidate, built
from headstart.verbs._advise_fit import TEST_SHARE
from headstart.verbs._advise_trial import Prices
from headstart.verbs._verdict import PROBE_BATCH, features
from headstart.verbs.demo import FINETUNE

SPLITS = 5
PROBE_STEPS = 6
PROBE_TIMES = 2  # the fastest counts: other work on the machine only ever adds
PROBE_DOCUMENTS = (32, 160)
WORTH_THREADS = 0.9  # fewer threads are taken where they need less than this share of the time
MAX_TRAIN = 200
"""Labelled records that one fine-tuning of the trial learns from; the final use takes all."""
MAX_TEST = 1000
FEWEST_LABELS = 20
FEW_LABELS = 100
CURVE_PARTS = {1: (4,), 2: (4, 2)}
"""Smaller numbers of labels of the label curve -> which parts of a half's training records they are."""
LARGE_NETWORK = 20_000_000
"""Parameters from which on the learning rates of fine-tuning are those of BERT (Devlin et al. 2019) instead of those of small networks."""
MAX_DOCUMENTS = 1000


@dataclass
class Labels:
    """The labelled records and how they are divided."""

    data: TextData
    splits: list[Draw]


def read_labels(path: Path, text_field: str, label_field: str, seed: int, splits: int = SPLITS) -> Labels:
    """The labelled file as stratified halves; of a large file at most 200 records to train and 1,000 to test on.

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
    draws = [
        Draw(number, limited(fit, labels, MAX_TRAIN, seed), limited(test, labels, MAX_TEST, seed), {})
        for number, (fit, test) in enumerate(stratified_splits(labels, splits, TEST_SHARE, seed))
    ]
    return Labels(data, draws)


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


def fine_tuning(start: Start, labels: Labels, device: str, rates: int = 2) -> Bench:
    """The bench that trains from one start on the labelled records.

    Args:
        rates: learning rates that `Bench.best_rate` tries, at most two; they fit the size of the network.
    """
    folder = model_folder(start.folder)
    parameters = sum(p.numel() for p in load_encoder(folder, fresh=True).module.parameters())
    fitting = (3e-5, 1e-4) if parameters >= LARGE_NETWORK else FINETUNE.learning_rates
    config = dataclasses.replace(FINETUNE, learning_rates=fitting[:rates], max_length=None, device=device)
    return Bench(folder, labels.data, None, config, fresh=start.fresh)


def curve_draws(labels: Labels, smaller: int, splits: int) -> list[Draw]:
    """The first `splits` halves with nested subsets of their training records, for a label curve: `smaller` numbers of labels below all of them. The
    trial has measured the whole halves already."""
    kinds = np.asarray(labels.data.labels)
    counts = sorted({max(len(labels.data.classes), len(labels.splits[0].train) // part) for part in CURVE_PARTS[smaller]})
    found = []
    for draw in labels.splits[:splits]:
        chosen = nested_subsets(kinds[draw.train], counts, draw.seed)
        found.append(dataclasses.replace(draw, subsets={count: draw.train[index] for count, index in chosen.items()}))
    return found


def final_recipe(rate: float | None, text_field: str, label_field: str, device: str) -> FinetuneConfig:
    """The trial's fine-tuning at one learning rate, for the user's own use of all labels."""
    config = dataclasses.replace(FINETUNE, learning_rates=(), learning_rate=rate or FINETUNE.learning_rates[0], max_length=None, device=device)
    return dataclasses.replace(config, text_field=text_field, label_field=label_field)


def prices_on_labels(start: Start, labels: Labels, device: str) -> tuple[Prices, int]:
    """(what fine-tuning costs, the number of threads on which it is fastest), from the first half: a trained network costs what a fresh one does."""
    began = time.perf_counter()
    bench = fine_tuning(start, labels, device)
    a_point = time.perf_counter() - began
    draw = labels.splits[0]
    assert draw.test is not None
    a_score, threads = time_a_score(bench, draw.train, len(draw.test))
    return Prices(True, a_score, a_point), threads


def time_a_score(bench: Bench, chosen: np.ndarray, tested: int) -> tuple[float, int]:
    """(about the seconds of `Bench.score` on these records with so many test records, the number of threads that they hold for), from short
    trainings."""
    config = bench.config
    part = chosen[: PROBE_STEPS * config.batch]
    short = dataclasses.replace(config, epochs=PROBE_STEPS / max(1, len(part) // config.batch))

    def a_step() -> float:
        encoder = load_encoder(bench.folder, fresh=True)
        started = time.perf_counter()
        steps = train(bench.job, encoder, take(bench.train_rows, part), short, config.learning_rate, 0, bench.device)[2]
        return (time.perf_counter() - started) / steps

    a_step()  # wakes up threads and libraries
    seconds, threads = fastest_threads(a_step, bench.device)
    steps = epochs(config, len(chosen)) * len(chosen) / config.batch
    return seconds * (steps + tested / (3 * config.batch)), threads  # scoring is the third of a step


def fastest_threads(seconds: Callable[[], float], device: torch.device) -> tuple[float, int]:
    """(seconds, threads) of what is fastest: all of torch's threads, or one. Where others work too, threads of small steps mostly wait."""
    threads = torch.get_num_threads()
    many = min(seconds() for _ in range(PROBE_TIMES))
    if threads == 1 or device.type != "cpu":
        return many, threads
    with on_threads(1):
        one = min(seconds() for _ in range(PROBE_TIMES))
    return (one, 1) if one < WORTH_THREADS * many else (many, threads)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """torch computes on so many threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- without labels -----------------------------------------------------------------------------------------------------------------------------


def text_halves(store: Any, limit: int) -> tuple[list[str], list[str]]:
    """First and second halves, by words, of the first `limit` held-out documents of at least four words."""
    firsts: list[str] = []
    seconds: list[str] = []
    for number in store.documents("held_out"):
        if len(firsts) == limit:
            break
        words = store.decode(store.document(int(number))).split()
        if len(words) >= 4:
            firsts.append(" ".join(words[: len(words) // 2]))
            seconds.append(" ".join(words[len(words) // 2 :]))
    return firsts, seconds


HALVES: dict[str, Callable[[Any, int], tuple[Sequence[Any], Sequence[Any]]]] = {"text": text_halves}
"""How a held-out record of a store is halved into two records that `Method.encode` takes, by `Method.data_group`."""


@torch.no_grad()
def without_labels(
    arm: Candidate, weights: Path | None, seed: int, documents: int = MAX_DOCUMENTS, splits: int = SPLITS
) -> tuple[list[float], float]:
    """(one value a split, RankMe) of an arm's network. Every record is embedded once, for all splits.

    A value is the share of held-out records whose second half is the nearest (cosine) to their first among those of a random half of all records. Of
    data that cannot be halved here it is RankMe of such a half, as a share of the dimensions.

    Args:
        weights: a model folder; None: the weights that the run begins with.
        documents: held-out records, at most.
    """
    method, corpus = built(arm, weights)
    device = use_device(str(arm.settings.get("device", "auto")))
    method.to(device)
    if type(method).data_group not in HALVES:
        rows = features(method, corpus.held_out_batches(PROBE_BATCH, documents), device)
        ranks = [rankme(rows[part]) / min(len(part), rows.shape[1]) for part in random_halves(len(rows), seed, splits)]
        return ranks, rankme(rows)
    firsts, seconds = HALVES[type(method).data_group](corpus.store, documents)
    if len(firsts) < FEWEST_LABELS:
        raise UsageError(
            f"Only {len(firsts)} held-out records can be halved: too few to compare networks on.", "Give --labels FILE, or more data."
        )
    one, two = (encoded(method, part, device) for part in (firsts, seconds))
    values = []
    for chosen in random_halves(len(firsts), seed, splits):
        a, b = F.normalize(one[chosen], dim=1), F.normalize(two[chosen], dim=1)
        values.append(float(((a @ b.T).argmax(1) == torch.arange(len(chosen))).double().mean()))
    return values, rankme(torch.cat([one, two]))


def prices_on_documents(arm: Candidate, seed: int) -> tuple[Prices, int]:
    """(what a measurement without labels costs, the number of threads on which it is fastest), from two small ones."""

    def seconds(documents: int) -> float:
        started = time.perf_counter()
        without_labels(arm, None, seed, documents, 1)
        return time.perf_counter() - started

    few, more = PROBE_DOCUMENTS
    first, threads = fastest_threads(lambda: seconds(few), use_device(str(arm.settings.get("device", "auto"))))
    with on_threads(threads):
        a_score = max(0.0, seconds(more) - first) / (more - few)
    return Prices(False, a_score, first), threads


def random_halves(n: int, seed: int, splits: int) -> list[torch.Tensor]:
    """Row numbers of a random half, for each of `splits` draws."""
    return [torch.from_numpy(np.random.default_rng([seed, split]).permutation(n)[: (n + 1) // 2]) for split in range(splits)]


def encoded(method: Method, records: Sequence[Any], device: torch.device) -> torch.Tensor:
    """float32 [n, dim]: centred vectors of the records (what all have in common tells nothing apart)."""
    batches = [method.encode(records[start : start + PROBE_BATCH]) for start in range(0, len(records), PROBE_BATCH)]
    vectors = features(method, batches, device)
    return vectors - vectors.mean(0)
