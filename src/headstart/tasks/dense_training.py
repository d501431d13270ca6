"""One training of a dense model, and its predictions on images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from headstart.core.rng import mix_int
from headstart.engine.device import use_device
from headstart.engine.optim import clip_gradients, set_learning_rate
from headstart.engine.schedules import ScheduleConfig, multiplier
from headstart.engine.update import autocast, precision_of
from headstart.tasks.dense_config import DenseConfig
from headstart.tasks.dense_data import DenseData
from headstart.tasks.dense_network import DenseModel, Prediction, TwoView, layer_id
from headstart.tasks.dense_tasks import DenseTask, Totals
from headstart.tasks.epoch_loss import EpochLoss
from headstart.tasks.metrics import RECORD_GROUPS, Records, without_each
from headstart.tasks.rows import epoch_batches
from headstart.tasks.tiling import tiled

EVAL_PIXELS = 2**18
"""Pixels, of all images together, that are predicted at once."""
EVAL_BATCH = 64
NEAR_WIDTH = 0.9
"""Of the window's width: a disparity above it cannot be found in the other window."""


def parameter_groups(model: DenseModel, config: DenseConfig) -> list[dict[str, object]]:
    """Groups with `lr_scale` by depth; vectors, positions and the class token do not decay."""
    layers = model.encoder.config.num_layers
    of_decoder = model.network.network.decoder.config.num_layers if isinstance(model.network, TwoView) else 0
    groups: dict[tuple[float, float], dict[str, object]] = {}
    for name, value in model.named_parameters():
        depth = layers + of_decoder + 1 - layer_id(name.removeprefix("network."), layers, of_decoder)
        key = (config.layer_decay**depth, 0.0 if value.ndim == 1 or name.endswith(("pos_embed", "cls_token")) else config.weight_decay)
        group = groups.setdefault(key, {"params": [], "lr_scale": key[0], "weight_decay": key[1]})
        group["params"].append(value)  # type: ignore[attr-defined]
    return list(groups.values())


