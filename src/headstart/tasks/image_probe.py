"""Linear probe: a linear head on a vision transformer that stays as it is.

- `lars`: as MAE is measured (He et al. 2022; facebookresearch/mae main_linprobe.py, util/lars.py): batch norm without weights before the head, LARS,
  crops and flips. Made for ImageNet: with few images its steps are too few or too small, and its rate must be found.
- `regression`: logistic regression on the standardised features of whole images, by L-BFGS: nothing to tune, the same result every time.

Either way what the head saw before it is folded into its weights at the end: the network on disk is a plain encoder under a plain linear head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.errors import UsageError
from headstart.engine.probes import fit_linear_probe

EPSILON = 1e-6
"""Of the batch norm."""
NEVER = 30.0
"""By how much the logit of a class without images is lower."""


class Lars(torch.optim.Optimizer):
    """Momentum whose steps on matrices are as long as `trust` times the matrix itself, times the rate (You et al. 2017); vectors take plain momentum.

    No weight decay, as in MAE's probe.
    """

    def __init__(self, parameters: Iterable[Any], lr: float, momentum: float = 0.9, trust: float = 1e-3) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                step = parameter.grad
                if parameter.ndim > 1:
                    length, of_step = parameter.norm(), step.norm()
                    step = step * torch.where((length > 0) & (of_step > 0), group["trust"] * length / of_step, 1.0)
                moment = self.state[parameter].setdefault("moment", torch.zeros_like(parameter))
                parameter.sub_(moment.mul_(group["momentum"]).add_(step), alpha=group["lr"])


def normalised_head(head: nn.Linear) -> nn.Sequential:
    """The head of MAE's probe: batch norm without weights, then the linear layer, its weights normal with deviation .01."""
    nn.init.trunc_normal_(head.weight, std=0.01)
    return nn.Sequential(nn.BatchNorm1d(head.in_features, affine=False, eps=EPSILON), head)


@torch.no_grad()
def folded(head: nn.Sequential) -> nn.Linear:
    """One linear layer that computes what batch norm (in evaluation) and linear layer do."""
    norm, linear = head
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(linear, nn.Linear)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    _set(linear, linear.weight.double(), linear.bias.double(), norm.running_mean.double(), (norm.running_var.double() + norm.eps).sqrt())
    return linear


@torch.no_grad()
def fit_head(head: nn.Linear, features: Tensor, labels: Tensor) -> float:
    """Logistic regression as the head's weights.

    Args:
        features: [n, dim]; labels: int64 [n].

    Returns:
        the mean cross-entropy on them.

    Raises:
        UsageError: images may have several classes.
    """
    if labels.ndim > 1:
        raise UsageError("Regression takes one class an image; these have several.", "Take --linear-probe lars.")
    weight, bias, mean, scale = fit_linear_probe(features, labels)
    missing = head.out_features - weight.shape[1]  # classes without an image, behind the last that has one
    weight, bias = F.pad(weight, (0, missing)), F.pad(bias, (0, missing), value=float(bias.min()) - NEVER)
    _set(head, weight.T, bias, mean, scale)
    return float(F.cross_entropy(head(features.float()), labels))


def _set(head: nn.Linear, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor) -> None:
    """Makes `head` compute weight (x - mean) / scale + bias."""
    weight = weight / scale
    head.weight.copy_(weight)
    head.bias.copy_(bias - weight @ mean)
