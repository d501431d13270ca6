"""Labelled images, and the metrics of predictions on them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from headstart.core.errors import BadInput
from headstart.data.image.config import ImageConfig
from headstart.data.image.decode import form_of
from headstart.data.image.form import Content, Form, Unusable
from headstart.data.image.head import Tile, decode_records, read_labelled
from headstart.data.image.prepare import in_class_order
from headstart.data.image.reading import USUAL, Reading
from headstart.objectives.ranking import auc
from headstart.tasks.metrics import Records, without_each


@dataclass
class ImageData:
    """Labelled images in memory.

    Attributes:
        images: [n, channels, height, width], uint8, uint16 or float32.
        labels: int64 [n], index into `classes`; or bool [n, classes], where an image may have several.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: list[str] = field(default_factory=list)
    source: str = ""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels) or not len(self.images):
            what = f"{len(self.images)} images of shape {self.images.shape[1:]} with {len(self.labels)} labels"
            raise BadInput(what, "Give [n, channels, height, width] and a label for each.", file=self.source or None)
        if not self.classes:
            count = self.labels.shape[1] if self.several else int(self.labels.max()) + 1
            self.classes = [str(number) for number in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def several(self) -> bool:
        """An image may have several classes."""
        return self.labels.ndim == 2

    def contents(self) -> list[bytes]:
        """A hash of each image's pixels: what tells whether a test image was trained on."""
        return [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in self.images]


def read_images(
    source: str | Path,
    channels: int,
    size: int,
    classes: Sequence[str] | None = None,
    config: ImageConfig | None = None,
    separator: str | None = None,
    reading: Reading = USUAL,
    label_field: str = "label",
) -> ImageData:
    """Images with a class each (a folder with a folder for each class, a list, a .parquet, .npz or .tar file), in the form that a network takes.

    Args:
        channels, size: of the network.
        classes: those of the training images; an image of another one is refused.
        separator: stands between the classes of an image that may have several; None: each has one.
        reading: how the files are read; with `config` that decides.
        label_field: of tables, the field with the class; with `config` that decides.

    Raises:
        BadInput: an image cannot be used, or its class is not known.
    """
    found = read_labelled(source, config or replace(reading.config(channels, size), label_field=label_field))
    pixels = read_pixels(found.images, channels, size, config, str(source), reading)
    parts = [[name] if separator is None else _parted(name, separator) for name in found.classes]
    there = in_class_order({name for of_label in parts for name in of_label})
    if len(there) < 2:
        raise BadInput(f"has {len(there)} class ({', '.join(there)}).", "A measurement needs at least two.", file=str(source))
    names = list(classes) if classes is not None else there
    if strange := sorted(set(there) - set(names)):
        mend = "Correct it, or add examples of it to the training images."
        raise BadInput(f"has the class {strange[0]!r}, which the training images have not", mend, file=str(source))
    if separator is None:
        place = {name: number for number, name in enumerate(names)}
        labels = np.array([place[name] for name in found.classes])
    else:
        labels = np.array([[name in of_label for name in names] for of_label in parts])  # [labels, classes]
    return ImageData(pixels, labels[np.array(found.labels)], names, str(source))


def _parted(label: str, separator: str) -> list[str]:
    """The classes that a label names, each once."""
    return list(dict.fromkeys(name for part in label.split(separator) if (name := part.strip())))


def read_pixels(
    images: Sequence[Path | str | Tile | Content],
    channels: int,
    size: int,
    config: ImageConfig | None = None,
    source: str = "the images given",
    reading: Reading = USUAL,
) -> np.ndarray:
    """[n, channels, size, size]: images in the form that a network takes, which the first of them decides further (its type).

    Args:
        images: files, their bytes, or arrays as in .npy files.
        source: what messages call the file that holds them.
        reading: how the files are read; with `config` that decides.

    Raises:
        BadInput: one of them cannot be used.
    """

    def form(first: Content) -> Form:
        if config is None:
            return reading.form(first, channels, size)
        found = form_of(first, config)
        if found.channels != channels:
            raise Unusable(f"has {found.channels} channels, the network takes {channels}", "Give images of that kind.")
        return found

    return decode_records(images, form, source)


def image_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Metrics of predictions; chance is 1 / classes, .5 for the AUC, the share of positives for the mean average precision.

    Args:
        logits: float [n, classes].
        labels: int64 [n], or bool [n, classes] where an image may have several.

    Returns:
        accuracy, balanced_accuracy (mean over the classes that occur), auc (mean of one class against the rest); or map and auc.
    """
    if labels.ndim == 2:
        scored = [k for k in range(labels.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
        precision = [average_precision(logits[:, k], labels[:, k]) for k in scored]
        areas = [_auc(logits[:, k], labels[:, k]) for k in scored]
        return {"map": float(np.mean(precision)) if scored else 0.0, "auc": float(np.mean(areas)) if scored else 0.5}
    right = logits.argmax(1) == labels
    occurring = np.unique(labels)
    balanced = float(np.mean([right[labels == k].mean() for k in occurring]))
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    areas = [_auc(log_p[:, k], labels == k) for k in occurring if len(occurring) > 1]
    return {"accuracy": float(right.mean()), "balanced_accuracy": balanced, "auc": float(np.mean(areas)) if areas else 0.5}


def image_records(logits: np.ndarray, labels: np.ndarray, metric: str) -> Records | None:
    """What each image adds to one of the `image_metrics`, of the same arguments; None for a metric that is none of them."""
    if metric == "accuracy":
        return Records.of_shares(logits.argmax(1) == labels)
    if metric not in image_metrics(logits, labels):
        return None
    return without_each(lambda kept: image_metrics(logits[kept], labels[kept])[metric], len(labels))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean, over the positives, of the precision among all that score at least as high (scikit-learn's definition; ties come in together)."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], positive[order].astype(np.float64)
    last_of_tie = np.append(np.diff(ranked) != 0, True)
    found, seen = hits.cumsum()[last_of_tie], np.arange(1, len(hits) + 1)[last_of_tie]
    return float((np.diff(found, prepend=0.0) * found / seen).sum() / hits.sum())


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    return float(auc(torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(np.ascontiguousarray(positive))))
