"""Predictions to look at: the first test images, each beside the truth and what the model says (the contract: `headstart.report.pictures`)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.engine.pictures import Drawing, write_drawing
from headstart.tasks.dense_augment import hue
from headstart.tasks.dense_config import DenseConfig
from headstart.tasks.dense_data import DenseData
from headstart.tasks.dense_network import DenseModel
from headstart.tasks.dense_tasks import DenseTask
from headstart.tasks.dense_training import predictions

ROWS = 6
SIDE = 256
"""Pixels of the longer side: larger images are shown smaller."""
GOLDEN = 0.61803398875
"""Steps of the circle of colours: neighbouring numbers of classes look different."""


def draw_predictions(
    out: Path, model: DenseModel, task: DenseTask, data: DenseData, crop: tuple[int, int], config: DenseConfig, device: torch.device
) -> None:
    """Writes `out`/pictures/step-00000000-predictions.png: a row an image, of those that have the size of the first."""
    first = data[0].target.shape
    chosen = [number for number in range(len(data)) if data[number].target.shape == first][:ROWS]
    few = DenseData([data[number] for number in chosen])
    shown = predictions(model, task, few, crop, config, device)
    rows = [np.concatenate([*map(_pixels, few[n].views), *_maps(task, said.cpu(), truth.cpu())], axis=1) for n, said, truth in shown]
    views = "the image" if task.views == 1 else "both views"
    caption = f"From the left: {views}, the truth, what the model says. Black: no truth."
    write_drawing(out, 0, Drawing("predictions", caption, np.stack(rows)))


def _maps(task: DenseTask, said: Tensor, truth: Tensor) -> list[np.ndarray]:
    """The truth and the prediction as colours, on one scale: uint8 [height, width, 3]."""
    if task.classes:
        return [_as_bytes(_of_classes(classes)) for classes in (truth[0, 0].long(), said[0].argmax(0))]
    if len(said[0]) == 2:
        known = torch.where(torch.isfinite(truth), truth, 0.0)
        longest = float(known.square().sum(1).sqrt().max()) or 1.0
        return [_as_bytes(_of_flow(flow[0], longest)) for flow in (truth, said)]
    known = truth[0, 0][torch.isfinite(truth[0, 0])]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return [_as_bytes(_of_numbers(values[0, 0], low, high)) for values in (truth, said)]


def _of_classes(classes: Tensor) -> Tensor:
    """[3, height, width]; class 0 dark, pixels without one black."""
    red = torch.stack([torch.ones(classes.shape), torch.zeros(classes.shape), torch.zeros(classes.shape)])
    colours = torch.stack([hue(red, (int(number) * GOLDEN) % 1.0) for number in classes.unique().clamp(min=0)])
    places = torch.searchsorted(classes.unique().clamp(min=0), classes.clamp(min=0))
    found = colours.gather(0, places[None, None].expand(1, 3, -1, -1))[0]
    return torch.where(classes > 0, found, torch.where(classes == 0, 0.25, 0.0))


def _of_flow(flow: Tensor, longest: float) -> Tensor:
    """[3, height, width]: direction as colour, length as its brightness."""
    x, y = (torch.where(torch.isfinite(part), part, 0.0) for part in flow)
    length = ((x.square() + y.square()).sqrt() / longest).clamp(0, 1)
    turn = (torch.atan2(y, x) / (2 * math.pi)) % 1.0
    at = (torch.tensor([5.0, 3.0, 1.0])[:, None, None] + 6 * turn) % 6  # red, green, blue of a full colour
    return length * (1 - torch.minimum(at, 4 - at).clamp(0, 1))


def _of_numbers(values: Tensor, low: float, high: float) -> Tensor:
    """[3, height, width]: from dark blue over green to yellow; what has no number is black."""
    share = ((values - low) / max(high - low, 1e-12)).clamp(0, 1)
    stops = torch.tensor([[0.27, 0.00, 0.33], [0.13, 0.57, 0.55], [0.99, 0.91, 0.15]])  # of viridis
    first, second = stops[0] + (stops[1] - stops[0]) * (2 * share[..., None]), stops[1] + (stops[2] - stops[1]) * (2 * share[..., None] - 1)
    return torch.where(torch.isfinite(values)[..., None], torch.where(share[..., None] < 0.5, first, second), 0.0).permute(2, 0, 1)


def _pixels(view: np.ndarray) -> np.ndarray:
    """An image as uint8 [height, width, 3]; other types than 8 bits from their least to their largest value."""
    shown = torch.from_numpy(view[[0, 1, 2] if len(view) >= 3 else [0, 0, 0]].astype(np.float32))
    if view.dtype != np.uint8:
        low, high = shown.min(), shown.max()
        return _as_bytes((shown - low) / (high - low).clamp(min=1e-12))
    return _as_bytes(shown / 255)


def _as_bytes(colours: Tensor) -> np.ndarray:
    """[3, height, width] of 0 to 1 -> uint8 [height, width, 3], at most `SIDE` pixels a side."""
    factor = SIDE / max(colours.shape[1:])
    if factor < 1:
        colours = F.interpolate(torch.nan_to_num(colours)[None], scale_factor=factor, mode="nearest-exact")[0]
    return (torch.nan_to_num(colours) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
