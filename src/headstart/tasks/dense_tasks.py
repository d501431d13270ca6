"""The dense tasks: what the network gives, how it is scored, how a record becomes a training example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from headstart.objectives.dense_losses import (
    confusion,
    regression_loss,
    regression_metrics,
    regression_sums,
    segmentation_loss,
    segmentation_metrics,
)
from headstart.objectives.matching import Scored, depth_delta1, disparity_metrics, flow_metrics, matching_loss
from headstart.tasks import dense_augment as augment
from headstart.tasks.dense_augment import Part
from headstart.tasks.dense_config import (
    DenseConfig,
    DenseRegressionConfig,
    DepthConfig,
    FlowConfig,
    OneViewConfig,
    SegmentationConfig,
    StereoConfig,
)
from headstart.tasks.dense_data import DenseData, Sample, classes_of
from headstart.tasks.dense_network import DenseModel, Prediction

Totals = dict[str, Tensor]
"""What one image adds to a metric; sums over images."""
LOWER_IS_BETTER = ("rmse", "mae", "absrel", "avgerr", "EPE", "bad@0.5", "bad@1", "bad@2", "bad@3", "bad@5")


class DenseTask(ABC):
    """One task, fixed by its settings and what its training data has.

    Attributes:
        channels: numbers that a prediction has for each pixel, without the confidence.
        shift, scale: float32 [channels], see `DenseModel`.
        start: float32 [channels], what a linear head gives before training; None: 0.
        classes: names, of segmentation.
    """

    name: ClassVar[str]
    views: ClassVar[int] = 1
    in_pixels: ClassVar[bool] = False  # predictions are lengths in pixels
    sharpness: ClassVar[tuple[float, float]] = (15.0, 3.0)  # of the average over windows by confidence
    with_confidence = False

    def __init__(self, config: Any, data: DenseData) -> None:
        self.config = config
        self.classes: list[str] = []
        self.channels = len(data[0].target)
        self.shift, self.scale = torch.zeros(self.channels), torch.ones(self.channels)
        self.start: Tensor | None = None

    @property
    def metric(self) -> str:
        """What arms are compared by."""
        return self.config.metric

    @property
    def higher_is_better(self) -> bool:
        return self.metric not in LOWER_IS_BETTER

    @abstractmethod
    def example(self, sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
        """A training example of a record."""

    @abstractmethod
    def loss(self, model: DenseModel, found: Prediction, truth: Tensor) -> Scored:
        """The mean over the scored pixels of what `DenseModel.raw` gave, and their number; truth [batch, channels, height, width]."""

    @abstractmethod
    def add(self, predicted: Tensor, truth: Tensor) -> Totals:
        """What one image [1, channels, height, width] adds to the metrics."""

    @abstractmethod
    def metrics(self, totals: Totals) -> dict[str, float]:
        """Of the sums over images."""


class Segmentation(DenseTask):
    """A class of every pixel."""

    name = "segmentation"
    config: SegmentationConfig

    def __init__(self, config: SegmentationConfig, data: DenseData) -> None:
        super().__init__(config, data)
        self.classes = classes_of(data, config)
        self.channels = len(self.classes)
        self.shift, self.scale = torch.zeros(self.channels), torch.ones(self.channels)

    def example(self, sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
        return _one_view(self.config, sample, random, crop)

    def loss(self, model: DenseModel, found: Prediction, truth: Tensor) -> Scored:
        return segmentation_loss(found.values, truth[:, 0].long())

    def add(self, predicted: Tensor, truth: Tensor) -> Totals:
        return {"confusion": confusion(predicted.argmax(1), truth[:, 0].long(), self.channels)}

    def metrics(self, totals: Totals) -> dict[str, float]:
        return segmentation_metrics(totals["confusion"])


class DenseRegression(DenseTask):
    """Numbers of every pixel, standardised for training."""

    name = "dense-regression"
    config: DenseRegressionConfig

    def __init__(self, config: DenseRegressionConfig | DepthConfig, data: DenseData) -> None:
        super().__init__(config, data)
        values = torch.from_numpy(data.target_values())
        self.shift, deviation = values.mean(1), values.std(1, correction=0)
        self.scale = torch.where(deviation > 0, deviation, 1.0)

    def example(self, sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
        return _one_view(self.config, sample, random, crop)

    def loss(self, model: DenseModel, found: Prediction, truth: Tensor) -> Scored:
        return regression_loss(found.values, model.standardised(truth), self.config.loss)

    def add(self, predicted: Tensor, truth: Tensor) -> Totals:
        return {"sums": regression_sums(predicted, truth)}

    def metrics(self, totals: Totals) -> dict[str, float]:
        return regression_metrics(totals["sums"])


class Depth(DenseRegression):
    """Depth from one image."""

    name = "depth"

    def add(self, predicted: Tensor, truth: Tensor) -> Totals:
        truth = torch.where(truth > 0, truth, torch.nan)
        known = torch.isfinite(truth)
        relative = torch.where(known, (predicted - truth).abs() / truth, 0.0).sum() / known.sum().clamp(min=1)
        found = {"images": known.any().float(), "delta1": depth_delta1(predicted, truth), "absrel": relative}
        return found | {"sums": regression_sums(predicted, truth)}

    def metrics(self, totals: Totals) -> dict[str, float]:
        images = float(totals["images"])
        return {
            "delta1": float(totals["delta1"]) / images,
            "rmse": regression_metrics(totals["sums"])["rmse"],
            "absrel": float(totals["absrel"]) / images,
        }


class Matching(DenseTask):
    """Stereo and flow: lengths in pixels from two views; metrics of each image, then averaged."""

    views = 2
    in_pixels = True
    axes: ClassVar[tuple[int, ...]]
    config: StereoConfig | FlowConfig

    def __init__(self, config: StereoConfig | FlowConfig, data: DenseData) -> None:
        super().__init__(config, data)
        self.with_confidence = config.loss != "l1"
        self.start = torch.from_numpy(np.median(data.target_values(), axis=1))

    def loss(self, model: DenseModel, found: Prediction, truth: Tensor) -> Scored:
        return matching_loss(found.values, truth, found.confidence, self.config.loss)

    def add(self, predicted: Tensor, truth: Tensor) -> Totals:
        known = torch.isfinite(truth).all(1).any().float()
        of_image = disparity_metrics(predicted, truth) if len(self.axes) == 1 else flow_metrics(predicted, truth)
        return {"images": known} | {name: value * known for name, value in of_image.items()}

    def metrics(self, totals: Totals) -> dict[str, float]:
        images = float(totals["images"])
        return {name: float(value) / images for name, value in totals.items() if name != "images"}


class Stereo(Matching):
    """The disparity of the left view."""

    name = "stereo"
    axes = (0,)

    def example(self, sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
        return augment.stereo(sample, random, crop) if self.config.augment else augment.plain_pair(sample, random, crop, self.axes)


class Flow(Matching):
    """How far every pixel of the first view moves."""

    name = "flow"
    axes = (0, 1)
    sharpness = (10.0, 5.0)

    def example(self, sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
        return augment.flow(sample, random, crop) if self.config.augment else augment.plain_pair(sample, random, crop, self.axes)


TASKS: dict[str, type[DenseTask]] = {task.name: task for task in (Segmentation, DenseRegression, Depth, Stereo, Flow)}


def make_task(name: str, config: DenseConfig, data: DenseData) -> DenseTask:
    """The task of this name on its training data."""
    return TASKS[name](config, data)


def _one_view(config: OneViewConfig, sample: Sample, random: np.random.Generator, crop: tuple[int, int]) -> Part:
    return augment.one_view(sample, random, crop, (config.scale[0], config.scale[1]), config.flip, config.colour_jitter)