def examples(task: DenseTask, data: DenseData, rows: np.ndarray, seed: int, step: int, crop: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
    """(views [batch, channels, *crop] each, targets [batch, channels, *crop]); what is drawn depends on seed, step and the record's number only."""
    parts = [task.example(data[int(row)], np.random.default_rng([mix_int(seed), step, int(row)]), crop) for row in rows]
    return [torch.stack(list(views)) for views in zip(*(part.views for part in parts), strict=True)], torch.stack([part.target for part in parts])


def train_dense(
    model: DenseModel,
    task: DenseTask,
    data: DenseData,
    crop: tuple[int, int],
    config: DenseConfig,
    learning_rate: float,
    seed: int,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[float, int]:
    """Trains in place, for `config.steps` steps or int(ceil(records / batch) * epochs).

    Returns:
        the mean loss of a batch over the last epoch, and the number of steps.

    Raises:
        Diverged: a loss was not finite.
    """
    device = device or use_device(config.device)
    model.to(device).train()
    a_batch = min(config.batch, len(data))
    steps_an_epoch = math.ceil(len(data) / a_batch)
    total = config.steps or max(1, int(steps_an_epoch * config.epochs))
    schedule = ScheduleConfig("cosine", warmup_share=config.warmup_share)
    precision = precision_of(config, device)
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=learning_rate, betas=(0.9, config.beta2), fused=True)
    parameters = list(model.parameters())
    losses = EpochLoss(total, learning_rate, device, say)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> list[np.ndarray]:
        return epoch_batches(np.ones(len(data), np.int64), a_batch, seed, epoch)

    def batch(step: int) -> tuple[list[Tensor], Tensor]:
        return examples(task, data, order(step // steps_an_epoch)[step % steps_an_epoch], seed, step, crop)

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), ThreadPoolExecutor(1) as ahead:
        torch.manual_seed(mix_int(seed + 1) >> 1)  # drop path
        coming = ahead.submit(batch, 0)
        for step in range(total):
            views, truth = coming.result()
            if step + 1 < total:
                coming = ahead.submit(batch, step + 1)
            if step % steps_an_epoch == 0:
                losses.begin_epoch()
            truth = truth.to(device, non_blocking=True)
            set_learning_rate(optimizer, learning_rate * multiplier(step, total, schedule))
            optimizer.zero_grad(set_to_none=True)
            with autocast(device, precision):
                found = model.raw(*(view.to(device, non_blocking=True) for view in views))
            loss = task.loss(model, found, truth).mean
            loss.backward()
            clip_gradients(parameters, config.clip_norm)
            optimizer.step()
            losses.add(loss)
            losses.end_step(step)
    model.eval()
    return losses.mean(), total


@torch.no_grad()
def predictions(
    model: DenseModel,
    task: DenseTask,
    data: DenseData,
    crop: tuple[int, int],
    config: DenseConfig,
    device: torch.device,
    second_of: Callable[[int], int] = lambda number: number,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(number, prediction, truth) of every record, [1, channels, height, width] each on the device, of images of any size.

    Args:
        second_of: record -> the record whose second view it is shown with.
    """
    model.to(device).eval()
    precision = precision_of(config, device)

    def predict(*views: Tensor) -> Prediction:
        with autocast(device, precision):
            return model(*views)

    for group in _of_one_size(data):
        samples = [data[number] for number in group]
        views = [torch.from_numpy(np.stack([sample.views[0] for sample in samples])).to(device)]
        if task.views == 2:
            views.append(torch.from_numpy(np.stack([data[second_of(number)].views[1] for number in group])).to(device))
        found = tiled(predict, views, crop, config.overlap, task.sharpness, task.in_pixels)
        for row, (number, sample) in enumerate(zip(group, samples, strict=True)):
            yield number, found[row : row + 1], torch.from_numpy(sample.target)[None].float().to(device)


def _of_one_size(data: DenseData) -> Iterator[list[int]]:
    """Numbers of neighbouring records of one size, as many as are predicted at once."""
    group: list[int] = []
    shape: tuple[int, ...] = ()
    for number in range(len(data)):
        here = data[number].views[0].shape
        most = max(1, min(EVAL_BATCH, EVAL_PIXELS // (here[1] * here[2])))
        if group and (here != shape or len(group) == most):
            yield group
            group = []
        group.append(number)
        shape = here
    yield group


@dataclass
class Measured:
    """The metrics of a model on a set, and what is odd about its predictions.

    Attributes:
        stuck: they are all the same, in words; None: they are not.
        far: the largest predicted length in pixels nears the width of the window.
        records: what each image adds to the metric that decides.
    """

    metrics: dict[str, float]
    stuck: str | None
    far: bool
    records: Records | None


def measure(
    model: DenseModel,
    task: DenseTask,
    data: DenseData,
    crop: tuple[int, int],
    config: DenseConfig,
    device: torch.device,
    second_of: Callable[[int], int] = lambda number: number,
) -> Measured:
    """Scores a model on a set; nothing waits for the device until all is predicted."""
    totals: Totals = {}
    parts: list[Totals] = [{} for _ in range(min(len(data), RECORD_GROUPS))]  # the same, of the groups of images that `without_each` leaves out
    least, most = [], []
    for number, predicted, truth in predictions(model, task, data, crop, config, device, second_of):
        for name, value in task.add(predicted, truth).items():
            for sums in (totals, parts[number % len(parts)]):
                sums[name] = sums[name] + value if name in sums else value
        said = predicted.argmax(1).float() if task.classes else predicted
        least.append(said.min())
        most.append(said.max())
    low, high = float(torch.stack(least).min()), float(torch.stack(most).max())
    stuck = None
    if high - low <= 1e-6 * max(1.0, abs(high)):
        stuck = f"it says {task.classes[int(high)] if task.classes else f'{high:.4g}'} for every pixel"
    groups = {name: torch.stack([part[name] for part in parts]).cpu().double() for name in totals}

    def score(kept: np.ndarray) -> float:
        return task.metrics({name: values[torch.from_numpy(kept)].sum(0) for name, values in groups.items()})[task.metric]

    records = without_each(score, len(parts), len(data))
    return Measured(task.metrics(totals), stuck, task.in_pixels and max(high, -low) > NEAR_WIDTH * crop[1], records)
