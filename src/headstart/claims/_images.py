"""What claims on images share: fine-tuning and frozen features as measurements, draws of labelled images, the pool to pre-train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.claims._claim import Model, Score, Use
from headstart.core.files import atomic_write
from headstart.data.arrays import HEADER_ERRORS
from headstart.engine.evaluation import evaluate
from headstart.engine.probes import fit_linear_probe, linear_probe
from headstart.tasks.image_classification import build, frozen_features, statistics, train_classifier
from headstart.tasks.image_config import ImageFinetuneConfig
from headstart.tasks.image_data import ImageData, image_metrics
from headstart.tasks.image_network import predict
from headstart.verbs.sample import load_run

EVALUATION_BATCH = 256


def few_labels(steps: int, **changes: Any) -> ImageFinetuneConfig:
    """Fine-tuning as the specifications of these claims say it (docs/methods): batches of 32, rate 1e-3, layer decay .75, no mixing."""
    return ImageFinetuneConfig(**{"learning_rate": 1e-3, "steps": steps, "batch": 32, "warmup_share": 0.08, "minimum_share": 0.0} | changes)


def fine_tuned_logits(use: Use, labelled: ImageData, scored: ImageData, config: ImageFinetuneConfig) -> np.ndarray:
    """float32 [n, classes]: what the model's export, fine-tuned on `labelled` (last step's weights), says of whole images."""
    device = torch.device(use.device)
    network = build(use.model.export, config, labelled, *statistics(use.model.export, labelled), use.seed)
    train_classifier(network, labelled, config, config.rates[0], use.seed, device)
    return predict(network, scored.images, config, device)


def probed_logits(features: Tensor, labels: np.ndarray, asked: Tensor) -> np.ndarray:
    """float64 [n, classes]: of logistic regression on features [m, dim] of `labels`."""
    weight, bias, mean, scale = fit_linear_probe(features, torch.from_numpy(labels))
    return ((asked.double() - mean) / scale @ weight + bias).numpy()


def mirror_accuracy(
    features: Callable[[np.ndarray], Tensor], pool: np.ndarray, scored: np.ndarray, count: int, draws: int, c: float, seed: int
) -> Score:
    """Whether an image is shown as it is or mirrored, told from features by logistic regression: what knows no left and right cannot.

    Args:
        features: images [n, channels, height, width] -> [n, dim].
        pool: of each draw `count` images train the regression, half of them mirrored.
        scored: each is asked both ways.
        c: inverse strength of the penalty, as in scikit-learn.
    """
    asked = features(np.concatenate([scored, scored[..., ::-1]]))
    truth = torch.arange(2).repeat_interleave(len(scored))
    accuracies = []
    for draw in range(draws):
        chosen = pool[np.random.default_rng([seed, draw]).choice(len(pool), count, replace=False)]
        mirrored = np.arange(count) >= count // 2
        chosen[mirrored] = chosen[mirrored][..., ::-1]
        accuracies.append(linear_probe(features(chosen), torch.from_numpy(mirrored).long(), asked, truth, l2=1 / c))
    return Score(float(np.mean(accuracies)))


def encoded(export: Path, pool: np.ndarray, images: np.ndarray) -> Tensor:
    """float32 [n, dim]: the features of a model's encoder; `pool` gives the statistics where the export has none."""
    mean, std = statistics(export, ImageData(pool, np.zeros(len(pool), np.int64)))
    return frozen_features(export, images, mean, std)


def flat_pixels(images: np.ndarray) -> Tensor:
    """float32 [n, values]."""
    return torch.from_numpy(images.reshape(len(images), -1).astype(np.float32))


def pixel_auc(labelled: ImageData, scored: ImageData) -> float:
    """AUC of logistic regression on raw pixels."""
    logits = probed_logits(flat_pixels(labelled.images), labelled.labels, flat_pixels(scored.images))
    return image_metrics(logits, scored.labels)["auc"]


def held_out_metrics(model: Model, images: np.ndarray, device: str) -> dict[str, float]:
    """The method's own held-out metrics on `images` ("held_out/NAME"), with fixed draws."""
    method, _, _ = load_run(model.folder)
    parts = np.array_split(np.ascontiguousarray(images), max(1, len(images) // EVALUATION_BATCH))
    batches = [{"images": torch.from_numpy(part)} for part in parts]
    return evaluate(method.to(device), batches, "train", "fp32", torch.device(device), seed=0, total_steps=1)


def draw_images(data: ImageData, per_class: int, seed: int) -> ImageData:
    """`per_class` images of each class, in the order of the data."""
    random = np.random.default_rng([seed, per_class])
    chosen = [random.choice(np.flatnonzero(data.labels == label), per_class, replace=False) for label in range(len(data.classes))]
    return take_images(data, np.sort(np.concatenate(chosen)))


def take_images(data: ImageData, index: np.ndarray) -> ImageData:
    """Some of the images."""
    return ImageData(data.images[index], data.labels[index], data.classes, data.source)


def write_pool(path: Path, images: np.ndarray) -> Path:
    """A .npz of images without labels; a file that holds just these is left as it is, so that a store made from it stays the same."""
    try:
        with np.load(path, allow_pickle=False) as found:
            if np.array_equal(found["images"], images):
                return path
    except (OSError, KeyError, *HEADER_ERRORS):
        pass
    with atomic_write(path) as file:
        np.savez(file, images=images)
    return path
