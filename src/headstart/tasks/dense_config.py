"""Settings of dense tasks, which want something of every pixel. The defaults suit some hundred labelled images and a small network; the papers'
values are named.

Stereo and flow: CroCo v2 (naver/croco stereoflow/train.py, stereoflow/augmentor.py). Depth: MultiMAE's protocol on NYUv2, which CroCo follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.core.bounds import ABOVE_0, BELOW_1, COUNT, COUNT_FROM_0, SHARE, refuse_outside
from headstart.tasks.config import OF_EVERY_TRAINING, Rates
from headstart.tasks.image_config import require

SegmentationMetric = Literal["miou", "pixel_accuracy", "mean_accuracy"]
MatchingLoss = Literal["l1", "laplacian", "bounded", "bounded2"]
BOUNDS = OF_EVERY_TRAINING | {
    **dict.fromkeys(("drop_path", "flip", "colour_jitter"), SHARE),
    **dict.fromkeys(("scale", "unit"), ABOVE_0),
    **dict.fromkeys(("crop", "bands"), COUNT),
    "overlap": BELOW_1,
    "hooks": COUNT_FROM_0,
}


@dataclass
class DenseConfig(Rates):
    """What every dense task takes."""

    learning_rate: float = 1e-3
    """Peak rate of the head and the last block. CroCo: 3e-5 stereo, 2e-5 flow, for its large networks."""
    learning_rates: tuple[float, ...] = ()
    """Rates to try; each arm takes its best on the dev images with the first seed. Empty: `learning_rate` alone."""
    epochs: float = 50.0
    """Passes over the training images. CroCo: 32 stereo, 240 flow (of 30,000 pairs)."""
    steps: int | None = None
    """Steps instead of passes."""
    batch: int = 8
    """Images, or pairs, a step. CroCo: 6 stereo, 8 flow."""
    weight_decay: float = 0.05
    """Of matrices; vectors, positions and the class token have none. CroCo: 0.05."""
    beta2: float = 0.999
    """AdamW's second momentum. CroCo: 0.95."""
    layer_decay: float = 1.0
    """Each layer below the head learns this much slower; 1: none (CroCo). MultiMAE, for depth and segmentation: 0.75."""
    clip_norm: float | None = None
    """Global norm of the gradients. CroCo: none."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises; then a cosine to 0. CroCo: 1 of 32 epochs, 1 of 240."""
    drop_path: float = 0.0
    """Probability of leaving out the encoder's last block's branches; less below."""
    head: Literal["auto", "dpt", "linear", "bilinear"] = "auto"
    """dpt: reads four blocks (Ranftl et al. 2021); linear: from a patch's token all its pixels; bilinear: one value a patch, enlarged (segmentation
    with many classes). auto: dpt for eight blocks or more, else linear."""
    hooks: tuple[int, ...] = ()
    """Four blocks that dpt reads, counted from 0 over encoder, then decoder. Empty: the usual ones."""
    crop: tuple[int, ...] = ()
    """Height and width of what the network sees in training, and of the windows of a larger test image. Empty: the network's own image size.
    CroCo: 352 704 stereo, 320 384 flow. Train and test at the resolution that you will use."""
    overlap: float = 0.5
    """Share by which windows of a larger test image overlap. CroCo: 0.9; 0.7 while validating."""
    bands: tuple[int, ...] = ()
    """Which bands of images with many are the network's channels, counted from 1. Empty: those that its run chose (--image.bands), else all."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU. CroCo: fp32."""
    device: str = "auto"
    """auto: a GPU if there is one."""

    def __post_init__(self) -> None:
        refuse_outside(self, BOUNDS, free=frozenset({"nothing"}))
        require(len(self.hooks) in (0, 4), "--hooks", self.hooks, "Give four numbers.")
        require(len(self.crop) in (0, 2), "--crop", self.crop, "Give height and width in pixels.")


