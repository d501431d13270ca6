"""Settings of fine-tuning on images, with the values of MAE (He et al. 2022; facebookresearch/mae main_finetune.py, FINETUNE.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.core.errors import UsageError

ImageMetric = Literal["auto", "accuracy", "balanced_accuracy", "auc", "map"]


@dataclass
class ImageFinetuneConfig:
    """Fine-tuning of a whole vision transformer. The defaults suit a few hundred labels and a small network; MAE's own values are named."""

    learning_rate: float = 1e-3
    """Peak rate of head and last block. MAE, base: 5e-4 for a batch of 256, in proportion to the batch."""
    learning_rates: tuple[float, ...] = ()
    """Rates to try; each arm takes its best on the dev images with the first seed. Empty: `learning_rate` alone."""
    epochs: float = 50.0
    """Passes over the training images. MAE: 100 base, 50 large."""
    steps: int | None = None
    """Steps instead of passes."""
    batch: int = 32
    """Images a step. MAE: 1024."""
    weight_decay: float = 0.05
    """Of matrices; vectors, positions and the class token have none. MAE: 0.05."""
    beta2: float = 0.999
    """AdamW's second momentum. MAE: 0.999."""
    layer_decay: float = 0.75
    """Each layer below the head learns this much slower. MAE: 0.65 base, 0.75 large."""
    clip_norm: float | None = None
    """Global norm of the gradients. MAE: none."""
    warmup_share: float = 0.05
    """Share of the steps in which the rate rises. MAE: 5 of 100 epochs."""
    minimum_share: float = 1e-3
    """The cosine ends at this share of the peak. MAE: 1e-6 of about 2e-3."""
    pooling: Literal["mean", "class"] = "mean"
    """Vector of an image. mean: of the patch tokens, before the encoder's last norm, under a norm of its own (MAE); class: the class token."""
    drop_path: float = 0.0
    """Probability of leaving out the last block's branches; less below. MAE: 0.1 base, 0.2 large."""
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
    erasing: float = 0.0
    """Probability of random erasing. MAE: 0.25."""
    metric: ImageMetric = "auto"
    """What arms are compared by. auto: accuracy; map (mean average precision) where an image may have several classes."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU."""
    device: str = "auto"
    """auto: a GPU if there is one."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "batch"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "Give a number above 0.")
        _require(self.steps is None or self.steps > 0, "steps", self.steps, "Give a number above 0.")
        for name in ("flip", "drop_path", "erasing", "label_smoothing", "warmup_share", "minimum_share"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "Give a share from 0 to 1.")
        _require(0 < self.crop_smallest <= 1, "crop_smallest", self.crop_smallest, "Give a share above 0, up to 1.")
        _require(self.mixup >= 0 and self.cutmix >= 0, "mixup or cutmix", min(self.mixup, self.cutmix), "Give 0 or more.")


def _require(holds: bool, name: str, value: object, mend: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value}.", mend)
