"""What claims on text share: fine-tuning as one measurement, draws of labelled records, and simple methods to see the arms beside."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Score, Use
from headstart.core.files import atomic_write
from headstart.engine.text_method import model_folder
from headstart.interop.transformers_io import load_encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TaggedData, TextData
from headstart.tasks.kinds import TASKS
from headstart.tasks.metrics import span_counts, to_bioes
from headstart.tasks.training import predict, train


def fine_tune(
    task: str, use: Use, labelled: TextData | TaggedData, scored: TextData | TaggedData, config: FinetuneConfig, metric: str = "accuracy"
) -> Score:
    """Fine-tunes the model's export on `labelled` with the learning rate `use.setting`, last epoch's weights, and scores it.

    Args:
        task: classification or tagging.
        scored: the dev or test records.
        metric: accuracy, or f1 of tagged entities.
    """
    job, device = TASKS[task](config, labelled), torch.device(use.device)
    encoder = load_encoder(model_folder(use.model.export), dropout=config.dropout)
    network, _, _ = train(job, encoder, job.rows(labelled, encoder, training=True), config, use.setting, use.seed, device)
    predictions = predict(network, job, job.rows(scored, encoder, training=False), scored, encoder, config, device)
    items = right_of_records(predictions, scored) if metric == "accuracy" else entities_of_records(predictions, scored)
    return Score(job.score(predictions, scored)[metric], items, job.stuck(predictions))


def right_of_records(predictions: Sequence[object], scored: TextData | TaggedData) -> np.ndarray:
    """float [n, 2]: of each record the labels that are right, and their number."""
    if isinstance(scored, TextData):
        truth = [scored.classes[int(label)] for label in scored.labels]
        return np.array([(mine == label, 1) for mine, label in zip(predictions, truth, strict=True)], dtype=np.float64)
    pairs = zip(predictions, scored.tags, strict=True)
    return np.array([(sum(a == b for a, b in zip(mine, tags, strict=True)), len(tags)) for mine, tags in pairs], dtype=np.float64)  # type: ignore[call-overload]


def entities_of_records(predictions: Sequence[Any], scored: TextData | TaggedData) -> np.ndarray:
    """float [n, 2]: of each sentence twice the entities that are right, and those found and those true together: F1 is the ratio of their sums."""
    assert isinstance(scored, TaggedData)
    right, found, true = span_counts(predictions, [to_bioes(tags) for tags in scored.tags])[:, :3].T
    return np.stack([2 * right, found + true], 1).astype(np.float64)


def draw_balanced(data: TextData, count: int, seed: int) -> TextData:
    """`count` records, as many of each class, in the order of the file."""
    random = np.random.default_rng([seed, count])
    labels = np.asarray(data.labels)
    per_class = count // len(data.classes)
    chosen = np.sort(np.concatenate([random.choice(np.flatnonzero(labels == i), per_class, replace=False) for i in range(len(data.classes))]))
    return TextData([data.texts[i] for i in chosen], [int(labels[i]) for i in chosen], data.classes, source=data.source)


def draw_sentences(data: TaggedData, count: int, seed: int) -> TaggedData:
    """`count` tagged sentences, in the order of the file."""
    chosen = np.sort(np.random.default_rng([seed, count]).choice(len(data), count, replace=False))
    return TaggedData([data.words[i] for i in chosen], [data.tags[i] for i in chosen], source=data.source)


def naive_bayes_accuracy(labelled: TextData, scored: TextData) -> float:
    """Of multinomial naive Bayes over words, add-one smoothed. What a pre-trained network must beat to be worth its cost."""
    counts = [Counter[str]() for _ in labelled.classes]
    for text, label in zip(labelled.texts, labelled.labels, strict=True):
        counts[int(label)].update(text.split())
    vocabulary = set().union(*counts)
    prior = np.log(np.bincount(np.asarray(labelled.labels, dtype=np.int64), minlength=len(counts)) / len(labelled))
    size = [count.total() + len(vocabulary) for count in counts]

    def guess(text: str) -> int:
        words = [word for word in text.split() if word in vocabulary]
        return int(np.argmax([prior[i] + sum(np.log((counts[i][word] + 1) / size[i]) for word in words) for i in range(len(counts))]))

    return float(np.mean([guess(text) == label for text, label in zip(scored.texts, scored.labels, strict=True)]))


def frequent_tag_accuracy(labelled: TaggedData, scored: TaggedData) -> float:
    """Of giving each word its most frequent tag; words that were never seen get the most frequent tag of all."""
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for words, of_words in zip(labelled.words, labelled.tags, strict=True):
        for word, tag in zip(words, of_words, strict=True):
            tags[word][tag] += 1
    unseen = sum(tags.values(), Counter[str]()).most_common(1)[0][0]
    best = {word: counted.most_common(1)[0][0] for word, counted in tags.items()}
    pairs = [pair for sentence in zip(scored.words, scored.tags, strict=True) for pair in zip(*sentence, strict=True)]
    return float(np.mean([best.get(word, unseen) == tag for word, tag in pairs]))


def write_documents(path: Path, texts: Iterable[str]) -> Path:
    """A .jsonl of documents; a file that holds just these is left as it is, so that a store made from it stays the same."""
    data = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    if not path.exists() or path.read_bytes() != data:
        with atomic_write(path) as file:
            file.write(data)
    return path