@dataclass
class OneViewConfig(DenseConfig):
    """What tasks on one image take."""

    scale: tuple[float, ...] = (1.0, 1.0)
    """Training images are resized by a factor between these, before a part is cut out. Usual for photographs: 0.5 2.0."""
    flip: float = 0.5
    """Probability of mirroring left to right. 0 where left and right matter."""
    colour_jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by 1 - x to 1 + x. Images of floats are left as they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.scale) == 2 and self.scale[0] <= self.scale[1], "--scale", self.scale, "Give the smallest and the largest factor.")


@dataclass
class SegmentationConfig(OneViewConfig):
    """Segmentation: a class of every pixel, cross-entropy."""

    ignore_label: int = 255
    """The number in masks that means: no class, do not score. Negative numbers are never scored."""
    class_names: tuple[str, ...] = ()
    """Names of the classes 0, 1 ... Empty: as many as the training masks have, named by their numbers."""
    metric: SegmentationMetric = "miou"
    """What arms are compared by. miou: mean over the classes of intersection over union, of all test pixels together."""


@dataclass
class DenseRegressionConfig(OneViewConfig):
    """Dense regression: numbers of every pixel."""

    loss: Literal["l1", "l2", "berhu"] = "l2"
    """l1, l2, or berhu (reversed Huber: l1 below a fifth of the batch's largest error, l2 above), on standardised values."""
    unit: float = 1.0
    """What one stands for in the files: 1000 for metres stored in millimetres. Values are divided by it, and metrics are in the result's unit."""
    nothing: float | None = None
    """A value in the files that means: no value, do not score. NaN and infinity are never scored."""
    metric: Literal["rmse", "mae", "r2"] = "rmse"
    """What arms are compared by. rmse, mae: of all test pixels together; r2: share of the variance that is explained."""

@dataclass
class DepthConfig(OneViewConfig):
    """Depth from one image."""

    loss: Literal["l1", "l2", "berhu"] = "berhu"
    """berhu: reversed Huber, MultiMAE's on NYUv2; on standardised depths."""
    unit: float = 1.0
    """What one stands for in the files: 1000 for metres in millimetres, 256 for KITTI's. Depths are divided by it."""
    nothing: float | None = 0.0
    """A value in the files that means: no depth."""
    metric: Literal["delta1", "rmse", "absrel"] = "delta1"
    """What arms are compared by. delta1: share of the pixels right within a factor of 1.25, of each image, then averaged."""

@dataclass
class StereoConfig(DenseConfig):
    """Stereo: the disparity of the first (left) view, in pixels."""

    loss: MatchingLoss = "bounded2"
    """l1: no confidence; laplacian, bounded2: with a confidence of every pixel (CroCo: bounded2; laplacian on ETH3D)."""
    augment: bool = True
    """CroCo's: horizontal rescaling, vertical flips, a right view that is a little off, colours of each view."""
    metric: Literal["avgerr", "bad@0.5", "bad@1", "bad@2", "bad@3"] = "avgerr"
    """What arms are compared by: mean error in pixels, or per cent of the pixels that are wrong by more; of each image, then averaged."""


@dataclass
class FlowConfig(DenseConfig):
    """Flow: how far every pixel of the first view moves, in pixels."""

    loss: MatchingLoss = "bounded"
    """l1: no confidence; bounded: CroCo's, with a confidence of every pixel."""
    augment: bool = True
    """CroCo's: scale, stretch, flips, colours."""
    metric: Literal["EPE", "bad@1", "bad@3", "bad@5"] = "EPE"
    """What arms are compared by: mean length of the error in pixels, or per cent of the pixels that are wrong by more."""


CONFIGS: dict[str, type[DenseConfig]] = {
    "segmentation": SegmentationConfig,
    "dense-regression": DenseRegressionConfig,
    "depth": DepthConfig,
    "stereo": StereoConfig,
    "flow": FlowConfig,
}
"""Dense task -> its settings."""
