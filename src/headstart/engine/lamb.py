"""LAMB (You et al. 2020, arXiv 1904.00962): Adam whose step on each tensor is as long as a share of that tensor, for batches of tens of thousands."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from headstart.engine.distributed import as_cut, is_cut, local


class Lamb(torch.optim.Optimizer):
    """As NVIDIA trains BERT with it (DeepLearningExamples, lamb_amp_opt/fused_lamb): u = m' / (sqrt(v') + eps) + decay * w with bias-corrected
    moments, then w -= rate * |w| / |u| * u. A group without weight decay takes the plain step of Adam (ratio 1), as does a tensor whose norm, or
    whose step's, is 0. Gradients are clipped by the engine.

    Nothing waits for the device, so a captured CUDA graph can hold it. Like a fused AdamW it makes no update where its attribute `found_inf` is 1
    (`optim.step_unless`).
    """

    found_inf: Tensor | None = None

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0, "fused": True, "capturable": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of all groups."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self._update(group, parameters)
        return loss

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros((), device=parameter.device), **zeros}
        states = [self.state[parameter] for parameter in parameters]
        weights = [local(parameter) for parameter in parameters]
        gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
        means, squares = [local(state["exp_avg"]) for state in states], [local(state["exp_avg_sq"]) for state in states]
        steps, rate, (beta1, beta2) = [state["step"] for state in states], group["lr"], group["betas"]
        squared = list(torch._foreach_mul(gradients, gradients))
        if self.found_inf is None:
            torch._foreach_add_(steps, 1)
        else:  # a mean with itself is that mean, and a rate of 0 changes nothing: both exactly
            left_out = self.found_inf.bool()
            gradients = [torch.where(left_out, mean, gradient) for mean, gradient in zip(means, gradients, strict=True)]
            squared = [torch.where(left_out, old, new) for old, new in zip(squares, squared, strict=True)]
            torch._foreach_add_(steps, [(~left_out).to(torch.float32)] * len(steps))  # a single tensor would be read back to the host
            rate = rate * (1 - self.found_inf)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_lerp_(squares, squared, 1 - beta2)
        update = list(torch._foreach_div(squares, _correction(beta2, steps)))
        torch._foreach_sqrt_(update)
        torch._foreach_add_(update, group["eps"])
        torch._foreach_reciprocal_(update)
        torch._foreach_mul_(update, torch._foreach_div(means, _correction(beta1, steps)))
        lengths = [rate] * len(weights)
        if group["weight_decay"]:
            torch._foreach_add_(update, weights, alpha=group["weight_decay"])
            norms = zip(_norms(weights, parameters), _norms(update, parameters), strict=True)
            lengths = [rate * torch.where((own > 0) & (step > 0), own / step, 1.0) for own, step in norms]
        torch._foreach_mul_(update, lengths)
        torch._foreach_sub_(weights, update)


def _correction(beta: float, steps: list[Tensor]) -> list[Tensor]:
    """1 - beta^step of each; 1 before the first step, which a left-out update may be."""
    powers = torch._foreach_pow(beta, steps)
    torch._foreach_neg_(powers)
    torch._foreach_add_(powers, 1)
    return [torch.where(step > 0, power, 1.0) for step, power in zip(steps, powers, strict=True)]


def _norms(values: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
    """The norm of each whole tensor, of which this process may have a part, cut as its parameter."""
    if not any(map(is_cut, parameters)):
        return list(torch._foreach_norm(values))
    pairs = zip(values, parameters, strict=True)
    return [as_cut(value, parameter).norm().full_tensor() if is_cut(parameter) else value.norm() for value, parameter in pairs]
