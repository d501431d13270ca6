"""Settings of fine-tuning on images, with the values of MAE (He et al. 2022; facebookresearch/mae main_finetune.py, FINETUNE.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headstart.core.bounds import COUNT, FROM_0, SHARE, SHARE_ABOVE_0, Bounds, refuse_outside
from headstart.core.errors import UsageError
from headstart.tasks.config import OF_EVERY_TRAINING, RegulariserConfig

ImageMetric = Literal["auto", "accuracy", "balanced_accuracy", "auc", "map", "knn_accuracy"]
LARS_RATE = 6.4
"""Of MAE's probe: 0.1 for a batch of 256, at 16,384."""
BOUNDS = OF_EVERY_TRAINING | {
    **dict.fromkeys(("flip", "drop_path", "erasing", "label_smoothing", "minimum_share"), SHARE),
    **dict.fromkeys(("mixup", "cutmix", "head_deviation"), FROM_0),
    "crop_smallest": SHARE_ABOVE_0,
    "randaugment": Bounds(0, 10, "Give a magnitude from 0 to 10."),
    "bands": COUNT,
}


@dataclass
class ImageFinetuneConfig:
    """Fine-tuning of a whole vision transformer. The defaults suit a few hundred labels and a small network; MAE's own values are named."""

    linear_probe: Literal["off", "regression", "lars"] = "off"
    """Train a linear head alone, on the network as it is. regression: logistic regression on whole images, nothing to tune; beside it what the 20
    nearest training images say (knn_accuracy). lars: as MAE is measured,
    LARS on the head behind batch norm without weights; its own values are pooling class, batch 16384, 90 epochs, warmup_share .11, crop_smallest
    .08."""
    learning_rate: float | None = None
    """Peak rate of head and last block. None: 1e-3; with linear_probe lars 6.4, MAE's. MAE: 5e-4 (base), probe 0.1, each for a batch of 256 and in
    proportion to it."""
    learning_rates: tuple[float, ...] = ()
    """Rates to try; each arm takes its best on the dev images with the first seed. Empty: `learning_rate` alone."""
    epochs: float = 50.0
    """Passes over the training images. MAE: 100 base, 50 large."""
    steps: int | None = None
    """Steps instead of passes."""
    batch: int = 32
    """Images a step. MAE: 1024."""
    weight_decay: float = 0.05
    """Of matrices; vectors, positions and the class token have none, nor has LARS. MAE: 0.05."""
    beta2: float = 0.999
    """AdamW's second momentum. MAE: 0.999."""
    layer_decay: float = 0.75
    """Each layer below the head learns this much slower. MAE: 0.65 base, 0.75 large."""
    clip_norm: float | None = None
    """Global norm of the gradients. MAE: none."""
    warmup_share: float = 0.05
    """Share of the steps in which the rate rises. MAE: 5 of 100 epochs."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """How the rate falls after that. MAE: cosine; the plain recipe of transformers: linear, to a minimum_share of 0."""
    minimum_share: float = 1e-3
    """The rate ends at this share of the peak. MAE: 1e-6 of about 2e-3."""
    pooling: Literal["mean", "class"] = "mean"
    """Vector of an image. mean: of the patch tokens, before the encoder's last norm, under a norm of its own (MAE); class: the class token."""
    drop_path: float = 0.0
    """Probability of leaving out the last block's branches; less below. MAE: 0.1 base, 0.2 large."""
    dropout: float = 0.0
    """After the embeddings and after each branch of a block. MAE: 0; transformers' hidden_dropout_prob, where it is used: 0.1."""
    decay_norms: bool = False
    """Let the scales of norms decay, as transformers' recipe does."""
    head_deviation: float = 2e-5
    """Of the head's first weights. MAE: 2e-5, the head says nothing at first; transformers: 0.02."""
    train_positions: bool = True
    """Fixed sine and cosine positions are trained from their values on. MAE: yes (timm makes them a parameter)."""
    crop_smallest: float = 0.7
    """Least share of an image that a crop keeps. MAE: 0.08, for photographs."""
    flip: float = 0.5
    """Probability of mirroring. 0 where left and right matter (digits, chest X-rays)."""
    label_smoothing: float = 0.0
    """MAE: 0.1."""
    mixup: float = 0.0
    """Alpha of mixup's Beta distribution; 0: off. MAE: 0.8."""
    cutmix: float = 0.0
    """Alpha of cutmix's Beta distribution; 0: off. With both, a batch takes either with probability one half. MAE: 1."""
    randaugment: float = 0.0
    """Magnitude of RandAugment (timm's rand-mM-mstd0.5-inc1: two random changes of colour or shape, each with probability one half), 0 to 10; 0: off.
    For 8-bit images. MAE: 9."""
    erasing: float = 0.0
    """Probability of random erasing. MAE: 0.25."""
    bands: tuple[int, ...] = ()
    """Which bands of images with many are the network's channels, counted from 1. Empty: those that its run chose (--image.bands), else all."""
    label_separator: str | None = None
    """An image may have several classes: what stands between them in its label, "|" for water|forest. None: one class each."""
    metric: ImageMetric = "auto"
    """What arms are compared by. auto: accuracy; map (mean average precision) where an image may have several classes."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU."""
    device: str = "auto"
    """auto: a GPU if there is one."""
    regulariser: RegulariserConfig = field(default_factory=RegulariserConfig)
    """Staying near the pre-trained weights."""

    def __post_init__(self) -> None:
        refuse_outside(self, BOUNDS)
        require(self.regulariser.name != "r3f", "the regulariser", "r3f, noise on word embeddings", "Give recadam or mars.")
        held = self.regulariser.name != "none"
        require(not held or self.linear_probe == "off", "the regulariser", self.regulariser.name, "A probe trains a head alone: leave it out.")
        require(self.label_separator != "", "--label-separator", "empty", "Give what stands between the classes, such as |.")

    @property
    def rates(self) -> tuple[float, ...]:
        """The peak rates to try, at least one."""
        usual = LARS_RATE if self.linear_probe == "lars" else 1e-3
        return self.learning_rates or (usual if self.learning_rate is None else self.learning_rate,)


def require(holds: bool, name: str, value: object, mend: str) -> None:
    """Raises UsageError where a setting does not hold; `name` is its flag."""
    if not holds:
        raise UsageError(f"{name} is {value}.", mend)
